# SPDX-License-Identifier: GPL-3.0-or-later
"""Dry runs of the local pool: a quantum graph is built under a supervisor, as a job is run."""

from __future__ import annotations

__all__ = ["DryRuns"]

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from typing import Any

from ...jobs.dry_run import DRY_RUN_TIMEOUT, DryRun
from ...jobs.errors import BackendError, QueueFullError, WouldFailError
from ...jobs.file_access import look_at_files
from ...jobs.model import Job
from ...jobs.workspace import Workspace, Workspaces
from .handle import Claim, Status, SupervisorHandle
from .planner import Planner

MAX_AT_ONCE = 2
"""How many dry runs are carried out at a time, beside jobs."""

MAX_WAITING = 8
"""How many further dry runs may wait."""

STOP_TIMEOUT = 10.0
"""How long (s) to wait for the end of a supervisor that is stopped."""

Launch = Callable[[Job, Workspace, dict[str, Any]], Awaitable[None]]
"""Writes a plan into a workspace and starts a supervisor there."""


class DryRuns:
    """Carries out dry runs, a few at a time.

    Each has a supervisor, limits and a directory like a job; the directory is
    removed at the end.

    Parameters
    ----------
    workspaces : `Workspaces`
        Where directories are made.
    launch : `Launch`
        Starts a supervisor.
    """

    def __init__(self, workspaces: Workspaces, launch: Launch) -> None:
        self._workspaces = workspaces
        self._launch = launch
        self._free = asyncio.Semaphore(MAX_AT_ONCE)
        self._count = 0
        self._running: set[SupervisorHandle] = set()

    def close(self) -> None:
        """Stop all dry runs."""
        for handle in self._running:
            handle.terminate()

    async def carry_out(self, job: Job, planner: Planner) -> DryRun:
        """Return what a job would do; errors are those of `Backend.dry_run`."""
        if self._count >= MAX_AT_ONCE + MAX_WAITING:
            raise QueueFullError(f"{self._count} dry runs are under way; try again later")
        self._count += 1
        try:
            async with asyncio.timeout(DRY_RUN_TIMEOUT), self._free:
                return await self._carry_out(job, planner)
        except TimeoutError:
            words = f"the dry run was stopped: it took longer than {DRY_RUN_TIMEOUT:g} s"
            raise BackendError(words) from None
        finally:
            self._count -= 1

    async def _carry_out(self, job: Job, planner: Planner) -> DryRun:
        workspace = self._workspaces.of(job.id)
        try:
            plan = await look_at_files(planner.dry_plan, job, workspace)
            status = await self._run(job, workspace, plan) if plan else None
            return await asyncio.to_thread(planner.foresee, job, workspace, status)
        except OSError as error:
            raise BackendError(f"{error.filename or workspace.root}: {error.strerror}") from error
        finally:
            await asyncio.shield(asyncio.to_thread(workspace.remove))

    async def _run(self, job: Job, workspace: Workspace, plan: dict[str, Any]) -> dict[str, Any]:
        """Run a plan to its end; return the status that its supervisor wrote."""
        launch = asyncio.ensure_future(self._launch(job, workspace, plan))
        try:
            await asyncio.shield(launch)
        except asyncio.CancelledError:
            # What is being started can only be stopped afterwards.
            await asyncio.gather(launch, return_exceptions=True)
            claim = await asyncio.to_thread(Claim.read, workspace, "supervisor.json")
            if handle := SupervisorHandle.find(claim):
                await _stop(handle)
            raise
        claim = await asyncio.to_thread(Claim.read, workspace, "supervisor.json")
        handle = SupervisorHandle.find(claim)
        if handle:
            self._running.add(handle)
            try:
                await handle.ended()
            finally:
                self._running.discard(handle)
                await asyncio.shield(_stop(handle))
        status = await asyncio.to_thread(Status.read, workspace, "status.json")
        if status is None or not status.is_by(claim):
            raise BackendError("the dry run's supervisor was killed; try again")
        if status.cancelled:
            raise BackendError("the dry run was stopped")
        if status.failure:
            raise WouldFailError(status.failure)
        return status.model_dump()


async def _stop(handle: SupervisorHandle) -> None:
    """Stop a supervisor, if it still runs, and wait for its end."""
    handle.terminate()
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(handle.ended(), STOP_TIMEOUT)
    handle.close()
