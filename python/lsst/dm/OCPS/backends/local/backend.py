# SPDX-License-Identifier: GPL-3.0-or-later
"""The local pool: jobs as processes on this machine."""

from __future__ import annotations

__all__ = ["LocalBackend"]

import asyncio
import logging
import os
import sys
from collections.abc import Collection, Mapping
from typing import Any

from ...jobs.backend import BackendUpdate
from ...jobs.dry_run import DryRun
from ...jobs.errors import BackendError
from ...jobs.file_access import look_at_files
from ...jobs.model import ExecutionPhase, Job
from ...jobs.workspace import Workspace, Workspaces
from ..supervised import SUPERVISOR_VARIABLES, SupervisedBackend, claim_job, mark_of, retry
from . import processes, step, supervisor
from .dry_run import DryRuns
from .handle import Claim, SupervisorHandle
from .planner import Planner
from .zygote.pool import ZygotePool

LAUNCH_TIMEOUT = 60.0
"""How long (s) a supervisor may take to claim its job."""


class LocalBackend(SupervisedBackend):
    """Runs each job under a supervisor process of its own on this machine.

    Parameters
    ----------
    workspaces, planners, log
        As for `SupervisedBackend`.
    zygotes : `ZygotePool` or `None`
        Preloaded processes, from which jobs start faster; closed by `close`.
    """

    name = "the local pool"

    def __init__(
        self,
        workspaces: Workspaces,
        planners: Mapping[str, Planner],
        log: logging.Logger | None = None,
        zygotes: ZygotePool | None = None,
    ) -> None:
        super().__init__(workspaces, planners, log)
        self.zygotes = zygotes
        self._running: dict[str, SupervisorHandle] = {}
        self._dry_runs = DryRuns(workspaces, self._prepare_and_launch)

    async def open(self) -> None:
        await super().open()
        for planner in self.planners.values():
            if self.zygotes and (preload := planner.preload(None)):
                self.zygotes.prepare(preload)

    async def close(self) -> None:
        self._dry_runs.close()
        await super().close()
        if self.zygotes:
            await self.zygotes.close()

    async def dry_run(self, job: Job) -> DryRun:
        return await self._dry_runs.carry_out(job, self._planner(job))

    async def cancel(self, job: Job) -> None:
        if await self._stop_waiting(job.id):
            await self._prevent(job)
        handle = self._running.get(job.id)
        if handle:
            handle.terminate()

    async def reattach(self, jobs: Collection[Job]) -> None:
        for job in jobs:
            workspace = self.workspaces.of(job.id, job.attempt)
            if Claim.parse(job.handle):
                await self._attach(job, workspace)
            elif await retry(workspace.read_json, "supervisor.json") is None:
                # Its supervisor may have been started all the same. If so,
                # the second one finds the job claimed, and ends.
                if job.stopping:
                    await self._prevent(job)
                else:
                    await self._resubmit(job)
            else:
                await self._attach(job, workspace)

    async def _prevent(self, job: Job) -> None:
        """Prevent a job from being started; if it has been started, stop it."""
        # A supervisor that is being started finds the job claimed.
        if await self._claim(job):
            self.report(job.id, BackendUpdate(phase=ExecutionPhase.ABORTED))
            return
        await self._attach(job, self.workspaces.of(job.id, job.attempt))
        if handle := self._running.get(job.id):
            handle.terminate()

    async def _launch(self, job: Job, workspace: Workspace) -> None:
        """Start a job's supervisor: from a preloaded process, or as a new one."""
        preload = await look_at_files(self._planner(job).preload, job) if self.zygotes else None
        if not (self.zygotes and preload and await self.zygotes.launch(preload, workspace.engine)):
            await self._launch_cold(workspace)

    async def _launch_cold(self, workspace: Workspace) -> None:
        """Start a job's supervisor as a new process; return when the job is claimed."""
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
            words = f"its supervisor did not start within {LAUNCH_TIMEOUT:g} s"
        else:
            if process.returncode == 0:
                return
            words = answer.decode(errors="replace").strip() or "its supervisor did not start"
            if process.returncode == supervisor.TRY_AGAIN:
                raise OSError(min(supervisor.SHORTAGES), words)
        # The supervisor is not a child of the process that failed, and may start all the same.
        try:
            prevented = await asyncio.to_thread(claim_job, workspace)
        except OSError as error:
            if error.errno in supervisor.SHORTAGES:
                raise
            raise BackendError(words, may_still_run=True) from error
        if prevented:
            raise BackendError(words)

    async def _attach(self, job: Job, workspace: Workspace) -> None:
        """Follow a job whose supervisor has claimed it."""
        # What was stored counts more than the file, which the job might have changed.
        claim = Claim.parse(job.handle) or await retry(Claim.read, workspace, "supervisor.json")
        handle = await retry(SupervisorHandle.find, claim)
        self._sources[job.id] = self._planner(job).progress_source(workspace)
        if handle:
            self._running[job.id] = handle
        if claim:
            # Also for a job that has ended already, because it did run.
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
            ending = await retry(self._ending, job, workspace, claim, source)
        except Exception as error:
            # Any error at all: the job must end.
            ending = self._unreadable(job, error)
        self.report(job.id, ending)

    def _kill_remains(self, job: Job, workspace: Workspace, claim: Claim | None) -> bool:
        # A supervisor's child is killed with it, but not what that child has started.
        group, mark = _group(workspace), mark_of(workspace)
        known = claim.model_dump() if claim else None
        gone = processes.kill_job(known, group, mark)
        if not gone:
            self.log.error(f"Job {job.id}: not all of its processes could be killed")
        _remove_caches(workspace)
        return gone

    def _make_group(self, workspace: Workspace, limits: Mapping[str, Any]) -> str:
        return processes.make_group(_group_name(workspace), limits.get("processes", 0))


def _remove_caches(workspace: Workspace) -> None:
    """Remove what a killed step left of its Butler's cache; the killed supervisor cannot."""
    plan, leader = workspace.read_json("plan.json"), workspace.read_json("group.json")
    environment = plan.get("environment") if isinstance(plan, dict) else None
    pid = leader.get("pid") if isinstance(leader, dict) else None
    # Another process may have got the same id since.
    if isinstance(environment, dict) and isinstance(pid, int) and processes.identity(pid) in (None, leader):
        step.remove_caches(pid, environment)


def _group(workspace: Workspace) -> str:
    """Return the control group in a job's plan; empty if there is none."""
    plan = workspace.read_json("plan.json")
    group = str(plan.get("group", "")) if isinstance(plan, dict) else ""
    # No other group is ever killed, whatever the plan says.
    return group if os.path.basename(group) == _group_name(workspace) else ""


def _group_name(workspace: Workspace) -> str:
    return f"ocps-{workspace.root.name}"
