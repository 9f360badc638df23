# SPDX-License-Identifier: GPL-3.0-or-later
"""The local pool: jobs as processes on this machine."""

from __future__ import annotations

__all__ = ["LocalBackend"]

import asyncio
import dataclasses
import logging
import os
import secrets
import sys
from collections.abc import Callable, Collection, Coroutine, Mapping
from typing import Any, TypeVar

from ...jobs import durable
from ...jobs.backend import Backend, BackendUpdate
from ...jobs.dry_run import DryRun
from ...jobs.errors import BackendError, JobError
from ...jobs.file_access import look_at_files
from ...jobs.model import ErrorSummary, ExecutionPhase, Job, Progress
from ...jobs.own_process import original_open_files
from ...jobs.workspace import Workspace, Workspaces
from . import processes, supervisor
from .dry_run import DryRuns
from .handle import Claim, Status, SupervisorHandle
from .planner import Planner, ProgressSource
from .zygote.pool import ZygotePool

LAUNCH_TIMEOUT = 60.0
"""How long (s) a supervisor may take to claim its job."""

PROGRESS_INTERVAL = 0.5
"""How often (s) the logs of running jobs are read."""

RETRY_INTERVAL = 1.0
"""How long (s) to wait before retrying an operation that failed for lack of resources."""

SUPERVISOR_VARIABLES = ("PATH", "LD_LIBRARY_PATH", "LANG", "LC_ALL")
"""Environment variables of OCPS that a supervisor gets; others may be secret."""

T = TypeVar("T")


class LocalBackend(Backend):
    """Runs each job under its own supervisor process.

    Parameters
    ----------
    workspaces : `~lsst.dm.OCPS.jobs.workspace.Workspaces`
        The directories of jobs.
    planners : `~collections.abc.Mapping` [`str`, `Planner`]
        The planners by kind of job.
    log : `logging.Logger`, optional
        Gets warnings.
    zygotes : `ZygotePool` or `None`
        Preloaded processes, from which jobs start faster; closed by `close`.
    """

    runs_again = True

    def __init__(
        self,
        workspaces: Workspaces,
        planners: Mapping[str, Planner],
        log: logging.Logger | None = None,
        zygotes: ZygotePool | None = None,
    ) -> None:
        self.workspaces = workspaces
        self.planners = planners
        self.kinds = frozenset(planners)
        self.log = log or logging.getLogger(__name__)
        self.zygotes = zygotes
        self._running: dict[str, SupervisorHandle] = {}
        self._waiting: dict[str, asyncio.Task[None]] = {}
        self._sources: dict[str, ProgressSource] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._dry_runs = DryRuns(workspaces, self._prepare_and_launch)

    async def open(self) -> None:
        self._spawn(self._follow_logs())
        for planner in self.planners.values():
            if self.zygotes and (preload := planner.preload(None)):
                self.zygotes.prepare(preload)

    async def close(self) -> None:
        self._dry_runs.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self.zygotes:
            await self.zygotes.close()

    async def check(self) -> None:
        for planner in self.planners.values():
            await planner.check()

    async def submit(self, job: Job) -> None:
        reason = await self._try_to_start(job)
        if reason:
            self._waiting[job.id] = self._spawn(self._start_later(job, reason))

    async def dry_run(self, job: Job) -> DryRun:
        return await self._dry_runs.carry_out(job, self._planner(job))

    async def cancel(self, job: Job) -> None:
        waiting = self._waiting.pop(job.id, None)
        if waiting:
            waiting.cancel()
            await asyncio.wait({waiting})
            await self._prevent(job)
        handle = self._running.get(job.id)
        if handle:
            handle.terminate()

    async def reattach(self, jobs: Collection[Job]) -> None:
        for job in jobs:
            workspace = self.workspaces.of(job.id, job.attempt)
            if Claim.parse(job.handle):
                await self._attach(job, workspace)
            elif await _retry(workspace.read_json, "supervisor.json") is None:
                # Its supervisor may have been started all the same. If so,
                # the second one finds the job claimed, and ends.
                if job.stopping:
                    await self._prevent(job)
                else:
                    await self._resubmit(job)
            else:
                await self._attach(job, workspace)

    async def _resubmit(self, job: Job) -> None:
        try:
            await self.submit(job)
        except JobError as error:
            self.report(job.id, BackendUpdate(phase=ExecutionPhase.ERROR, error=ErrorSummary(str(error))))

    async def _prevent(self, job: Job) -> None:
        """Prevent a job from being started; if it has been started, stop it."""
        workspace = self.workspaces.of(job.id, job.attempt)

        def claim() -> None:
            workspace.create()
            # A supervisor that is being started finds the job claimed.
            durable.write_json(workspace.engine / "supervisor.json", {}, once=True)

        try:
            await _retry(claim)
        except durable.AlreadyClaimedError:
            await self._attach(job, workspace)
            if handle := self._running.get(job.id):
                handle.terminate()
        else:
            self.report(job.id, BackendUpdate(phase=ExecutionPhase.ABORTED))

    async def _try_to_start(self, job: Job) -> str:
        """Start a job.

        Returns
        -------
        reason : `str`
            Why the job has to wait; empty if it was started.

        Raises
        ------
        BackendError
            If the job cannot be started.
        """
        workspace = self.workspaces.of(job.id, job.attempt)
        if reason := await look_at_files(self.workspaces.obstacle):
            return reason
        try:
            plan = await look_at_files(self._planner(job).plan, job, workspace)
            await self._prepare_and_launch(job, workspace, plan)
        except OSError as error:
            if error.errno in supervisor.SHORTAGES:
                return f"OCPS lacks resources: {os.strerror(error.errno or 0)}"
            raise BackendError(f"{error.filename or workspace.root}: {error.strerror}") from error
        await self._attach(job, workspace)
        return ""

    async def _start_later(self, job: Job, reason: str) -> None:
        """Retry to start a job until that succeeds or fails permanently."""
        self.log.warning(f"Job {job.id} waits: {reason}")
        try:
            while reason:
                self.report(job.id, BackendUpdate(message=f"waiting: {reason}"))
                await asyncio.sleep(RETRY_INTERVAL)
                reason = await self._try_to_start(job)
        except Exception as error:
            if not isinstance(error, JobError):
                self.log.exception(f"Job {job.id}: it could not be started")
            words = ErrorSummary(f"could not be started: {error}")
            self.report(job.id, BackendUpdate(phase=ExecutionPhase.ERROR, error=words))
        self._waiting.pop(job.id, None)

    async def _prepare_and_launch(self, job: Job, workspace: Workspace, plan: dict[str, Any]) -> None:
        """Write a job's plan and start its supervisor."""
        await asyncio.to_thread(_prepare, workspace, plan)
        await self._launch(job, workspace)

    async def _launch(self, job: Job, workspace: Workspace) -> None:
        """Start a job's supervisor: from a preloaded process, or as a new process."""
        preload = await look_at_files(self._planner(job).preload, job) if self.zygotes else None
        if self.zygotes and preload and await self.zygotes.launch(preload, workspace.engine):
            return
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-I",
            "-S",
            supervisor.__file__,
            str(workspace.engine),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.PIPE,
            env={name: os.environ[name] for name in SUPERVISOR_VARIABLES if name in os.environ},
        )
        try:
            _, answer = await asyncio.wait_for(process.communicate(), LAUNCH_TIMEOUT)
        except TimeoutError:
            process.kill()
            raise BackendError(f"its supervisor did not start within {LAUNCH_TIMEOUT:g} s") from None
        words = answer.decode(errors="replace").strip() or "its supervisor did not start"
        if process.returncode == supervisor.TRY_AGAIN:
            raise OSError(min(supervisor.SHORTAGES), words)
        if process.returncode != 0:
            raise BackendError(words)

    async def _attach(self, job: Job, workspace: Workspace) -> None:
        """Follow a job whose supervisor has claimed it."""
        # The stored claim takes precedence over the file, which the job might have changed.
        claim = Claim.parse(job.handle) or await _retry(Claim.read, workspace, "supervisor.json")
        handle = await _retry(SupervisorHandle.find, claim)
        self._sources[job.id] = self._planner(job).progress_source(workspace)
        if handle:
            self._running[job.id] = handle
        if claim:
            # Also if the job has ended already: it did run.
            seen = BackendUpdate(
                phase=ExecutionPhase.EXECUTING,
                message="",
                handle=claim.model_dump_json(),
                elapsed=handle.elapsed() if handle else None,
            )
            self.report(job.id, seen)
        self._spawn(self._await_end(job, workspace, claim, handle))

    async def _await_end(
        self, job: Job, workspace: Workspace, claim: Claim | None, handle: SupervisorHandle | None
    ) -> None:
        if handle:
            try:
                await handle.ended()
            finally:
                self._running.pop(job.id, None)
                handle.close()
        source = self._sources.pop(job.id)
        try:
            ending = await _retry(self._ending, job, workspace, claim, source)
        except Exception as error:
            # After any error the job must end.
            ending = self._unreadable(job, error)
        self.report(job.id, ending)

    def _ending(
        self, job: Job, workspace: Workspace, claim: Claim | None, source: ProgressSource
    ) -> BackendUpdate:
        """Read from the job's directories how it ended; runs in a thread.

        Raises
        ------
        OSError
            If resources are missing; the caller retries.
        """
        gone = True
        status = Status.read(workspace, "status.json")
        if status and not status.is_by(claim):
            self.log.warning(f"Job {job.id}: its status was not written by its supervisor, and is ignored")
            status = None
        if status is None:
            # A supervisor that ends by itself writes its status, so this one
            # was killed. Its child is killed with it, but not the processes
            # that the child has started.
            group, mark = _traces(workspace)
            known = claim.model_dump() if claim else None
            gone = processes.kill_job(known, group, mark)
            if not gone:
                self.log.error(f"Job {job.id}: not all of its processes could be killed")
        try:
            seen = status.model_dump() if status else None
            ending = self._planner(job).ending(job, workspace, seen)
            ending = dataclasses.replace(ending, progress=source.read(), outcome_lost=status is None)
        except OSError as error:
            if error.errno in supervisor.SHORTAGES:
                raise
            return self._unreadable(job, error)
        except Exception as error:
            return self._unreadable(job, error)
        if not gone and ending.error:
            # What still runs must not meet a second attempt.
            ending = dataclasses.replace(ending, error=dataclasses.replace(ending.error, transient=False))
        if status and status.failure:
            failed = ErrorSummary(status.failure, detail="\n".join(workspace.tail()))
            return dataclasses.replace(ending, phase=ExecutionPhase.ERROR, error=failed)
        return ending

    def _unreadable(self, job: Job, error: Exception) -> BackendUpdate:
        self.log.error(f"Job {job.id}: how it ended could not be read", exc_info=error)
        words = f"its results could not be read: {error}"
        return BackendUpdate(phase=ExecutionPhase.ERROR, error=ErrorSummary(words))

    async def _follow_logs(self) -> None:
        """Report the progress that running jobs write into their logs."""
        shown: dict[str, Progress] = {}
        while True:
            await asyncio.sleep(PROGRESS_INTERVAL)
            seen = await asyncio.to_thread(_read_all, dict(self._sources))
            for job_id, progress in seen.items():
                if progress != shown.get(job_id):
                    self.report(job_id, BackendUpdate(progress=progress))
            shown = seen

    def _planner(self, job: Job) -> Planner:
        if job.spec is None or job.spec.kind not in self.planners:
            raise BackendError("the local pool does not run jobs of this kind")
        return self.planners[job.spec.kind]

    def _spawn(self, coroutine: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task


async def _retry(act: Callable[..., T], *arguments: Any) -> T:
    """Call ``act`` in a thread and return its result; retry while resources are missing.

    A file that cannot be opened because no descriptor is free is not missing.
    """
    while True:
        try:
            return await asyncio.to_thread(act, *arguments)
        except OSError as error:
            if error.errno not in supervisor.SHORTAGES:
                raise
        await asyncio.sleep(RETRY_INTERVAL)


def _prepare(workspace: Workspace, plan: dict[str, Any]) -> None:
    """Create a job's directories and write its plan."""
    workspace.create()
    limits = {"soft_open_files": original_open_files(), **plan.get("limits", {})}
    # A supervisor from before a restart may still be starting with the former plan.
    mark = _traces(workspace)[1] or secrets.token_hex(16)
    whole = {
        **plan,
        "environment": {**plan["environment"], processes.MARK: mark},
        "output": str(workspace.output),
        "limits": limits,
        "durable": workspace.durable,
        "mark": mark,
        "group": processes.make_group(_group_name(workspace), limits.get("processes", 0)),
    }
    workspace.write_json("plan.json", whole)


def _traces(workspace: Workspace) -> tuple[str, str]:
    """Return the control group and the mark by which a job's processes are found."""
    plan = workspace.read_json("plan.json")
    if not isinstance(plan, dict):
        return "", ""
    group, mark = str(plan.get("group", "")), str(plan.get("mark", ""))
    # Only the job's own group may be killed, whatever the plan says.
    return group if os.path.basename(group) == _group_name(workspace) else "", mark


def _group_name(workspace: Workspace) -> str:
    return f"ocps-{workspace.root.name}"


def _read_all(sources: Mapping[str, ProgressSource]) -> dict[str, Progress]:
    seen = {job_id: source.read() for job_id, source in sources.items()}
    return {job_id: progress for job_id, progress in seen.items() if progress is not None}
