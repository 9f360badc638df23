# SPDX-License-Identifier: GPL-3.0-or-later
"""Following jobs at any UWS 1.1 server: by WAIT for a handful, by one list for more."""

from __future__ import annotations

__all__ = ["WaitWatcher"]

import asyncio
import functools
from contextlib import suppress

from ...client.errors import ClientError, UnknownError
from ...jobs.model import ExecutionPhase
from .polling import HANDFUL, PollWatcher
from .server import Dialect
from .submission import Tracked, retrying
from .updates import in_words

WAIT = 20
"""How long (s) one request waits for a change; proxies interrupt longer requests."""

GRACE = 10.0
"""How much longer (s) than `WAIT` the server may take to answer."""


class WaitWatcher:
    """Follows jobs.

    Parameters
    ----------
    poller : `PollWatcher`
        Requests lists; it has the server, the table of jobs, how often to
        request a list, and what starts tasks.
    """

    def __init__(self, poller: PollWatcher) -> None:
        self._poller = poller
        self._server = poller.server
        self._table = poller.table
        self._interval = poller.interval
        self._spawn = poller.spawn
        self._waited_for: dict[str, asyncio.Task[None]] = {}

    async def watch(self) -> None:
        """Follow all jobs until the server turns out to be of another kind."""
        try:
            while self._server.dialect == Dialect.XML:
                await self._table.any.wait()
                async for attempt in retrying(self._interval, on=ClientError):
                    with attempt:
                        await self._round()
                await asyncio.sleep(self._interval)
        finally:
            for task in list(self._waited_for.values()):
                task.cancel()

    async def _round(self) -> None:
        wanted = self._table.wanted()
        if len(wanted) > HANDFUL:
            with self._table.asking():
                await self._poller.ask_all(wanted)
            return
        for tracked in wanted:
            job_id = tracked.job.id
            if job_id not in self._waited_for:
                task = self._waited_for[job_id] = self._spawn(self._wait_for(tracked))
                task.add_done_callback(functools.partial(self._remove, job_id))

    def _remove(self, job_id: str, _: asyncio.Task[None]) -> None:
        self._waited_for.pop(job_id, None)

    async def _wait_for(self, tracked: Tracked) -> None:
        """Follow one job until it ends, or until there are too many jobs for WAIT."""
        loop = asyncio.get_running_loop()
        while tracked in self._table.wanted() and len(self._table.jobs) <= HANDFUL:
            begun, phase = loop.time(), tracked.phase
            try:
                found = await self._server.wait(tracked.server_id, phase, WAIT, WAIT + GRACE)
            except UnknownError:
                self._table.report_missing(tracked)
                return
            except ClientError as error:
                self._table.report_phase(tracked, ExecutionPhase.UNKNOWN, in_words(self._server.url, error))
                await asyncio.sleep(self._interval)
                continue
            self._table.take(tracked, found)
            if found.phase == phase and loop.time() - begun < self._interval:
                # The server does not support WAIT, or does not wait in this phase.
                with suppress(TimeoutError):
                    await asyncio.wait_for(tracked.stopping.wait(), self._interval)
