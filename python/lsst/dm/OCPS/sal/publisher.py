# SPDX-License-Identifier: GPL-3.0-or-later
"""Publish the result of each job over SAL, once."""

from __future__ import annotations

__all__ = ["Publisher"]

import asyncio
import logging
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, TypeVar

from ..jobs.manager import JobManager
from ..jobs.model import Job
from ..jobs.workspace import Workspace
from .executions import Executions
from .request import ORIGIN
from .result import result_document, result_text

RETRY = 2.0
"""How long (s) to wait after a failure before trying again."""

CLOSE_TIMEOUT = 5.0
"""How long (s) to wait at the end of OCPS for results that are being published."""

REMEMBERED = 10_000
"""How many ids of published jobs to remember, so that a late change publishes nothing again."""

T = TypeVar("T")

Write = Callable[[Job, str], Awaitable[None]]
"""Writes the event ``job_result`` of a job, with its JSON."""


class Publisher:
    """Publishes the result of every SAL job that ends.

    Parameters
    ----------
    manager : `JobManager`
        The engine.
    write : `~collections.abc.Callable`
        Writes the event.
    executions : `Executions`
        The open commands, which are finished when their results have been published.
    log : `logging.Logger`
        Gets errors.
    """

    def __init__(
        self, manager: JobManager, write: Write, executions: Executions, log: logging.Logger
    ) -> None:
        self.manager = manager
        self._write = write
        self._executions = executions
        self._log = log
        self._active = False
        self._held: dict[str, asyncio.Event] = {}
        self._seen: OrderedDict[str, None] = OrderedDict()
        self._following: set[asyncio.Task[Any]] = set()
        self._publishing: set[asyncio.Task[Any]] = set()

    def open(self) -> None:
        """Begin to follow the engine."""
        self._spawn(self._follow(), self._following)

    async def close(self) -> None:
        """Stop; results that have not been published are published after the next start."""
        for task in self._following:
            task.cancel()
        if self._publishing:
            # If cancelled between the event and `mark_published`, the result would be published again.
            await asyncio.wait(self._publishing, timeout=CLOSE_TIMEOUT)
        left = self._following | self._publishing
        for task in left:
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)
        await self._executions.fail_all(_stopped)

    def activate(self) -> None:
        """Publish all results from now on, including those of jobs that ended before."""
        self._active = True
        self._spawn(self._catch_up(), self._following)

    async def _catch_up(self) -> None:
        for job in await self._retrying(lambda: self.manager.unpublished(ORIGIN)):
            self._take(job)

    def hold(self, job_id: str) -> None:
        """Hold back a job's result until `release`, because its id must be published first."""
        self._held[job_id] = asyncio.Event()

    def release(self, job_id: str) -> None:
        """Allow a job's result to be published."""
        event = self._held.pop(job_id, None)
        if event:
            event.set()

    async def _follow(self) -> None:
        def wanted(job: Job) -> bool:
            return job.origin == ORIGIN and job.terminal and not job.published

        async with self.manager.subscribe(wanted) as changes:
            async for job in changes:
                if self._active:
                    self._take(job)

    def _take(self, job: Job) -> None:
        if job.id in self._seen:
            return
        self._seen[job.id] = None
        while len(self._seen) > REMEMBERED:
            self._seen.popitem(last=False)
        self._spawn(self._publish(job), self._publishing)

    async def _publish(self, job: Job) -> None:
        if held := self._held.get(job.id):
            await held.wait()
        text = await self._text(job)
        await self._retrying(lambda: self._write(job, text))
        self._executions.finish(job)
        await self._retrying(lambda: self.manager.mark_published(job.id))

    async def _retrying(self, act: Callable[[], Awaitable[T]]) -> T:
        """Retry until it succeeds, so that a full disk loses no result."""
        while True:
            try:
                return await act()
            except Exception as error:
                self._log.error(f"Publishing: {error}; trying again in {RETRY:g} s")
                await asyncio.sleep(RETRY)

    async def _text(self, job: Job) -> str:
        """Return the JSON of a result; if it is truncated, write the whole document to a file first."""
        workspace = self.manager.workspaces.of(job.id)
        path = workspace.engine / "result.json"
        document = result_document(job)
        text, cut = result_text(document, path.as_uri())
        if cut:
            try:
                await asyncio.to_thread(_write_whole, workspace, path.name, document)
            except OSError as error:
                self._log.error(f"Job {job.id}: its whole result could not be written: {error}")
                text, _ = result_text(document)
        return text

    def _spawn(self, coroutine: Coroutine[Any, Any, Any], tasks: set[asyncio.Task[Any]]) -> None:
        task = asyncio.create_task(coroutine)
        tasks.add(task)
        task.add_done_callback(tasks.discard)
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[Any]) -> None:
        if not task.cancelled() and (error := task.exception()):
            self._log.error("A result could not be published", exc_info=error)


def _stopped(job_id: str) -> str:
    words = f"OCPS stopped before the result of job {job_id} was published"
    return f"{words}; it is published after the next start"


def _write_whole(workspace: Workspace, name: str, document: dict[str, Any]) -> None:
    # Jobs that run elsewhere have no workspace yet.
    workspace.create()
    workspace.write_json(name, document)
