# SPDX-License-Identifier: GPL-3.0-or-later
"""The common part of backends whose jobs run under OCPS's supervisor, here or on a cluster's nodes.

A job is a plan in its workspace (see `local.supervisor`). Its supervisor
claims it, so that it runs once however often it is started, and writes how
it ended. A subclass says how a supervisor is started and watched.
"""

from __future__ import annotations

__all__ = ["RETRY_INTERVAL", "SUPERVISOR_VARIABLES", "SupervisedBackend", "claim_job", "mark_of", "retry"]

import abc
import asyncio
import dataclasses
import logging
import os
import secrets
from collections.abc import Callable, Coroutine, Mapping
from typing import Any, TypeVar

from ..jobs import durable
from ..jobs.backend import Backend, BackendUpdate, not_started
from ..jobs.errors import BackendError, JobError
from ..jobs.file_access import look_at_files
from ..jobs.model import ErrorSummary, ExecutionPhase, Job, Progress
from ..jobs.own_process import original_open_files
from ..jobs.workspace import Workspace, Workspaces
from .local import processes, supervisor
from .local.handle import Claim, Status
from .local.planner import Planner, ProgressSource

PROGRESS_INTERVAL = 0.5
"""How often (s) progress is read from the logs of running jobs."""

RETRY_INTERVAL = 1.0
"""Pause (s) before what failed for lack of resources is tried again."""

SUPERVISOR_VARIABLES = ("PATH", "LD_LIBRARY_PATH", "LANG", "LC_ALL")
"""Variables of OCPS's environment that a supervisor gets; others may be secret."""

T = TypeVar("T")


class SupervisedBackend(Backend):
    """Runs each job under a supervisor process of its own.

    Parameters
    ----------
    workspaces : `~lsst.dm.OCPS.jobs.workspace.Workspaces`
        The directories of jobs.
    planners : `~collections.abc.Mapping` [`str`, `Planner`]
        The planners by kind of job.
    log : `logging.Logger`, optional
        Gets warnings.
    """

    runs_again = True

    name: str
    """The backend's name in messages."""

    def __init__(
        self, workspaces: Workspaces, planners: Mapping[str, Planner], log: logging.Logger | None = None
    ) -> None:
        self.workspaces = workspaces
        self.planners = planners
        self.kinds = frozenset(planners)
        self.log = log or logging.getLogger(__name__)
        self._waiting: dict[str, asyncio.Task[None]] = {}
        self._sources: dict[str, ProgressSource] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    async def open(self) -> None:
        self._spawn(self._follow_logs())

    async def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def check(self) -> None:
        for planner in self.planners.values():
            await planner.check()

    async def submit(self, job: Job) -> None:
        reason = await self._try_to_start(job)
        if reason:
            self._waiting[job.id] = self._spawn(self._start_later(job, reason))

    @abc.abstractmethod
    async def _launch(self, job: Job, workspace: Workspace) -> None:
        """Start the supervisor of a job whose plan is written.

        Raises
        ------
        OSError
            If resources are missing (`supervisor.SHORTAGES`); it is tried again.
        BackendError
            If it cannot be started.
        """

    async def _attach(self, job: Job, workspace: Workspace) -> None:
        """Follow a job whose supervisor has been started."""

    def _make_group(self, workspace: Workspace, limits: Mapping[str, Any]) -> str:
        """Make a control group for a job; return its path, empty for none."""
        return ""

    def _kill_remains(self, job: Job, workspace: Workspace, claim: Claim | None) -> bool:
        """Kill what a killed supervisor left behind; return whether nothing of the job runs any more.

        Runs in a thread.
        """
        return True

    async def _resubmit(self, job: Job) -> None:
        """Submit a job after a restart, and report a failure."""
        try:
            await self.submit(job)
        except JobError as error:
            self.report(job.id, not_started(error, str(error)))

    async def _stop_waiting(self, job_id: str) -> bool:
        """Stop trying to start a job that waits for resources; return whether it did."""
        waiting = self._waiting.pop(job_id, None)
        if waiting is None:
            return False
        waiting.cancel()
        await asyncio.wait({waiting})
        return True

    async def _claim(self, job: Job) -> bool:
        """Claim a job, so that no supervisor can run it; return whether none had claimed it before."""
        return await retry(claim_job, self.workspaces.of(job.id, job.attempt))

    async def _try_to_start(self, job: Job) -> str:
        """Start a job.

        Returns
        -------
        reason : `str`
            Why the job has to wait; empty if it was started.

        Raises
        ------
        BackendError
            If it cannot be started.
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
        """Try to start a job until that succeeds or fails for good."""
        self.log.warning(f"Job {job.id} waits: {reason}")
        try:
            while reason:
                self.report(job.id, BackendUpdate(message=f"waiting: {reason}"))
                await asyncio.sleep(RETRY_INTERVAL)
                reason = await self._try_to_start(job)
        except Exception as error:
            if not isinstance(error, JobError):
                self.log.exception(f"Job {job.id}: it could not be started")
            self.report(job.id, not_started(error, f"could not be started: {error}"))
        self._waiting.pop(job.id, None)

    async def _prepare_and_launch(self, job: Job, workspace: Workspace, plan: dict[str, Any]) -> None:
        """Write a job's plan and start its supervisor."""
        await asyncio.to_thread(self._prepare, workspace, plan)
        await self._launch(job, workspace)

    def _prepare(self, workspace: Workspace, plan: dict[str, Any]) -> None:
        """Make a job's directories and write its plan."""
        workspace.create()
        limits = {"soft_open_files": original_open_files(), **plan.get("limits", {})}
        # A supervisor from before a restart may still be about to start with the former plan.
        mark = mark_of(workspace) or secrets.token_hex(16)
        whole = {
            **plan,
            "environment": {**plan["environment"], processes.MARK: mark},
            "output": str(workspace.output),
            "limits": limits,
            "durable": workspace.durable,
            "mark": mark,
            "group": self._make_group(workspace, limits),
        }
        workspace.write_json("plan.json", whole)

    def _ending(
        self, job: Job, workspace: Workspace, claim: Claim | None, source: ProgressSource
    ) -> BackendUpdate:
        """Read from the job's directories how it ended; runs in a thread.

        Raises
        ------
        OSError
            If resources are missing; it is tried again then.
        """
        gone = True
        status = Status.read(workspace, "status.json")
        if status and not status.is_by(claim):
            self.log.warning(f"Job {job.id}: its status was not written by its supervisor, and is ignored")
            status = None
        if status is None:
            # A supervisor writes its status before it ends: this one was killed, or never began.
            gone = self._kill_remains(job, workspace, claim)
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
        # A second attempt must not run beside processes of the first.
        ending = dataclasses.replace(ending, may_still_run=not gone)
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
            raise BackendError(f"{self.name} does not run jobs of this kind")
        return self.planners[job.spec.kind]

    def _spawn(self, coroutine: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task


async def retry(act: Callable[..., T], *arguments: Any) -> T:
    """Return what ``act`` returns in a thread; while resources are missing, try again.

    A file that cannot be read for lack of descriptors still exists.
    """
    while True:
        try:
            return await asyncio.to_thread(act, *arguments)
        except OSError as error:
            if error.errno not in supervisor.SHORTAGES:
                raise
        await asyncio.sleep(RETRY_INTERVAL)


def claim_job(workspace: Workspace) -> bool:
    """Claim a job, so that no supervisor can run it; return whether none had claimed it before.

    Raises
    ------
    OSError
        If the file cannot be written; then it is not known.
    """
    workspace.create()
    try:
        durable.write_json(workspace.engine / "supervisor.json", {}, once=True)
    except durable.AlreadyClaimedError:
        return False
    return True


def mark_of(workspace: Workspace) -> str:
    """Return the mark in a job's plan by which its processes are found; empty if there is none."""
    plan = workspace.read_json("plan.json")
    return str(plan.get("mark", "")) if isinstance(plan, dict) else ""


def _read_all(sources: Mapping[str, ProgressSource]) -> dict[str, Progress]:
    seen = {job_id: source.read() for job_id, source in sources.items()}
    return {job_id: progress for job_id, progress in seen.items() if progress is not None}
