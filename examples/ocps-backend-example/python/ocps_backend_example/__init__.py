# SPDX-License-Identifier: GPL-3.0-or-later
"""A backend of a site's own: it does its jobs in tasks of the event loop."""

from __future__ import annotations

__all__ = ["ClockBackend", "make_parts"]

import asyncio
from collections.abc import Collection
from pathlib import Path

from lsst.dm.OCPS.backend_api import (
    Backend,
    BackendContext,
    BackendUpdate,
    ConfigError,
    ErrorSummary,
    ExecutionPhase,
    InstanceConfig,
    Job,
    Parts,
    Workspace,
    limits_of,
    load_definitions,
)


class ClockBackend(Backend):
    """Greets whom a job names, after a delay (s)."""

    kinds = ("command",)

    def __init__(self, context: BackendContext, delay: float) -> None:
        self._context = context
        self._delay = delay
        self._tasks: dict[str, asyncio.Task[None]] = {}

    async def open(self) -> None:
        pass

    async def close(self) -> None:
        for task in self._tasks.values():
            task.cancel()

    async def check(self) -> None:
        pass

    async def submit(self, job: Job) -> None:
        self._tasks.setdefault(job.id, asyncio.create_task(self._run(job)))

    async def cancel(self, job: Job) -> None:
        self._tasks[job.id].cancel()
        self.report(job.id, BackendUpdate(phase=ExecutionPhase.ABORTED))

    async def reattach(self, jobs: Collection[Job]) -> None:
        # Its jobs ended with the former process.
        for job in jobs:
            self.report(job.id, BackendUpdate(phase=ExecutionPhase.ERROR, error=ErrorSummary("OCPS ended")))

    async def _run(self, job: Job) -> None:
        self.report(job.id, BackendUpdate(phase=ExecutionPhase.EXECUTING))
        await asyncio.sleep(self._delay)
        workspace = self._context.workspaces.of(job.id)
        await asyncio.to_thread(_greet, workspace, job.parameters["name"])
        results = await asyncio.to_thread(workspace.results)
        self.report(job.id, BackendUpdate(phase=ExecutionPhase.COMPLETED, exit_code=0, results=results))


def _greet(workspace: Workspace, name: str) -> None:
    workspace.create()
    workspace.log.write_text(f"greeting {name}\n")
    (workspace.output / "greeting.txt").write_text(f"Hello {name}\n")


def make_parts(config: InstanceConfig, context: BackendContext) -> Parts:
    """Make the backend as the configuration describes it."""
    delay = config.backend_settings.get("delay", 1.0)
    if not isinstance(delay, (int, float)) or delay < 0:
        raise ConfigError(f"backend_settings/delay: {delay!r} is not a time (s)")
    own = str(Path(__file__).with_name("definitions.yaml"))
    definitions = load_definitions((own, *config.definitions), None)
    return Parts("clock", ClockBackend(context, delay), definitions, limits_of(config, max_workers=10))
