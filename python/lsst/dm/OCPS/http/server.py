# SPDX-License-Identifier: GPL-3.0-or-later
"""Starting and ending the HTTP server, beside the CSC or alone."""

from __future__ import annotations

__all__ = ["HttpServer", "check_server", "start_server"]

import errno
import logging
import socket

from aiohttp import web

from ..config import ConfigError, HttpConfig
from ..jobs.manager import JobManager
from .app import make_app
from .auth import Authenticator, check_binding
from .context import Service
from .job_tokens import JobTokens

SHUTDOWN_TIMEOUT = 1.0
"""How long (s) requests may take to be answered when the server ends; a WAIT would take minutes."""

LINGERING_TIME = 1.0
"""How long (s) the rest of a request is read that was refused before its end."""


class HttpServer:
    """A server that runs.

    Parameters
    ----------
    runner : `aiohttp.web.AppRunner`
        What runs it.
    """

    def __init__(self, runner: web.AppRunner) -> None:
        self._runner = runner

    @property
    def port(self) -> int:
        """The port it listens at."""
        return int(self._runner.addresses[0][1])

    async def close(self) -> None:
        """End it; jobs run on, and the engine is left as it is."""
        await self._runner.cleanup()


def check_server(config: HttpConfig) -> None:
    """Check whether the server could be started as configured; nothing listens yet.

    Parameters
    ----------
    config : `HttpConfig`
        As configured; environment variables take precedence.

    Raises
    ------
    ConfigError
        If it could not.
    """
    config = config.overridden()
    check_binding(config)
    Authenticator(config.auth)


async def start_server(manager: JobManager, config: HttpConfig, log: logging.Logger) -> HttpServer:
    """Serve an engine over HTTP.

    Parameters
    ----------
    manager : `JobManager`
        The engine, open; it is not closed with the server.
    config : `HttpConfig`
        As configured; what the environment says instead counts.
    log : `logging.Logger`
        Gets what is unusual.

    Returns
    -------
    server : `HttpServer`
        The server, listening.

    Raises
    ------
    ConfigError
        If it cannot be served as configured.
    """
    config = config.overridden()
    check_binding(config)
    tokens = JobTokens.of(manager.workspaces.work_dir)
    service = Service(manager, config, Authenticator(config.auth), tokens, log)
    runner = web.AppRunner(
        make_app(service),
        access_log=None,
        shutdown_timeout=SHUTDOWN_TIMEOUT,
        lingering_time=LINGERING_TIME,
    )
    await runner.setup()
    try:
        await web.TCPSite(runner, config.host, config.port, backlog=1024).start()
    except OSError as error:
        await runner.cleanup()
        reason = "it is in use" if error.errno == errno.EADDRINUSE else (error.strerror or str(error))
        if isinstance(error, socket.gaierror):
            reason = "there is no such host"
        raise ConfigError(f"http: cannot listen at {config.host}, port {config.port}: {reason}") from None
    server = HttpServer(runner)
    log.info(f"Serving UWS at http://{config.host}:{server.port}{config.uws_path}")
    return server
