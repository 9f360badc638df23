# SPDX-License-Identifier: GPL-3.0-or-later
"""The CSC: passes SAL commands to the engine, and publishes the results of jobs."""

from __future__ import annotations

__all__ = ["OcpsCsc"]

import argparse
import asyncio
import contextlib
import dataclasses
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import yaml
from lsst.ts import salobj, utils

from .. import __version__, audit
from ..config import InstanceConfig, SalIndex, load_instance
from ..config_schema import CONFIG_SCHEMA
from ..host import Host
from ..jobs.errors import JobError
from ..jobs.manager import JobManager
from ..jobs.model import ExecutionPhase, Job, now
from ..logs import log_to_stderr
from ..measures import Measure
from . import arguments
from . import compat as salobj_compat
from .answers import ConfigValidator, OpenCommand, acknowledged_work, offline, refusals
from .dry_run import dry_run_text
from .executions import Execution, Executions
from .publisher import Publisher
from .rapid_analysis import RapidAnalysis
from .reading import ReadingGuard
from .request import ORIGIN, execute_request, wants_dry_run
from .result import exit_code

WATCH_INTERVAL = 10.0
"""How often (s), at least, to check whether the backend can be reached, if ``fault_after`` is set."""

CLOSE_TIMEOUT = 3.0
"""How long (s) open commands may take to be answered when OCPS ends."""


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
    override : `str`
        What salobj 8 calls ``settings_to_apply``.
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
        override: str = "",
    ) -> None:
        self.rapid_analysis: RapidAnalysis | None = None
        self._publisher: Publisher | None = None
        self._simulation_duration = simulation_duration
        self._ending = False
        self._closing = False
        self._watch: asyncio.Task[None] | None = None
        self._open_commands: set[asyncio.Task[Any]] = set()
        super().__init__(
            "OCPS",
            index=index,
            config_schema=CONFIG_SCHEMA,
            config_dir=config_dir,
            initial_state=initial_state,
            simulation_mode=simulation_mode,
            **salobj_compat.csc_arguments(settings_to_apply or override),
        )
        self.executions = Executions(self, self._final_ack)
        self.host = Host(self.log, self._follow_engine, self._measure, self._about)
        self.config_validator = ConfigValidator()
        salobj_compat.make_acks_atomic(self)
        self.reading = ReadingGuard(self)
        self.cmd_execute.allow_multiple_callbacks = True
        self.cmd_abort_job.allow_multiple_callbacks = True

    @property
    def publisher(self) -> Publisher:
        """The publisher of the present engine's results."""
        assert self._publisher is not None
        return self._publisher

    def _follow_engine(self, manager: JobManager) -> Publisher:
        self._publisher = Publisher(manager, self._write_result, self.executions, self.log)
        self._publisher.open()
        return self._publisher

    def _measure(self) -> Iterator[Measure]:
        """Return figures of SAL for ``/metrics``."""
        sent = self.evt_heartbeat.data.private_sndStamp if self.evt_heartbeat.has_data else 0.0
        age = max(0.0, utils.current_tai() - sent) if sent else 0.0
        yield Measure("ocps_sal_heartbeat_age_seconds", "How long ago the last heartbeat was sent.", age)
        state = float(self.summary_state)
        yield Measure("ocps_sal_summary_state", "The summary state, by its number in SAL.", state)
        waiting = len(self.executions)
        yield Measure("ocps_sal_open_commands", "Commands execute that wait for the end of a job.", waiting)
        words = "Samples on the bus that could not be used."
        yield Measure("ocps_sal_dropped_samples", words, self.reading.dropped, total=True)

    def _about(self) -> dict[str, Any]:
        """Return state, index, versions and configuration, for the dashboard."""
        wanted = {
            "softwareVersions": ("cscVersion", "salVersion", "xmlVersion"),
            "configurationApplied": ("configurations", "version", "url"),
        }
        found: dict[str, dict[str, str]] = {}
        for name, fields in wanted.items():
            # Not every version of the interface has both events.
            event = getattr(self, f"evt_{name}", None)
            values = {field: getattr(event.data, field, "") for field in fields} if event else {}
            found[name] = {field: str(value) for field, value in values.items() if value}
        return {
            "name": self.salinfo.name,
            "index": self.salinfo.index,
            "state": self.summary_state.name,
            "versions": found["softwareVersions"],
            "configuration": found["configurationApplied"],
        }

    @staticmethod
    def get_config_pkg() -> str:
        """Return the name of the configuration package."""
        return "dm_config_ocps"

    def _get_default_config_dir(self, name: str) -> Path:
        """Return the directory of configuration files; the package's own if none is set."""
        package = os.environ.get("DM_CONFIG_OCPS_DIR")
        if not package:
            return Path(__file__).resolve().parents[1] / "config_package" / name / str(self.schema_version)
        # Files of the former schema version are still valid.
        former = Path(package) / name / "v3"
        if former.is_dir() and not former.with_name(str(self.schema_version)).is_dir():
            return former
        return Path(super()._get_default_config_dir(name))

    def _get_settings_version(self) -> str:
        return self._git_version(super()._get_settings_version)

    def _get_configs_version(self) -> str:
        # The same in salobj 8.
        return self._git_version(super()._get_configs_version)

    def _git_version(self, ask: Callable[[], Any]) -> str:
        """Return the version of the configuration directory; empty if it is not in a git repository."""
        if not any((folder / ".git").exists() for folder in (self.config_dir, *self.config_dir.parents)):
            # salobj would log a warning.
            return ""
        try:
            return str(ask())
        except OSError:
            # There is no git program.
            return ""

    @property
    def config(self) -> InstanceConfig | None:
        """Configuration in use; `None` before ``start``, in simulation and at index 101."""
        config: InstanceConfig | None = self.host.config
        return config

    # States

    async def begin_start(self, data: Any) -> None:
        """Read the configuration; salobj then calls `configure`."""
        try:
            await acknowledged_work(self.cmd_start, data, super().begin_start(data))
        except salobj.ExpectedError:
            raise
        except (yaml.YAMLError, ValueError, RecursionError) as error:
            words = f"not YAML: {' '.join(str(error).split())}"
            raise salobj.ExpectedError(f"{salobj_compat.settings_of(data)}: {words}") from None
        except (AttributeError, TypeError):
            # salobj assumes that the file contains a mapping.
            words = "at top level: expected a mapping with the key instances"
            raise salobj.ExpectedError(f"{salobj_compat.settings_of(data)}: {words}") from None
        except OSError as error:
            raise salobj.ExpectedError(f"The configuration cannot be read: {error}") from None

    async def configure(self, config: Any) -> None:
        """Use a configuration for new jobs; running jobs keep theirs.

        Raises
        ------
        lsst.ts.salobj.ExpectedError
            If the configuration is wrong, or if jobs could not run with it.
        """
        document = vars(config)
        with refusals():
            if self.salinfo.index == SalIndex.RA:
                self.rapid_analysis = RapidAnalysis()
                await self.rapid_analysis.check()
            elif self.simulation_mode:
                await self.host.simulate(document, self.salinfo.index, self._simulation_duration)
            else:
                await self.host.configure(load_instance(document, self.salinfo.index))

    async def begin_enable(self, data: Any) -> None:
        """Check that jobs could run, before the state changes."""
        await super().begin_enable(data)
        if self.host.is_open:
            with refusals():
                await acknowledged_work(self.cmd_enable, data, self.host.check())

    async def handle_summary_state(self) -> None:
        """When ENABLED, publish results, including those of jobs that ended before."""
        await super().handle_summary_state()
        if self._watch:
            self._watch.cancel()
        if self.summary_state == salobj.State.ENABLED and self.host.is_open:
            self.publisher.activate()
            if self.host.config and self.host.config.fault_after and self.host.config.url:
                self._watch = asyncio.create_task(self._watch_backend(self.host.config.fault_after))

    async def _watch_backend(self, fault_after: float) -> None:
        """Go to FAULT when the backend has been unreachable for ``fault_after`` (s)."""
        backend = self.host.manager.lane.backend
        while True:
            await asyncio.sleep(min(WATCH_INTERVAL, fault_after / 4))
            # Without jobs, nothing else checks whether the backend can be reached.
            with contextlib.suppress(JobError):
                await backend.check()
            since = backend.unreachable_since
            if since and (now() - since).total_seconds() > fault_after:
                words = f"the backend has been unreachable for longer than {fault_after:g} s"
                # The change of state cancels self._watch, which must not be this task.
                self._watch = None
                await salobj_compat.enter_fault(self, 1, words)
                return

    async def close_tasks(self) -> None:
        """Answer open commands, then close the engine."""
        self._ending = True
        await self.host.end_jobs()
        self._closing = True
        if self._watch:
            self._watch.cancel()
        if self._open_commands:
            await asyncio.wait(self._open_commands, timeout=CLOSE_TIMEOUT)
        await self.executions.fail_all(self._offline)
        await self.host.close()
        self.reading.close()
        await self._publish_offline()
        await super().close_tasks()

    def _offline(self, job_id: str) -> str:
        return offline(job_id, simulated=bool(self.simulation_mode))

    async def _publish_offline(self) -> None:
        """Publish the state OFFLINE, unless ``exitControl`` has done so."""
        if self.summary_state != salobj.State.OFFLINE:
            self._summary_state = salobj.State.OFFLINE
            await salobj_compat.put(self.evt_summaryState, summaryState=salobj.State.OFFLINE)

    # Commands

    async def do_execute(self, data: Any) -> Any:
        """Run a pipeline; return once its job is accepted.

        Returns
        -------
        ackcmd : ``AckCmdType`` or `None`
            An acknowledgement in progress. The final one is sent when the
            job's result has been published, see `Executions`.
        """
        async with OpenCommand(self._open_commands) as command:
            self.assert_enabled()
            if self._ending:
                raise salobj.ExpectedError("OCPS is going offline and takes no more jobs")
            if wants_dry_run(data):
                return await self._dry_run(data, command)
            if self.rapid_analysis:
                await self.rapid_analysis.push(data.config)
                return None
            manager, publisher = self.host.manager, self.publisher
            with self._recording("execute", data, pipeline=data.pipeline) as entry:
                request = execute_request(data)
                job_id = manager.lane.definition(request.definition).new_id(request)
                entry["job_id"] = job_id
                publisher.hold(job_id)
                # The task of a command ends when salobj has sent what it returned.
                command.task.add_done_callback(lambda _: self._release(publisher, job_id))
                await manager.submit(dataclasses.replace(request, job_id=job_id, run_id=job_id))
            await salobj_compat.put(
                self.evt_job_id,
                event_name="cmd_execute",
                seq_num=data.private_seqNum,
                job_id=job_id,
            )
            if self._closing:
                raise salobj.ExpectedError(self._offline(job_id))
            command.in_progress()
            return await self.executions.begin(manager, job_id, data)

    def _release(self, publisher: Publisher, job_id: str) -> None:
        """Let a job's result be published, because its command has been acknowledged or refused."""
        self.executions.acknowledged(job_id)
        publisher.release(job_id)

    async def _dry_run(self, data: Any, command: OpenCommand) -> Any:
        """Return the final acknowledgement of an ``execute`` that is not to run anything."""
        if self.rapid_analysis:
            raise salobj.ExpectedError("Index 101 has no jobs, so there is no dry run of one")
        with self._recording("dry run", data, pipeline=data.pipeline):
            work = self.host.manager.dry_run(execute_request(data))
            found = await acknowledged_work(self.cmd_execute, data, work)
        command.acknowledged()
        complete = salobj.SalRetCode.CMD_COMPLETE
        return salobj_compat.make_ackcmd(self, data, complete, 0, dry_run_text(found))

    async def do_abort_job(self, data: Any) -> None:
        """Abort a job; the command is completed when none of its processes runs any more."""
        async with OpenCommand(self._open_commands):
            self.assert_enabled()
            job_id = data.job_id.strip()
            if not job_id or self.rapid_analysis:
                raise salobj.ExpectedError(f"No such job: {job_id!r}")
            with self._recording("abort_job", data) as entry:
                entry["job_id"] = job_id
                await self.host.manager.abort(job_id, "aborted by command abort_job")

    @contextlib.contextmanager
    def _recording(self, action: str, data: Any, **more: str) -> Iterator[dict[str, str]]:
        """Write a command into the audit log, with its outcome and the entries of the dictionary."""
        entry = {"action": action, "outcome": "ok", **more}
        try:
            yield entry
        except Exception as error:
            entry["outcome"] = f"refused: {error}"
            raise
        finally:
            audit.record(
                self.host.manager.workspaces.work_dir,
                origin=ORIGIN,
                owner=ORIGIN,
                # The sender's own claim, which SAL does not verify.
                address=str(getattr(data, "private_identity", "")),
                refused=entry["outcome"] != "ok",
                **entry,  # type: ignore[arg-type]
            )

    async def _final_ack(self, execution: Execution, job: Job) -> Any:
        """Return the final acknowledgement of an ``execute`` whose job has ended.

        Raises
        ------
        lsst.ts.salobj.ExpectedError
            If a fault was simulated.
        """
        if fault := job.info.get("fault"):
            await salobj_compat.enter_fault(self, 2, str(fault))
            raise salobj.ExpectedError(f"Job {job.id}: {fault}")
        if job.final_phase == ExecutionPhase.ABORTED:
            words = f"Job {job.id} aborted: {job.message}"
            return salobj_compat.make_ackcmd(self, execution, salobj.SalRetCode.CMD_ABORTED, 1, words)
        return salobj_compat.make_ackcmd(self, execution, salobj.SalRetCode.CMD_COMPLETE, 0, "Done")

    async def _write_result(self, job: Job, text: str) -> None:
        await salobj_compat.put(self.evt_job_result, job_id=job.id, exit_code=exit_code(job), result=text)

    # Command line

    @classmethod
    def add_arguments(cls, parser: argparse.ArgumentParser) -> None:
        """Add our own arguments to salobj's."""
        super().add_arguments(parser)
        arguments.add(parser)

    @classmethod
    def add_kwargs_from_args(cls, args: argparse.Namespace, kwargs: dict[str, Any]) -> None:
        """Pass our own argument to the constructor, and log to standard error."""
        super().add_kwargs_from_args(args, kwargs)
        kwargs["simulation_duration"] = args.simulation_duration
        log_to_stderr(as_json=args.log_json, expected=(salobj.ExpectedError,))
