# SPDX-License-Identifier: GPL-3.0-or-later
"""Following all jobs in flight by the change stream of an OCPS."""

from __future__ import annotations

__all__ = ["StreamWatcher"]

import asyncio
import logging
import random
from contextlib import suppress

from ...client.errors import ClientError, DocumentError, UnknownError
from ...client.sse import ServerEvent
from .polling import PollWatcher
from .server import Dialect
from .submission import retrying
from .updates import in_words

LONGEST_PAUSE = 10.0
"""Longest pause (s) between two attempts to open the stream."""

HEALTHY = 1.0
"""How long (s) a stream must have lasted to be opened again without a pause."""

RECONCILE = 60.0
"""How often (s) to request all jobs in addition, in case the stream missed a change."""


class StreamWatcher:
    """Follows all jobs by the stream; after an interruption it resumes it and requests all jobs once.

    Parameters
    ----------
    poller : `PollWatcher`
        Requests all jobs; it has the server, the table of jobs and the first
        pause between attempts.
    log : `logging.Logger`
        Receives warnings.
    """

    def __init__(self, poller: PollWatcher, log: logging.Logger) -> None:
        self._log = log
        self._poller = poller
        self._server = poller.server
        self._table = poller.table
        self._interval = poller.interval
        self._last = ""
        self._look_now = asyncio.Event()
        self._flows = False

    async def watch(self) -> None:
        """Follow all jobs until the server turns out not to be an OCPS."""
        looking = asyncio.create_task(self._look_forever())
        try:
            await self._read_forever()
        finally:
            looking.cancel()
            await asyncio.gather(looking, return_exceptions=True)

    async def _read_forever(self) -> None:
        loop = asyncio.get_running_loop()
        failures = 0
        while self._server.dialect == Dialect.OURS:
            begun = loop.time()
            try:
                async for event in self._server.events(self._last):
                    if not self._flows:
                        self._flows = True
                        self._look_now.set()
                    self._last = event.id
                    if event.data:
                        self._take(event)
            except UnknownError:
                self._server.lose_stream()
                return
            except ClientError as error:
                self._log.debug(f"change stream: {in_words(self._server.url, error)}")
            # The link is lost only if an interrupted stream cannot be opened again.
            if not self._flows:
                self._look_now.set()
            failures = 0 if self._flows and loop.time() - begun > HEALTHY else failures + 1
            self._flows = False
            if failures:
                pause = min(LONGEST_PAUSE, self._interval * 2 ** min(failures - 1, 6))
                await asyncio.sleep(random.uniform(0.5, 1) * pause)

    def _take(self, event: ServerEvent) -> None:
        try:
            if event.type == "deleted":
                self._miss(self._server.read_deletion(event))
                return
            found = self._server.read_event(event)
        except DocumentError as error:
            # The job is requested in the next round.
            self._log.warning(f"UWS server {self._server.url}: an event cannot be read: {error}")
            return
        tracked = self._table.jobs.get(found.run_id) or self._table.by_server_id(found.id)
        if tracked is None:
            return
        tracked.heard = asyncio.get_running_loop().time()
        if tracked.server_id == found.id:
            self._table.take(tracked, found)
        elif not tracked.server_id:
            # The answer to its creation has not arrived yet.
            tracked.early = found

    def _miss(self, server_id: str) -> None:
        if tracked := self._table.by_server_id(server_id):
            self._table.miss(tracked, f"UWS server {self._server.url}: job {server_id} was deleted there")

    async def _look_forever(self) -> None:
        """Request all jobs when the stream has been opened, and frequently while it is not open."""
        while True:
            with suppress(TimeoutError):
                # Behind a proxy that blocks streams, jobs are followed only in this way.
                await asyncio.wait_for(self._look_now.wait(), RECONCILE if self._flows else self._interval)
            self._look_now.clear()
            async for attempt in retrying(self._interval, on=ClientError):
                with attempt, self._table.asking():
                    await self._poller.look()
