# This file is part of dm_OCPS.
#
# Developed for the Vera C. Rubin Observatory.
# License: GPL-3.0-or-later; see COPYRIGHT and LICENSE at the top of the repository.
"""The CSC: SAL in, SAL out."""

from __future__ import annotations

__all__ = ["OcpsCsc", "main"]

import argparse
import asyncio
import contextlib
import dataclasses
import json
import os
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import yaml
from lsst.ts import salobj

from . import __version__, salobj_compat
from .backends.rapid_analysis import RapidAnalysis
from .config import ConfigError, InstanceConfig, SalIndex, load_instance, validate
from .config_schema import CONFIG_SCHEMA
from .factory import check_config, end_jobs, make_manager, make_simulation, use_config
from .http.server import HttpServer, start_server
from .jobs.definitions import PIPETASK
from .jobs.errors import JobError, RequestError
from .jobs.manager import JobManager
from .jobs.model import ExecutionPhase, Job, JobRequest, now
from .jobs.parameters import parse_words
from .publisher import ORIGIN, Publisher
from .sal_result import exit_code

ACK_PAUSE = 0.25
"""Least time (s) between a final acknowledgement and the one before it.

A remote of salobj 6 forgets a command at its final acknowledgement; a script
that asks for the next one a moment later would get an error.
"""

ACK_TIMEOUT = 600.0
"""For how long (s) an acknowledgement in progress holds."""

ACK_INTERVAL = 240.0
"""How often (s) it is renewed; a remote's queue holds four only."""

WATCH_INTERVAL = 10.0
"""How often (s), at least, to ask a backend whether it is there, if that matters."""

CLOSE_TIMEOUT = 3.0
"""How long (s) open commands may take to be answered when OCPS ends."""

DEFINITION_PREFIX = "job:"
"""What ``pipeline`` begins with where it names a job definition."""


class OcpsCsc(salobj.ConfigurableCsc):  # type: ignore[misc]
    """The OCS-Controlled Pipeline System as a Commandable SAL Component.

    Parameters
    ----------
    index : `int`
        SAL index, see `SalIndex`.
    config_dir : `str` or `None`
        Directory of configuration files; `None` for the one that
        ``DM_CONFIG_OCPS_DIR`` names.
    initial_state : `lsst.ts.salobj.State`
        State to go to at the start.
    settings_to_apply : `str`
        Configuration to use if that is DISABLED or ENABLED.
    simulation_mode : `int`
        1 to simulate.
    simulation_duration : `float` or `None`
        How long a simulated job lasts (s); `None` for the configured time.
    """

    valid_simulation_modes = (0, 1)
    version = __version__
    enable_cmdline_state = True

    def __init__(
        self,
        index: int,
        config_dir: str | None = None,
        initial_state: Any = salobj.State.STANDBY,
        settings_to_apply: str = "",
        simulation_mode: int = 0,
        simulation_duration: float | None = None,
    ) -> None:
        self.manager: JobManager | None = None
        self.config: InstanceConfig | None = None
        self.publisher: Publisher | None = None
        self.rapid_analysis: RapidAnalysis | None = None
        self.http_server: HttpServer | None = None
        self._simulation_duration = simulation_duration
        self._closing = asyncio.Event()
        self._watch: asyncio.Task[None] | None = None
        self._open_commands: set[asyncio.Task[Any]] = set()
        super().__init__(
            "OCPS",
            index=index,
            config_schema=CONFIG_SCHEMA,
            config_dir=config_dir,
            initial_state=initial_state,
            simulation_mode=simulation_mode,
            **salobj_compat.csc_arguments(settings_to_apply),
        )
        self.config_validator = _Validator()
        self.cmd_execute.allow_multiple_callbacks = True
        self.cmd_abort_job.allow_multiple_callbacks = True

    @staticmethod
    def get_config_pkg() -> str:
        """Return the name of the configuration package."""
        return "dm_config_ocps"

    def _get_default_config_dir(self, name: str) -> Path:
        """Return where configuration files are; our own where none is set."""
        if not os.environ.get("DM_CONFIG_OCPS_DIR"):
            own = Path(__file__).resolve().parent / "config_package"
            return own / name / str(self.schema_version)
        return Path(super()._get_default_config_dir(name))

    def _get_settings_version(self) -> str:
        try:
            return str(super()._get_settings_version())
        except OSError:
            # There is no git here.
            return ""

    # States

    async def begin_start(self, data: Any) -> None:
        """Read the configuration; salobj then calls `configure`."""
        try:
            await super().begin_start(data)
        except salobj.ExpectedError:
            raise
        except yaml.YAMLError as error:
            words = f"not YAML: {' '.join(str(error).split())}"
            raise salobj.ExpectedError(f"{data.settingsToApply}: {words}") from None
        except (AttributeError, TypeError):
            # salobj takes for granted that the file holds a mapping.
            words = "at top level: expected a mapping with the key instances"
            raise salobj.ExpectedError(f"{data.settingsToApply}: {words}") from None
        except OSError as error:
            raise salobj.ExpectedError(f"The configuration cannot be read: {error}") from None

    async def configure(self, config: Any) -> None:
        """Take a configuration; jobs that run keep theirs.

        Raises
        ------
        lsst.ts.salobj.ExpectedError
            If it is wrong, or if jobs could not run with it.
        """
        document = vars(config)
        with _refusals():
            if self.salinfo.index == SalIndex.RA:
                self.rapid_analysis = RapidAnalysis()
            elif self.simulation_mode:
                await self._configure_simulation(document)
            else:
                await self._configure_engine(load_instance(document, self.salinfo.index))

    async def _configure_simulation(self, document: dict[str, Any]) -> None:
        duration = self._simulation_duration
        if duration is None:
            with contextlib.suppress(ConfigError):
                duration = load_instance(document, self.salinfo.index).simulation_duration
        if self.manager is None:
            self._start_engine(await make_simulation(10.0 if duration is None else duration, self.log))

    async def _configure_engine(self, config: InstanceConfig) -> None:
        await check_config(config, self.log)
        if self.manager and self.manager.workspaces.work_dir != config.directory():
            if live := self.manager.live():
                raise ConfigError(
                    f"work_dir: {len(live)} jobs have not ended in {self.manager.workspaces.work_dir}; "
                    "abort them or let them end first"
                )
            await self._stop_engine()
        if self.manager is None:
            self._start_engine(await make_manager(config, self.log))
        else:
            await use_config(self.manager, config, self.log)
        await self._serve(config)
        self.config = config

    async def _serve(self, config: InstanceConfig) -> None:
        """Serve the engine over HTTP too, if that is configured."""
        if self.http_server and self.config and self.config.http == config.http:
            return
        await self._stop_serving()
        if config.http:
            assert self.manager is not None
            self.http_server = await start_server(self.manager, config.http, self.log)

    async def _stop_serving(self) -> None:
        if self.http_server:
            await self.http_server.close()
            self.http_server = None

    def _start_engine(self, manager: JobManager) -> None:
        self.manager = manager
        self.publisher = Publisher(manager, self._write_result, self.log)
        self.publisher.open()

    async def _stop_engine(self) -> None:
        await self._stop_serving()
        if self.publisher:
            await self.publisher.close()
        if self.manager:
            await self.manager.close()
        self.publisher = self.manager = None

    async def begin_enable(self, data: Any) -> None:
        """Check that jobs could run before the state changes."""
        await super().begin_enable(data)
        if self.manager:
            with _refusals():
                await self.manager.lane.backend.check()

    async def handle_summary_state(self) -> None:
        """Publish what has ended meanwhile, once ENABLED."""
        await super().handle_summary_state()
        if self._watch:
            self._watch.cancel()
        if self.summary_state == salobj.State.ENABLED and self.publisher:
            await self.publisher.activate()
            if self.manager and self.config and self.config.fault_after:
                self._watch = asyncio.create_task(self._watch_backend(self.manager, self.config.fault_after))

    async def _watch_backend(self, manager: JobManager, fault_after: float) -> None:
        """Go to FAULT when the backend has been unreachable for ``fault_after`` (s)."""
        backend = manager.lane.backend
        while True:
            await asyncio.sleep(min(WATCH_INTERVAL, fault_after / 4))
            # Without jobs nobody else asks whether it is there.
            with contextlib.suppress(JobError):
                await backend.check()
            since = backend.unreachable_since
            if since and (now() - since).total_seconds() > fault_after:
                words = f"the backend has been unreachable for longer than {fault_after:g} s"
                # Not from within this task, which a change of state ends.
                self._watch = None
                await salobj_compat.enter_fault(self, 1, words)
                return

    async def close_tasks(self) -> None:
        """Answer open commands, then let go of the engine."""
        if self.manager and self.config:
            await end_jobs(self.manager, self.config.on_exit)
        self._closing.set()
        if self._watch:
            self._watch.cancel()
        if self._open_commands:
            await asyncio.wait(self._open_commands, timeout=CLOSE_TIMEOUT)
        await self._stop_engine()
        await super().close_tasks()

    # Commands

    async def do_execute(self, data: Any) -> Any:
        """Run a pipeline; answered when its result has gone out."""
        async with self._answering() as paced:
            self.assert_enabled()
            if self.rapid_analysis:
                await self.rapid_analysis.push(data.config)
                return None
            assert self.manager is not None
            assert self.publisher is not None
            request = _request(data)
            job_id = self.manager.lane.definition(request.definition).new_id(request)
            published = self.publisher.hold(job_id)
            try:
                await self.manager.submit(dataclasses.replace(request, job_id=job_id, run_id=job_id))
                await salobj_compat.put(
                    self.evt_job_id,
                    event_name="cmd_execute",
                    seq_num=data.private_seqNum,
                    job_id=job_id,
                )
                await self._acknowledge(data, job_id)
                paced.acknowledged()
                self.publisher.release(job_id)
                job = await self._await_result(data, job_id, published, paced)
            finally:
                self.publisher.forget(job_id)
            return await self._final_ack(data, job)

    async def do_abort_job(self, data: Any) -> None:
        """Stop a job; answered when nothing of it runs any more."""
        async with self._answering():
            self.assert_enabled()
            job_id = data.job_id.strip()
            if not job_id or self.manager is None:
                raise salobj.ExpectedError(f"No such job: {job_id!r}")
            await self.manager.abort(job_id, "aborted by command abort_job")

    @contextlib.asynccontextmanager
    async def _answering(self) -> AsyncIterator[_Pace]:
        """Note an open command, put refusals into words, and pace its final answer."""
        task = asyncio.current_task()
        assert task is not None
        self._open_commands.add(task)
        pace = _Pace()
        try:
            with _refusals():
                yield pace
        finally:
            await pace.pause()
            self._open_commands.discard(task)

    async def _acknowledge(self, data: Any, job_id: str) -> None:
        """Send CMD_INPROGRESS with what is known of the job."""
        assert self.manager is not None
        answer: dict[str, Any] = {"job_id": job_id}
        job = next((job for job in self.manager.live() if job.id == job_id), None)
        if job and job.progress.total:
            progress = job.progress
            answer |= {"done": progress.done, "failed": progress.failed, "total": progress.total}
        await salobj_compat.ack_in_progress(self.cmd_execute, data, ACK_TIMEOUT, json.dumps(answer))

    async def _await_result(self, data: Any, job_id: str, published: asyncio.Future[Job], pace: _Pace) -> Job:
        """Wait until the result has gone out, renewing the acknowledgement."""
        closing = asyncio.create_task(self._closing.wait())
        try:
            while True:
                waiting: set[asyncio.Future[Any]] = {published, closing}
                await asyncio.wait(waiting, timeout=ACK_INTERVAL, return_when=asyncio.FIRST_COMPLETED)
                if published.done():
                    return published.result()
                if closing.done():
                    raise salobj.ExpectedError(f"OCPS going offline; job {job_id} continues")
                await self._acknowledge(data, job_id)
                pace.acknowledged()
        finally:
            closing.cancel()

    async def _final_ack(self, data: Any, job: Job) -> Any:
        """Return the final acknowledgement for a job that has ended."""
        if fault := job.info.get("fault"):
            await salobj_compat.enter_fault(self, 2, str(fault))
            raise salobj.ExpectedError(f"Job {job.id}: {fault}")
        if job.final_phase == ExecutionPhase.ABORTED:
            return self.salinfo.make_ackcmd(
                private_seqNum=data.private_seqNum,
                ack=salobj.SalRetCode.CMD_ABORTED,
                error=1,
                result=f"Job {job.id} aborted: {job.message}",
                truncate_result=True,
            )
        return None

    async def _write_result(self, job: Job, text: str) -> None:
        await salobj_compat.put(self.evt_job_result, job_id=job.id, exit_code=exit_code(job), result=text)

    # Command line

    @classmethod
    def add_arguments(cls, parser: argparse.ArgumentParser) -> None:
        """Add our own argument to salobj's."""
        super().add_arguments(parser)
        parser.add_argument(
            "--simulation-duration",
            type=float,
            default=None,
            help="how long a simulated job lasts (s); default: as configured, or 10",
        )

    @classmethod
    def add_kwargs_from_args(cls, args: argparse.Namespace, kwargs: dict[str, Any]) -> None:
        """Pass our own argument on to the constructor."""
        super().add_kwargs_from_args(args, kwargs)
        kwargs["simulation_duration"] = args.simulation_duration


class _Validator:
    """Takes the place of salobj's validator, whose messages run over many lines."""

    def validate(self, document: Any) -> dict[str, Any]:
        if document:
            validate(document)
        return dict(document or {})


class _Pace:
    """Keeps a final acknowledgement away from the one before it."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        # salobj 6 has just sent CMD_ACK by itself.
        self._last = self._loop.time()

    def acknowledged(self) -> None:
        """Note that an acknowledgement has gone out."""
        self._last = self._loop.time()

    async def pause(self) -> None:
        """Wait until a final one may follow."""
        await asyncio.sleep(max(0.0, self._last + ACK_PAUSE - self._loop.time()))


@contextlib.contextmanager
def _refusals() -> Any:
    """Turn what the engine and the configuration refuse into a refused command."""
    try:
        yield
    except (JobError, ConfigError) as error:
        raise salobj.ExpectedError(" ".join(str(error).split())) from None


def _request(data: Any) -> JobRequest:
    """Return what an ``execute`` asks for."""
    pipeline = data.pipeline.strip()
    prerequisites = tuple(
        item for part in salobj_compat.field(data, "prereq_jobs").split(",") if (item := part.strip())
    )
    common: dict[str, Any] = {"origin": ORIGIN, "owner": ORIGIN, "prerequisites": prerequisites}
    parameters = {
        "pipeline": pipeline,
        "version": data.version.strip(),
        "config": data.config,
        "data_query": data.data_query,
        "output_dataset_types": salobj_compat.field(data, "output_dataset_types"),
    }
    if pipeline.startswith(DEFINITION_PREFIX):
        others = [name for name, value in parameters.items() if value and name not in ("pipeline", "config")]
        if others:
            raise RequestError(
                f"{', '.join(others)}: not used with {pipeline}; its parameters go into config"
            )
        return JobRequest(pipeline.removeprefix(DEFINITION_PREFIX), parse_words(data.config), **common)
    return JobRequest(PIPETASK, parameters, **common)


def _arguments_with_index(arguments: list[str]) -> list[str]:
    """Return the command line with the index that is meant where there is none."""
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument("index", nargs="?")
    parser.add_argument("--simulate", action="store_true")
    for name in ("--loglevel", "--state", "--configdir", "--settings", "--simulation-duration"):
        parser.add_argument(name)
    known, _ = parser.parse_known_args(arguments)
    return arguments if known.index else [str(int(SalIndex.LATISS)), *arguments]


async def _amain() -> None:
    csc = OcpsCsc.make_from_cmd_line(index=SalIndex)
    salobj_compat.handle_sigterm(csc)
    await csc.done_task


def main() -> None:
    """Run the CSC as the command line says."""
    sys.argv[1:] = _arguments_with_index(sys.argv[1:])
    try:
        asyncio.run(_amain())
    except (ValueError, RuntimeError, OSError) as error:
        sys.exit(f"{Path(sys.argv[0]).name}: {error}")
