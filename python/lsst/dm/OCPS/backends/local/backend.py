# SPDX-License-Identifier: GPL-3.0-or-later
"""The local pool: jobs as processes on this machine."""

from __future__ import annotations

__all__ = ["LocalBackend"]

import asyncio
import dataclasses
import logging
import sys
from collections.abc import Collection, Coroutine, Mapping
from typing import Any

from ...jobs.backend import Backend, BackendUpdate
from ...jobs.errors import BackendError, JobError
from ...jobs.file_access import look_at_files
from ...jobs.model import ErrorSummary, ExecutionPhase, Job, Progress
from ...jobs.workspace import Workspace, Workspaces
from . import supervisor
from .handle import SupervisorHandle, kill_session
from .planner import Planner, ProgressSource
from .zygote.pool import ZygotePool

LAUNCH_TIMEOUT = 60.0
"""How long (s) a supervisor may take to take its job."""

PROGRESS_INTERVAL = 0.5
"""How often (s) the logs of running jobs are looked at."""


class LocalBackend(Backend):
    """Runs each job under a supervisor process of its own.

    Parameters
    ----------
    workspaces : `~lsst.dm.OCPS.jobs.workspace.Workspaces`
        Where jobs' files are.
    planners : `~collections.abc.Mapping` [`str`, `Planner`]
        By kind of job: what turns it into commands, and their ending into
        words.
    log : `logging.Logger`, optional
        Gets what is unusual.
    zygotes : `ZygotePool` or `None`
        Preloaded processes, from which jobs start quicker; closed by `close`.
    """

    def __init__(
        self,
        workspaces: Workspaces,
        planners: Mapping[str, Planner],
        log: logging.Logger | None = None,
        zygotes: ZygotePool | None = None,
    ) -> None:
        self.workspaces = workspaces
        self.planners = planners
        self.log = log or logging.getLogger(__name__)
        self.zygotes = zygotes
        self._running: dict[str, SupervisorHandle] = {}
        self._sources: dict[str, ProgressSource] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    async def open(self) -> None:
        self._spawn(self._follow_logs())
        for planner in self.planners.values():
            if self.zygotes and (preload := planner.preload(None)):
                self.zygotes.prepare(preload)

    async def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self.zygotes:
            await self.zygotes.close()

    async def check(self) -> None:
        for planner in self.planners.values():
            await planner.check()

    async def submit(self, job: Job) -> None:
        workspace = self.workspaces.of(job.id)
        try:
            plan = await look_at_files(self._planner(job).plan, job, workspace)
            await asyncio.to_thread(_prepare, workspace, plan)
        except OSError as error:
            raise BackendError(f"{error.filename or workspace.root}: {error.strerror}") from error
        await self._launch(job, workspace)
        self._attach(job, workspace)

    async def cancel(self, job: Job) -> None:
        handle = self._running.get(job.id)
        if handle:
            handle.terminate()

    async def reattach(self, jobs: Collection[Job]) -> None:
        for job in jobs:
            workspace = self.workspaces.of(job.id)
            if workspace.read_json("supervisor.json") is None:
                await self._resubmit(job, workspace)
            else:
                self._attach(job, workspace)

    async def _resubmit(self, job: Job, workspace: Workspace) -> None:
        """Start a job of which it is not known whether its supervisor was started.

        Should there be two, the second finds the job taken.
        """
        try:
            if job.stopping:
                workspace.make()
                # Take the job, so that a supervisor on its way finds it taken.
                supervisor.write_json(workspace.root / "supervisor.json", {}, once=True)
                self.report(job.id, BackendUpdate(phase=ExecutionPhase.ABORTED))
            else:
                await self.submit(job)
        except supervisor.AlreadyClaimedError:
            self._attach(job, workspace)
        except (JobError, OSError) as error:
            self.report(job.id, BackendUpdate(phase=ExecutionPhase.ERROR, error=ErrorSummary(str(error))))

    async def _launch(self, job: Job, workspace: Workspace) -> None:
        """Start a job's supervisor: from a preloaded process, or as a new one."""
        preload = await look_at_files(self._planner(job).preload, job) if self.zygotes else None
        if self.zygotes and preload and await self.zygotes.launch(preload, workspace.root):
            return
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-I",
            "-S",
            supervisor.__file__,
            str(workspace.root),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.PIPE,
        )
        try:
            _, answer = await asyncio.wait_for(process.communicate(), LAUNCH_TIMEOUT)
        except TimeoutError:
            process.kill()
            raise BackendError(f"its supervisor did not start within {LAUNCH_TIMEOUT:g} s") from None
        if process.returncode != 0:
            raise BackendError(answer.decode(errors="replace").strip() or "its supervisor did not start")

    def _attach(self, job: Job, workspace: Workspace) -> None:
        handle = SupervisorHandle.find(workspace.read_json("supervisor.json"))
        self._sources[job.id] = self._planner(job).progress_source(workspace)
        if handle:
            self._running[job.id] = handle
            self.report(job.id, BackendUpdate(phase=ExecutionPhase.EXECUTING, handle=str(workspace.root)))
        self._spawn(self._await_end(job, workspace, handle))

    async def _await_end(self, job: Job, workspace: Workspace, handle: SupervisorHandle | None) -> None:
        if handle:
            try:
                await handle.ended()
            finally:
                self._running.pop(job.id, None)
                handle.close()
        source = self._sources.pop(job.id)
        ending = await asyncio.to_thread(self._ending, job, workspace, source)
        self.report(job.id, ending)

    def _ending(self, job: Job, workspace: Workspace, source: ProgressSource) -> BackendUpdate:
        """Read from the workspace how a job ended; runs in a thread."""
        status = workspace.read_json("status.json")
        if status is None:
            # A supervisor writes before it ends; so it was killed. Its child
            # dies with it, but not what that child may have started.
            kill_session(workspace.read_json("supervisor.json"))
        try:
            ending = self._planner(job).ending(job, workspace, status)
            return dataclasses.replace(ending, progress=source.read())
        except Exception as error:
            self.log.exception(f"Job {job.id}: its ending could not be read")
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
        kind = job.spec["kind"]
        try:
            return self.planners[kind]
        except KeyError:
            raise BackendError(f"the local pool runs no jobs of kind {kind!r}") from None

    def _spawn(self, coroutine: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def _prepare(workspace: Workspace, plan: dict[str, Any]) -> None:
    workspace.make()
    workspace.write_json("plan.json", plan)


def _read_all(sources: Mapping[str, ProgressSource]) -> dict[str, Progress]:
    seen = {job_id: source.read() for job_id, source in sources.items()}
    return {job_id: progress for job_id, progress in seen.items() if progress is not None}
