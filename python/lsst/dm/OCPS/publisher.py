# This file is part of dm_OCPS.
#
# Developed for the Vera C. Rubin Observatory.
# License: GPL-3.0-or-later; see COPYRIGHT and LICENSE at the top of the repository.
"""Brings each result out over SAL, once."""

from __future__ import annotations

__all__ = ["Publisher"]

import asyncio
import json
import logging
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

from .jobs.errors import StoreError
from .jobs.manager import JobManager
from .jobs.model import Job
from .rubin_json import job_document
from .sal_result import result_text

ORIGIN = "sal"
"""What jobs that came over SAL have as ``origin``."""

STORE_RETRY = 2.0
"""How long (s) to wait before a mark that could not be stored is tried again."""

REMEMBERED = 10_000
"""How many published ids to remember, against a change that was still under way."""

Write = Callable[[Job, str], Awaitable[None]]
"""Writes the event of one job, with its JSON."""


class Publisher:
    """Publishes the result of every SAL job that ends.

    Parameters
    ----------
    manager : `JobManager`
        The engine.
    write : `~collections.abc.Callable`
        Writes the event.
    log : `logging.Logger`
        Gets what goes wrong.
    """

    def __init__(self, manager: JobManager, write: Write, log: logging.Logger) -> None:
        self.manager = manager
        self._write = write
        self._log = log
        self._active = False
        self._held: dict[str, asyncio.Event] = {}
        self._waiters: dict[str, asyncio.Future[Job]] = {}
        self._seen: OrderedDict[str, None] = OrderedDict()
        self._tasks: set[asyncio.Task[Any]] = set()

    def open(self) -> None:
        """Begin to follow the engine."""
        self._spawn(self._follow())

    async def close(self) -> None:
        """Stop; what has not gone out goes out after the next start."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def activate(self) -> None:
        """Publish from now on, and what has ended before."""
        self._active = True
        for job in await self.manager.unpublished(ORIGIN):
            self._take(job)

    def hold(self, job_id: str) -> asyncio.Future[Job]:
        """Keep a job's result back until `release`: its id must go out first.

        Returns
        -------
        published : `asyncio.Future`
            Gets the job when its result has gone out.
        """
        self._held[job_id] = asyncio.Event()
        future: asyncio.Future[Job] = asyncio.get_running_loop().create_future()
        self._waiters[job_id] = future
        return future

    def release(self, job_id: str) -> None:
        """Let a job's result go out."""
        event = self._held.pop(job_id, None)
        if event:
            event.set()

    def forget(self, job_id: str) -> None:
        """Nobody waits for this job's result any more."""
        self.release(job_id)
        self._waiters.pop(job_id, None)

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
        self._spawn(self._publish(job))

    async def _publish(self, job: Job) -> None:
        if held := self._held.get(job.id):
            await held.wait()
        await self._write(job, await self._text(job))
        waiter = self._waiters.pop(job.id, None)
        if waiter and not waiter.done():
            waiter.set_result(job)
        while True:
            try:
                return await self.manager.mark_published(job.id)
            except StoreError as error:
                self._log.error(f"Job {job.id}: {error}; trying again in {STORE_RETRY:g} s")
                await asyncio.sleep(STORE_RETRY)

    async def _text(self, job: Job) -> str:
        workspace = self.manager.workspaces.of(job.id)
        path = workspace.root / "result.json"
        text = result_text(job, path.as_uri())
        if "truncated" in json.loads(text)["jobInfo"]:
            try:
                await asyncio.to_thread(workspace.write_json, path.name, job_document(job))
            except OSError as error:
                self._log.error(f"Job {job.id}: its whole result could not be written: {error}")
        return text

    def _spawn(self, coroutine: Coroutine[Any, Any, Any]) -> None:
        task = asyncio.create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()):
            self._log.error("A result could not be published", exc_info=error)
