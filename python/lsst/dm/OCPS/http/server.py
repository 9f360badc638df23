# SPDX-License-Identifier: GPL-3.0-or-later
"""The HTTP server, in the process of the CSC or in one of its own."""

from __future__ import annotations

__all__ = ["HttpServer", "check_server", "start_server"]

import asyncio
import contextlib
import errno
import logging
import os
import resource
import socket
import stat
from collections.abc import Iterable
from pathlib import Path

from aiohttp import web

from ..config import ConfigError, HttpConfig
from ..jobs.definition import JobDefinition
from ..jobs.manager import JobManager
from ..logs import CleanText, RateLimit, protect_log
from ..measures import About, Measures
from .app import make_app
from .auth import Authenticator
from .connections import BACKLOG, ConnectionLimits, Listener
from .context import Service
from .guard import Guard
from .job_tokens import JobTokens
from .metrics import METRICS
from .site import check_binding

SHUTDOWN_TIMEOUT = 1.0
"""How long (s) open requests may take when the server is closed; a WAIT would take minutes."""


class HttpServer:
    """A running server.

    Parameters
    ----------
    runner : `aiohttp.web.AppRunner`
        Handles the requests.
    listener : `Listener`
        Accepts the connections.
    path : `pathlib.Path` or `None`
        The Unix socket, if there is one.
    """

    def __init__(self, runner: web.AppRunner, listener: Listener, path: Path | None) -> None:
        self._runner = runner
        self._listener = listener
        self._path = path

    @property
    def port(self) -> int:
        """The TCP port it listens at; 0 if it serves a Unix socket only."""
        for sock in self._listener.sockets:
            if sock.family != socket.AF_UNIX:
                return int(sock.getsockname()[1])
        return 0

    async def close(self) -> None:
        """Close the server; the engine stays open."""
        await self._listener.close()
        if self._path:
            self._path.unlink(missing_ok=True)
        await self._runner.cleanup()


def check_server(config: HttpConfig, definitions: Iterable[JobDefinition], log: logging.Logger) -> None:
    """Check whether an engine could be served as configured, without opening a port.

    Parameters
    ----------
    config : `HttpConfig`
        The configuration; environment variables override it.
    definitions : `~collections.abc.Iterable` [`JobDefinition`]
        The engine's job definitions.
    log : `logging.Logger`
        Gets warnings.

    Raises
    ------
    ConfigError
        If it could not be served.
    """
    config = config.overridden()
    check_binding(config, definitions)
    Authenticator(config.auth, log)


async def start_server(
    manager: JobManager,
    config: HttpConfig,
    log: logging.Logger,
    measures: Measures | None = None,
    about: About | None = None,
) -> HttpServer:
    """Serve an engine over HTTP.

    Parameters
    ----------
    manager : `JobManager`
        The engine, open; it is not closed with the server.
    config : `HttpConfig`
        The configuration; environment variables override it.
    log : `logging.Logger`
        Gets warnings.
    measures : `~collections.abc.Callable`, optional
        Returns further figures of this process, for ``/metrics``.
    about : `~collections.abc.Callable`, optional
        Returns what the CSC is that the engine belongs to.

    Returns
    -------
    server : `HttpServer`
        The server, listening.

    Raises
    ------
    ConfigError
        If the engine cannot be served as configured.
    """
    config = config.overridden()
    check_binding(config, manager.lane.definitions.values())
    protect_log(log)
    log_of_requests = _limited_log(log)
    authenticator = Authenticator(config.auth, log_of_requests)
    tokens = JobTokens.of(manager.workspaces.work_dir)
    service = Service(manager, config, authenticator, tokens, log_of_requests, about)
    # The engine has raised this limit as far as possible.
    open_files = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    limits = ConnectionLimits.of(
        config.max_connections, config.max_connections_per_peer, open_files, authenticator.is_proxy
    )
    app = make_app(service, measures)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=SHUTDOWN_TIMEOUT)
    await runner.setup()
    sockets: list[socket.socket] = []
    path = Path(os.path.expandvars(config.socket)).expanduser() if config.socket else None
    try:
        if config.host:
            sockets += await _tcp_sockets(config.host, config.port)
        if path:
            sockets.append(_unix_socket(path))
    except ConfigError:
        for sock in sockets:
            sock.close()
        await runner.cleanup()
        raise
    assert runner.server
    runner.server.request_handler = Guard(service, runner.server.request_handler).answer  # type: ignore[assignment]
    listener = Listener(sockets, runner.server, limits, log_of_requests)
    app[METRICS].connections = lambda: listener.count
    listener.start()
    server = HttpServer(runner, listener, path)
    if config.host:
        log.info(f"Serving UWS at http://{config.host}:{server.port}{config.uws_root}")
    if path:
        log.info(f"Serving UWS at the Unix socket {path}")
    return server


def _limited_log(log: logging.Logger) -> logging.Logger:
    """Return a child logger for messages that clients can cause, with a limited rate."""
    child = log.getChild("http")
    if not child.filters:
        child.addFilter(RateLimit())
        child.addFilter(CleanText())
    return child


async def _tcp_sockets(host: str, port: int) -> list[socket.socket]:
    """Return sockets that listen at all addresses of a host."""
    loop = asyncio.get_running_loop()
    sockets: list[socket.socket] = []
    try:
        found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        for family, kind, protocol, _, address in dict.fromkeys(found):
            sock = socket.socket(family, kind, protocol)
            sockets.append(sock)
            sock.setblocking(False)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            # With port 0, all addresses get the port that was chosen for the first.
            chosen = sockets[0].getsockname()[1] if len(sockets) > 1 else port
            sock.bind((address[0], chosen, *address[2:]))
            sock.listen(BACKLOG)
    except OSError as error:
        for sock in sockets:
            sock.close()
        reason = "it is in use" if error.errno == errno.EADDRINUSE else (error.strerror or str(error))
        if isinstance(error, socket.gaierror):
            reason = "there is no such host"
        raise ConfigError(f"http: cannot listen at {host}, port {port}: {reason}") from None
    return sockets


def _unix_socket(path: Path) -> socket.socket:
    """Return a listening Unix socket; an abandoned one at this path is replaced."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        if _is_abandoned(path):
            path.unlink()
        sock.setblocking(False)
        sock.bind(str(path))
        # All accounts may connect, because the kernel identifies them.
        path.chmod(0o666)
        sock.listen(BACKLOG)
    except OSError as error:
        sock.close()
        reason = "it is in use" if error.errno == errno.EADDRINUSE else (error.strerror or str(error))
        raise ConfigError(f"http/socket {path}: {reason}") from None
    return sock


def _is_abandoned(path: Path) -> bool:
    """Return whether there is a socket at which no process listens."""
    with contextlib.suppress(FileNotFoundError):
        if stat.S_ISSOCK(path.lstat().st_mode):
            with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
                return probe.connect_ex(str(path)) == errno.ECONNREFUSED
    return False
