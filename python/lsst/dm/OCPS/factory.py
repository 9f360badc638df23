# SPDX-License-Identifier: GPL-3.0-or-later
"""Configuration in, a ready `JobManager` out: the one place that knows all parts."""

from __future__ import annotations

__all__ = ["Parts", "check_config", "end_jobs", "make_manager", "make_simulation", "use_config"]

import asyncio
import importlib.metadata
import logging
import tempfile
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from weakref import WeakKeyDictionary

from .backends.local.backend import LocalBackend
from .backends.local.command import CommandPlanner
from .backends.local.pipetask import PipetaskPlanner
from .backends.local.planner import Planner
from .backends.local.zygote.pool import ZygotePool
from .backends.simulation import SimulationBackend, SimulationDefinition
from .backends.uws.backend import UwsBackend
from .backends.uws.definition import UwsDefinition
from .config import ConfigError, InstanceConfig
from .definitions.environments import Environments
from .definitions.files import load_definitions
from .definitions.pipetask import ButlerConfig, PipetaskDefinition
from .definitions.shell import ShellDefinition
from .jobs.backend import Backend
from .jobs.definition import COMMAND, PIPETASK, JobDefinition
from .jobs.errors import JobError
from .jobs.events import EventAddress, EventKey
from .jobs.lane import Limits
from .jobs.manager import JobManager
from .jobs.model import ExecutionPhase as Phase
from .jobs.model import Job
from .jobs.own_process import prepare_process
from .jobs.store import JobStore
from .jobs.workspace import Workspaces

BACKENDS = "lsst.dm.OCPS.backends"
"""Group of entry points through which a site adds a backend of its own; see `MakeParts`."""


@dataclass(frozen=True)
class Parts:
    """What one configuration makes: a backend, and what may be asked of it."""

    backend: Backend
    definitions: Mapping[str, JobDefinition]
    limits: Limits


_zygotes: WeakKeyDictionary[Workspaces, ZygotePool] = WeakKeyDictionary()
"""One set of preloaded processes for all configurations of an engine."""

MakeParts = Callable[[InstanceConfig, Workspaces, logging.Logger], Parts]
"""Makes a backend of a configuration; what an entry point in `BACKENDS` names."""


def make_parts(config: InstanceConfig, workspaces: Workspaces, log: logging.Logger) -> Parts:
    """Make what a configuration describes; nothing is started.

    Raises
    ------
    ConfigError
        If there is no backend of the configured name.
    """
    make: MakeParts | None = {"local": make_local, "uws": make_uws}.get(config.backend)
    if make is None:
        others = importlib.metadata.entry_points(group=BACKENDS)
        if config.backend not in others.names:
            known = ", ".join(sorted({"local", "uws", *others.names}))
            raise ConfigError(f"backend: there is no {config.backend!r}; there are: {known}")
        make = others[config.backend].load()
    return make(config, workspaces, log)


def make_local(config: InstanceConfig, workspaces: Workspaces, log: logging.Logger) -> Parts:
    """Make what runs jobs as processes on this machine."""
    data = ButlerConfig(config.butler, config.input_collection, config.output_glob, config.metrics_glob)
    environments = Environments(config.environments, config.limits.threads)
    definition = PipetaskDefinition(
        PIPETASK,
        data,
        environments,
        config.allowed_pipelines,
        config_directories=config.config_directories,
        work_dir=workspaces.work_dir,
        users=config.users_of_general(),
    )
    limits = config.limits.of_process()
    zygotes = _zygotes.setdefault(workspaces, ZygotePool(log))
    planners: dict[str, Planner] = {
        "pipetask": PipetaskPlanner(data, environments, limits, zygotes=zygotes),
        "command": CommandPlanner(environments, limits, _events(config, workspaces)),
    }
    backend = LocalBackend(workspaces, planners, log, zygotes)
    definitions = load_definitions(config.definitions, definition)
    if config.commands:
        definitions[COMMAND] = ShellDefinition(config.commands, config.users_of_general())
    return Parts(backend, definitions, make_limits(config, max_workers=2))


def _events(config: InstanceConfig, workspaces: Workspaces) -> EventAddress | None:
    """Return where jobs may report their progress, if HTTP is served."""
    http = config.http.overridden() if config.http else None
    if http is None or not http.public_url() or not workspaces.work_dir.is_dir():
        return None
    return EventAddress(http.public_url() + http.base_path, EventKey.of(workspaces.work_dir))


def make_uws(config: InstanceConfig, workspaces: Workspaces, log: logging.Logger) -> Parts:
    """Make what forwards jobs to a UWS server."""
    data = ButlerConfig(config.butler, config.input_collection, config.output_glob, config.metrics_glob)
    definition = UwsDefinition(
        PIPETASK,
        data,
        config.allowed_pipelines,
        config.uws,
        config_directories=config.config_directories,
        users=config.users_of_general(),
    )
    backend = UwsBackend(config.url, config.poll_interval, config.uws, log)
    definitions = load_definitions(config.definitions, definition)
    # The server has a queue of its own.
    return Parts(backend, definitions, make_limits(config, max_workers=1000))


def make_limits(config: InstanceConfig, max_workers: int) -> Limits:
    """Return the engine's limits; ``max_workers`` is used where none is configured."""
    return Limits(
        max_workers=config.max_workers or max_workers,
        max_queued=config.max_queued,
        mode=config.mode,
        newest_first=config.newest_first,
        prerequisite_policy=config.prerequisite_policy,
        execution_duration=config.execution_duration,
        max_execution_duration=config.max_execution_duration,
        retention=config.retention,
        max_retention=config.max_retention,
        keep_jobs=config.keep_jobs,
        abort_grace=config.abort_grace,
        unknown_grace=config.unknown_grace,
    )


async def check_config(config: InstanceConfig, log: logging.Logger) -> None:
    """Try whether jobs could run with a configuration.

    Raises
    ------
    BackendError
        If they could not, with the reason.
    """
    await make_parts(config, Workspaces(config.directory()), log).backend.check()


async def make_manager(config: InstanceConfig, log: logging.Logger) -> JobManager:
    """Open the engine that a configuration describes.

    Jobs that were given to the backends of former configurations are taken
    up by such backends.

    Raises
    ------
    StoreError
        If the work directory or the store cannot be used.
    """
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
        if not config.database:
            # For this user alone: it has the configuration, with the variables of jobs.
            file.touch(0o600)
        store = await JobStore.open(url)
    except BaseException:
        workspaces.close()
        raise
    manager = JobManager(store, workspaces, log)
    try:
        await manager.open()
        for key in {job.backend for job in manager.live()} - {config.key()}:
            await _use_former(manager, key, log)
        await use_config(manager, config, log)
    except BaseException:
        await manager.close()
        raise
    return manager


async def _use_former(manager: JobManager, key: str, log: logging.Logger) -> None:
    """Take up the jobs of a former configuration; end them if that cannot be had any more."""
    try:
        former = await manager.store.recall(f"backend {key}")
        if former is None:
            raise ConfigError("its configuration is not known")
        await _use(manager, InstanceConfig.model_validate_json(former), log)
    except (JobError, ConfigError, ValueError, ImportError, OSError) as error:
        reason = " ".join(str(error).split())
        log.error(f"The backend {key} of a former configuration cannot be used: {reason}")
        await manager.give_up(key, f"its backend cannot be used any more: {reason}")


async def use_config(manager: JobManager, config: InstanceConfig, log: logging.Logger) -> None:
    """Let new jobs run with this configuration; those there are keep theirs."""
    await manager.store.remember(f"backend {config.key()}", config.model_dump_json(exclude={"database"}))
    await _use(manager, config, log)


async def _use(manager: JobManager, config: InstanceConfig, log: logging.Logger) -> None:
    parts = make_parts(config, manager.workspaces, log)
    await manager.use(config.key(), parts.backend, parts.definitions, parts.limits)


async def end_jobs(manager: JobManager, on_exit: str) -> None:
    """Do with running jobs what the configuration says for the end of OCPS."""
    if on_exit == "abort":
        aborts = (manager.abort(job.id, "OCPS ends") for job in manager.live() if job.phase != Phase.PENDING)
        await asyncio.gather(*aborts, return_exceptions=True)
    elif on_exit == "wait":
        ends = (manager.wait_end(job_id) for job_id in _ending_by_themselves(manager.live()))
        await asyncio.gather(*ends, return_exceptions=True)


def _ending_by_themselves(live: Iterable[Job]) -> set[str]:
    """Return the jobs that need nobody to come to their end."""
    found = {job.id: job for job in live if job.phase not in (Phase.PENDING, Phase.HELD)}
    everyone = {job.id for job in live}
    while True:
        stuck = {
            job.id
            for job in found.values()
            if not job.dispatched and any(other in everyone - found.keys() for other in job.prerequisites)
        }
        if not stuck:
            return set(found)
        found = {job_id: job for job_id, job in found.items() if job_id not in stuck}


async def make_simulation(config: InstanceConfig, duration: float | None, log: logging.Logger) -> JobManager:
    """Open an engine that simulates: nothing is kept, no Butler, no processes.

    Parameters
    ----------
    config : `InstanceConfig`
        Only its limits and ``simulation_duration`` count.
    duration : `float` or `None`
        How long each job lasts (s); `None` for what is configured.
    log : `logging.Logger`
        Gets one line per change of phase.
    """
    workspaces = Workspaces(Path(tempfile.gettempdir()) / "ocps-simulation-has-no-files")
    manager = JobManager(await JobStore.open(), workspaces, log)
    await manager.open()
    definitions = {PIPETASK: SimulationDefinition(PIPETASK)}
    backend = SimulationBackend(config.simulation_duration if duration is None else duration)
    # Simulated jobs cost nothing, so that all may run at once.
    await manager.use("simulation", backend, definitions, make_limits(config, max_workers=100_000))
    return manager
