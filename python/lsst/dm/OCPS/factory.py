# SPDX-License-Identifier: GPL-3.0-or-later
"""Create an engine with its backends from a configuration."""

from __future__ import annotations

__all__ = ["check_config", "check_parts", "make_manager", "make_parts", "make_simulation", "use_config"]

import functools
import importlib.metadata
import logging
import tempfile
from pathlib import Path
from typing import Any

from .backend_api import BACKENDS, BackendContext, ConfigError, InstanceConfig, MakeParts, Parts
from .http.job_tokens import JobTokens, job_variables
from .jobs.errors import JobError
from .jobs.manager import JobManager
from .jobs.own_process import prepare_process
from .jobs.store import JobStore
from .jobs.workspace import Workspaces

Shared = dict[type, Any]
"""Objects that all backends of a process share; see `BackendContext.share`."""


def make_parts(
    config: InstanceConfig, workspaces: Workspaces, log: logging.Logger, shared: Shared | None = None
) -> Parts:
    """Create the backend of a configuration, with its definitions and limits; nothing is started.

    Raises
    ------
    ConfigError
        If there is no backend of the configured name, or the configuration
        cannot be used.
    """
    found = importlib.metadata.entry_points(group=BACKENDS)
    if config.backend not in found.names:
        known = ", ".join(sorted(found.names)) or "none (OCPS is not installed; pip install it)"
        raise ConfigError(f"backend: there is no {config.backend!r}; there are: {known}")
    try:
        make: MakeParts = found[config.backend].load()
    except (ImportError, AttributeError) as error:
        raise ConfigError(f"backend: {config.backend!r} cannot be loaded: {error}") from None
    variables = functools.partial(job_variables, config.http, workspaces.work_dir)
    parts = make(config, BackendContext(workspaces, log, variables, {} if shared is None else shared))
    again = sorted(name for name, definition in parts.definitions.items() if definition.retries)
    if again and not parts.backend.runs_again:
        raise ConfigError(
            f"retries of {', '.join(again)}: the backend {config.backend} does not run a job a second time, "
            "because the first may still run where this cannot be seen; leave them out"
        )
    return parts


async def check_config(config: InstanceConfig, log: logging.Logger, shared: Shared | None = None) -> None:
    """Check whether jobs could run with a configuration.

    Parameters
    ----------
    config : `InstanceConfig`
        The configuration.
    log : `logging.Logger`
        Gets warnings.
    shared : `dict`, optional
        Objects that the backends of this process share; a preloaded process
        among them makes the check fast.

    Raises
    ------
    ConfigError, JobError
        If jobs could not run, with the reason.
    """
    await check_parts(make_parts(config, Workspaces(config.directory()), log, shared))


async def check_parts(parts: Parts) -> None:
    """Check whether the definitions and the backend of a configuration could work.

    Raises
    ------
    JobError
        If one of them could not, with the reason.
    """
    for definition in parts.definitions.values():
        await definition.check_ready()
    await parts.backend.check()


async def make_manager(
    config: InstanceConfig, log: logging.Logger, shared: Shared | None = None
) -> JobManager:
    """Create and open an engine for a configuration.

    Live jobs of former configurations continue on the backends of those.

    Parameters
    ----------
    config : `InstanceConfig`
        The configuration.
    log : `logging.Logger`
        Gets one line per change of phase.
    shared : `dict`, optional
        Objects that the backends of this process share.

    Raises
    ------
    StoreError
        If the work directory or the store cannot be used.
    ConfigError
        If the configuration cannot be used.
    """
    shared = {} if shared is None else shared
    prepare_process()
    workspaces = Workspaces(
        config.directory(),
        durable=config.durable,
        min_free_space=config.min_free_space,
        min_free_files=config.min_free_files,
    )
    workspaces.open()
    file = workspaces.work_dir / "jobs.sqlite3"
    url = config.database or f"sqlite+aiosqlite:///{file}"
    try:
        # Created here, so that no two threads create it at the same time.
        JobTokens.of(workspaces.work_dir)
        # An empty store is right at the first start, but not if there are files of jobs.
        may_be_empty = bool(config.database) or not any((workspaces.work_dir / "jobs").iterdir())
        store = await JobStore.open(url, may_be_empty=may_be_empty, log=log)
    except BaseException:
        workspaces.close()
        raise
    manager = JobManager(store, workspaces, log)
    try:
        await manager.open()
        for key in {job.backend for job in manager.live()} - {config.key()}:
            await _use_former(manager, key, log, shared)
        await use_config(manager, config, log, shared)
        await manager.scheduler.warn_of_unconfirmed()
    except BaseException:
        await manager.close()
        raise
    return manager


async def _use_former(manager: JobManager, key: str, log: logging.Logger, shared: Shared) -> None:
    """Continue the jobs of a former configuration; fail them if its backend no longer exists."""
    try:
        former = await manager.store.recall(f"backend {key}")
        if former is None:
            raise ConfigError("its configuration is not known")
        # A setting that no longer exists must not keep its jobs from being resumed.
        config = InstanceConfig.model_validate_json(former, extra="ignore")
        await manager.use(key, make_parts(config, manager.workspaces, log, shared))
    except (JobError, ConfigError, ValueError, ImportError, OSError) as error:
        reason = " ".join(str(error).split())
        log.error(f"The backend {key} of a former configuration cannot be used: {reason}")
        await manager.fail_jobs(key, f"its backend cannot be used any more: {reason}")


async def use_config(
    manager: JobManager, config: InstanceConfig, log: logging.Logger, shared: Shared | None = None
) -> None:
    """Run new jobs with this configuration; existing jobs keep theirs.

    Parameters
    ----------
    manager : `JobManager`
        The engine, open.
    config : `InstanceConfig`
        The configuration, which has been checked.
    log : `logging.Logger`
        Gets warnings.
    shared : `dict`, optional
        Objects that the backends of this process share.
    """
    parts = make_parts(config, manager.workspaces, log, shared)
    # Not what may be secret: a database's password, the URL of a webhook.
    document = config.model_dump_json(exclude={"database", "notifications"})
    await manager.store.remember(f"backend {config.key()}", document)
    await manager.use(config.key(), parts)


async def make_simulation(config: InstanceConfig, duration: float | None, log: logging.Logger) -> JobManager:
    """Open an engine that simulates jobs: without Butler, processes and files, in memory alone.

    Parameters
    ----------
    config : `InstanceConfig`
        Only its limits and ``simulation_duration`` count.
    duration : `float` or `None`
        How long each job lasts (s); `None` for what is configured.
    log : `logging.Logger`
        Gets one line per change of phase.
    """
    changes: dict[str, Any] = {"backend": "simulation"}
    if duration is not None:
        changes["simulation_duration"] = duration
    config = config.model_copy(update=changes)
    workspaces = Workspaces(Path(tempfile.gettempdir()) / "ocps-simulation-has-no-files")
    manager = JobManager(await JobStore.open(), workspaces, log)
    await manager.open()
    await manager.use("simulation", make_parts(config, workspaces, log))
    return manager
