# SPDX-License-Identifier: GPL-3.0-or-later
"""An engine with its HTTP server, as the CSC and ``run_uws.py`` both use it."""

from __future__ import annotations

__all__ = ["Host", "check_file", "check_instance"]

import contextlib
import logging
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from .config import ConfigError, InstanceConfig, SalIndex, load_instance
from .factory import Shared, check_parts, make_manager, make_parts, make_simulation, use_config
from .jobs.ending import end_jobs
from .jobs.errors import JobError
from .jobs.file_access import look_at_files
from .jobs.manager import JobManager
from .jobs.workspace import Workspaces
from .measures import About, Measure, Measures
from .yaml_files import read_yaml

if TYPE_CHECKING:
    from .http.server import HttpServer
    from .notifications.notifier import Notifier


class Companion(Protocol):
    """An object that works with an engine as long as that is open."""

    async def close(self) -> None:
        """Stop; the engine is still open."""


class Host:
    """One engine at a time, with its HTTP server.

    Parameters
    ----------
    log : `logging.Logger`
        Gets one line per change of phase, and warnings.
    accompany : `~collections.abc.Callable`, optional
        Called with each engine once it is open; returns a companion, which is
        closed before the engine.
    measures : `~collections.abc.Callable`, optional
        Returns further figures of this process, for ``/metrics``.
    about : `~collections.abc.Callable`, optional
        Returns what the CSC is, for the dashboard.
    """

    def __init__(
        self,
        log: logging.Logger,
        accompany: Callable[[JobManager], Companion] | None = None,
        measures: Measures | None = None,
        about: About | None = None,
    ) -> None:
        self.config: InstanceConfig | None = None
        self._log = log
        self._accompany = accompany
        self._measures = measures
        self._about = about
        self._shared: Shared = {}
        self._manager: JobManager | None = None
        self._companion: Companion | None = None
        self._http: HttpServer | None = None
        self._notifier: Notifier | None = None

    @property
    def manager(self) -> JobManager:
        """The engine; `is_open` says whether there is one."""
        assert self._manager is not None
        return self._manager

    @property
    def is_open(self) -> bool:
        """Whether there is an engine."""
        return self._manager is not None

    async def simulate(self, document: dict[str, Any], sal_index: int, duration: float | None) -> None:
        """Open an engine that simulates, for which no configuration is needed.

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
        """Use a configuration for new jobs; existing jobs keep theirs.

        Parameters
        ----------
        config : `InstanceConfig`
            The configuration.

        Raises
        ------
        JobError, ConfigError
            If jobs could not run with it; then nothing is changed. Also if
            something fails after the check: the engine cannot be opened,
            the directory of notifications cannot be made, or the port of the
            HTTP server is taken. Then what came before that is in use already.
        """
        await check_instance(config, self._log, self._shared)
        if self._manager and self._manager.workspaces.work_dir != config.directory():
            if live := self._manager.live():
                raise ConfigError(
                    f"work_dir: {len(live)} jobs have not ended in {self._manager.workspaces.work_dir}; "
                    "abort them or let them end first"
                )
            await self.close()
        if self._manager is None:
            self._open(await make_manager(config, self._log, self._shared))
        else:
            await use_config(self._manager, config, self._log, self._shared)
        await self._notify(config)
        await self._serve(config)
        self.config = config

    async def check(self) -> None:
        """Check whether jobs could run.

        Raises
        ------
        BackendError
            If jobs could not run, with the reason.
        """
        await self.manager.lane.backend.check()

    async def end_jobs(self) -> None:
        """Stop serving HTTP, and treat live jobs as ``on_exit`` is configured."""
        await self._stop_serving()
        if self._manager and self.config:
            await end_jobs(self._manager, self.config.on_exit)

    async def close(self) -> None:
        """Close the engine; running jobs continue."""
        await self._stop_serving()
        if self._companion:
            await self._companion.close()
        await self._stop_notifying()
        if self._manager:
            await self._manager.close()
        self._companion = self._manager = None

    def _open(self, manager: JobManager) -> None:
        self._manager = manager
        if self._accompany:
            self._companion = self._accompany(manager)

    async def _serve(self, config: InstanceConfig) -> None:
        """Serve the engine over HTTP too, if that is configured."""
        if self._http and self.config and self.config.http == config.http:
            return
        await self._stop_serving()
        if config.http:
            # Imported here, so that a CSC without HTTP starts faster.
            from .http.server import start_server

            self._http = await start_server(
                self.manager, config.http, self._log, self._all_measures, self._about
            )

    def _all_measures(self) -> Iterator[Measure]:
        """Return the figures of all that runs beside the engine."""
        if self._measures:
            yield from self._measures()
        if self._notifier:
            yield from self._notifier.measures()

    async def _notify(self, config: InstanceConfig) -> None:
        """Tell of ends of jobs as the configuration says; secrets are read anew each time."""
        await self._stop_notifying()
        if config.notifications:
            from .notifications.notifier import Notifier

            notifier = Notifier(self.manager, config, self._log)
            try:
                await notifier.open()
            except OSError as error:
                raise ConfigError(f"notifications: {error.filename}: {error.strerror}") from None
            self._notifier = notifier

    async def _stop_notifying(self) -> None:
        if self._notifier:
            notifier, self._notifier = self._notifier, None
            await notifier.close()

    async def _stop_serving(self) -> None:
        if self._http:
            await self._http.close()
            self._http = None


async def check_instance(config: InstanceConfig, log: logging.Logger, shared: Shared | None = None) -> None:
    """Check whether an instance could work as configured; nothing is started or opened.

    The CSC calls this at ``start``, ``run_uws.py`` before it serves, and
    ``ocps check --config`` through `check_file`.

    Parameters
    ----------
    config : `InstanceConfig`
        The configuration.
    log : `logging.Logger`
        Gets warnings.
    shared : `dict`, optional
        Objects that the backends of this process share.

    Raises
    ------
    JobError, ConfigError
        If it could not work, with the reason.
    """
    if config.sal_index == SalIndex.RA:
        from .sal.rapid_analysis import RapidAnalysis

        await RapidAnalysis().check()
        return
    if reason := await look_at_files(_unusable, config.directory()):
        raise ConfigError(f"work_dir: {reason}")
    parts = make_parts(config, Workspaces(config.directory()), log, shared)
    if config.http:
        from .http.server import check_server

        check_server(config.http, parts.definitions.values(), log)
    if config.notifications:
        from .notifications.channels import make_channels

        # Rules and secrets; nobody is asked.
        await look_at_files(make_channels, config.notifications)
    await check_parts(parts)


def _unusable(directory: Path) -> str:
    """Return why a directory can be neither used nor created; empty if it can."""
    for path in (directory, *directory.parents):
        if path.is_dir():
            try:
                # Permissions are not enough: some file systems accept no files.
                with tempfile.TemporaryDirectory(dir=path, prefix=".ocps-check-"):
                    return ""
            except OSError as error:
                return f"{path} cannot be written to: {error.strerror}"
        if path.exists() or path.is_symlink():
            return f"{path} is not a directory"
    return ""


async def check_file(path: Path, sal_index: int) -> str:
    """Check a configuration file, for ``ocps check --config``.

    Parameters
    ----------
    path : `pathlib.Path`
        The file.
    sal_index : `int`
        Which instance of it.

    Returns
    -------
    reason : `str`
        Why it cannot be used; empty if it can.
    """
    try:
        await check_instance(read_instance(path, sal_index), logging.getLogger("ocps"))
    except (JobError, ConfigError) as error:
        return " ".join(str(error).split())
    return ""


def read_instance(path: Path, sal_index: int) -> InstanceConfig:
    """Return the configuration of one instance from a file.

    Raises
    ------
    ConfigError
        If the file cannot be read, or is not valid.
    """
    document = read_yaml(path)
    if not isinstance(document, dict):
        raise ConfigError(f"{path}: expected a mapping with the key instances")
    return load_instance(document, sal_index)
