# SPDX-License-Identifier: GPL-3.0-or-later
"""What the CSC stands on: the engine, its results going out, and HTTP beside it."""

from __future__ import annotations

__all__ = ["Service"]

import contextlib
import logging
from typing import TYPE_CHECKING, Any

from .config import ConfigError, InstanceConfig, load_instance
from .factory import check_config, end_jobs, make_manager, make_simulation, use_config
from .jobs.manager import JobManager
from .sal.publisher import Publisher, Write

if TYPE_CHECKING:
    from .http.server import HttpServer


class Service:
    """One engine at a time, with its publisher and its HTTP server.

    Parameters
    ----------
    write : `~collections.abc.Callable`
        Writes the event of one result.
    log : `logging.Logger`
        Gets what happens.
    """

    def __init__(self, write: Write, log: logging.Logger) -> None:
        self.config: InstanceConfig | None = None
        self._write = write
        self._log = log
        self._manager: JobManager | None = None
        self._publisher: Publisher | None = None
        self._http: HttpServer | None = None

    @property
    def manager(self) -> JobManager:
        """The engine; there is one when the CSC is DISABLED or ENABLED."""
        assert self._manager is not None
        return self._manager

    @property
    def publisher(self) -> Publisher:
        """Brings the engine's results out."""
        assert self._publisher is not None
        return self._publisher

    @property
    def is_open(self) -> bool:
        """Whether there is an engine."""
        return self._manager is not None

    async def simulate(self, document: dict[str, Any], sal_index: int, duration: float | None) -> None:
        """Take a configuration for simulation, for which none is needed.

        Parameters
        ----------
        document : `dict`
            The configuration; only limits count.
        sal_index : `int`
            Which instance of it.
        duration : `float` or `None`
            How long each job lasts (s); `None` for what is configured.
        """
        if not self.is_open:
            config = InstanceConfig(sal_index=sal_index)
            with contextlib.suppress(ConfigError):
                config = load_instance(document, sal_index)
            self._open(await make_simulation(config, duration, self._log))

    async def configure(self, config: InstanceConfig) -> None:
        """Take a configuration; jobs that run keep theirs.

        Raises
        ------
        JobError, ConfigError
            If jobs could not run with it; then nothing has changed.
        """
        await check_config(config, self._log)
        if self._manager and self._manager.workspaces.work_dir != config.directory():
            if live := self._manager.live():
                raise ConfigError(
                    f"work_dir: {len(live)} jobs have not ended in {self._manager.workspaces.work_dir}; "
                    "abort them or let them end first"
                )
            await self.close()
        if self._manager is None:
            self._open(await make_manager(config, self._log))
        else:
            await use_config(self._manager, config, self._log)
        await self._serve(config)
        self.config = config

    async def check(self) -> None:
        """Try whether jobs could run; raises `BackendError` with the reason."""
        await self.manager.lane.backend.check()

    async def end_jobs(self) -> None:
        """Do with running jobs what is configured for the end of OCPS; take no more over HTTP."""
        await self._stop_serving()
        if self._manager and self.config:
            await end_jobs(self._manager, self.config.on_exit)

    async def close(self) -> None:
        """Let go of the engine; its jobs run on."""
        await self._stop_serving()
        if self._publisher:
            await self._publisher.close()
        if self._manager:
            await self._manager.close()
        self._publisher = self._manager = None

    def _open(self, manager: JobManager) -> None:
        self._manager = manager
        self._publisher = Publisher(manager, self._write, self._log)
        self._publisher.open()

    async def _serve(self, config: InstanceConfig) -> None:
        """Serve the engine over HTTP too, if that is configured."""
        if self._http and self.config and self.config.http == config.http:
            return
        await self._stop_serving()
        if config.http:
            # A CSC without HTTP starts quicker for not knowing of it.
            from .http.server import start_server

            self._http = await start_server(self.manager, config.http, self._log)

    async def _stop_serving(self) -> None:
        if self._http:
            await self._http.close()
            self._http = None
