# SPDX-License-Identifier: GPL-3.0-or-later
"""Polling of a UWS server.

A handful of jobs is requested one by one. With more jobs, one list per phase
is requested, and then one by one the jobs that were in no list. A round
begins only after the previous one has been answered.
"""

from __future__ import annotations

__all__ = ["HANDFUL", "PollWatcher"]

import asyncio
import logging
from collections import defaultdict
from collections.abc import Callable, Coroutine
from typing import Any

from ...client.documents import RemoteJob
from ...client.errors import ClientError, UnknownError, UnreachableError
from ...jobs.model import TERMINAL, ExecutionPhase
from .server import Dialect, UwsServer
from .submission import ServerJobs, Tracked, retrying
from .tracking import JobTable
from .updates import PHASES, execution_phase, in_words

HANDFUL = 8
"""Up to this many jobs in one phase are requested one by one."""

ENDS = ("COMPLETED", "ERROR")
"""Phases to list when many jobs may have ended; aborted jobs are rare."""

Spawn = Callable[[Coroutine[Any, Any, Any]], asyncio.Task[Any]]
"""Starts a task whose failure is logged."""


class PollWatcher:
    """Polls the server.

    Parameters
    ----------
    server : `UwsServer`
        The server.
    table : `JobTable`
        The jobs.
    made : `ServerJobs`
        Stops duplicate jobs that a list shows.
    interval : `float`
        How often to poll (s).
    spawn : `~collections.abc.Callable`
        Starts tasks.
    log : `logging.Logger`
        Receives warnings.
    """

    def __init__(
        self,
        server: UwsServer,
        table: JobTable,
        made: ServerJobs,
        interval: float,
        spawn: Spawn,
        log: logging.Logger,
    ) -> None:
        self.server = server
        self.table = table
        self._made = made
        self.interval = interval
        self.spawn = spawn
        self._log = log
        # Existing servers read the files of all jobs for every list; if that
        # is slow, one list of all phases is better than one per phase.
        self._slow = False

    async def watch(self) -> None:
        """Poll until the server turns out to be of another kind."""
        loop = asyncio.get_running_loop()
        while self.server.dialect in (Dialect.UNKNOWN, Dialect.RUBIN):
            await self.table.any.wait()
            begun = loop.time()
            async for attempt in retrying(self.interval, on=ClientError):
                with attempt, self.table.asking():
                    begun = loop.time()
                    await self.look()
            took = loop.time() - begun
            # Even a slow server gets a pause.
            await asyncio.sleep(max(self.interval - took, self.interval / 4))

    async def look(self) -> None:
        """Request all jobs in flight once.

        Raises
        ------
        ClientError
            If no request was answered.
        """
        wanted = {tracked.server_id: tracked for tracked in self.table.wanted()}
        if self.server.dialect == Dialect.OURS:
            if not wanted:
                return
            # Whole documents of the newest jobs in any phase, which include those in flight.
            await self._ask_list("", wanted, newest=max(HANDFUL, 2 * len(wanted)))
            await self._ask_each(list(wanted.values()))
            return
        groups: defaultdict[str, list[Tracked]] = defaultdict(list)
        for tracked in wanted.values():
            # A phase that is not in the table cannot be requested, even if the server has shown it.
            if not tracked.misses and tracked.phase in PHASES:
                groups[tracked.phase].append(tracked)
        phases = [phase for phase, group in groups.items() if len(group) > HANDFUL]
        if phases and self._slow:
            await self._ask_list("", wanted)
        else:
            for phase in phases:
                await self._ask_list(phase, wanted)
            for phase in ENDS:
                # Many jobs were in none of the lists of live phases.
                if phases and len(wanted) > HANDFUL:
                    await self._ask_list(phase, wanted)
        await self._ask_each(list(wanted.values()))

    async def ask_all(self, tracked: list[Tracked]) -> None:
        """Request one list of all jobs, then one by one those that it does not describe fully."""
        wanted = {one.server_id: one for one in tracked}
        await self._ask_list("", wanted)
        await self._ask_each(list(wanted.values()))

    async def _ask_list(self, phase: str, wanted: dict[str, Tracked], newest: int = 0) -> None:
        """Request the list of one phase, or of all; remove the jobs in it from ``wanted``."""
        loop = asyncio.get_running_loop()
        begun = loop.time()
        try:
            listed = await (self.server.newest(newest) if newest else self.server.list(phase))
        except ClientError as error:
            if isinstance(error, UnreachableError) and not error.reached:
                raise
            # The list of an existing server fails as a whole if one job's folder cannot be read.
            self._log.debug(f"list of jobs {phase}: {in_words(self.server.url, error)}")
            return
        self._slow = loop.time() - begun > self.interval / 2
        for found in listed:
            if tracked := wanted.get(found.id):
                # If the list has less than the final document, that is requested separately.
                if found.whole or execution_phase(found) not in TERMINAL:
                    del wanted[found.id]
                    self._take(tracked, found, begun)
            elif (other := self.table.jobs.get(found.run_id)) and other.server_id not in ("", found.id):
                self.spawn(self._made.stop_duplicate(other, found))

    async def _ask_each(self, tracked: list[Tracked]) -> None:
        """Request jobs one by one, a few at a time."""
        waiting = iter(tracked)
        outcomes: list[ClientError | None] = []

        async def ask() -> None:
            for one in waiting:
                # If the server does not answer, do not wait for it again for each job.
                if not any(isinstance(error, UnreachableError) and not error.reached for error in outcomes):
                    outcomes.append(await self.ask(one))

        await asyncio.gather(*(ask() for _ in range(min(HANDFUL, len(tracked)))))
        errors = [error for error in outcomes if error]
        if errors and len(errors) == len(outcomes):
            raise errors[0]

    async def ask(self, tracked: Tracked) -> ClientError | None:
        """Request one job; return the error of the link, if there was one."""
        begun = asyncio.get_running_loop().time()
        try:
            found = await self.server.get(tracked.server_id)
        except UnknownError:
            self.table.report_missing(tracked)
        except ClientError as error:
            self.table.report_phase(tracked, ExecutionPhase.UNKNOWN, in_words(self.server.url, error))
            return error
        else:
            self._take(tracked, found, begun)
        return None

    def _take(self, tracked: Tracked, found: RemoteJob, asked: float) -> None:
        # Ignore an answer that is older than what the stream has shown meanwhile.
        if tracked.heard <= asked:
            self.table.take(tracked, found)
