# SPDX-License-Identifier: GPL-3.0-or-later
"""Creating a job at a UWS server exactly once, and stopping it.

A job cannot be created under an id of the client's choice, so a creation
whose answer was lost may have succeeded. Jobs are therefore identified by
their run id, which is the id of our job: after a lost answer, jobs with that
run id are looked up before the creation is repeated, and again later in case
there are two.
"""

from __future__ import annotations

__all__ = ["Finder", "ServerJobs", "Tracked", "retrying"]

import asyncio
import logging
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import tenacity

from ...client.documents import Progress, RemoteJob
from ...client.errors import ClientError, UnknownError, UnreachableError
from ...jobs.model import TERMINAL, ExecutionPhase, Job
from .server import Dialect, UwsServer
from .updates import execution_phase

LONGEST_PAUSE = 30.0
"""The longest pause (s) between two attempts."""


@dataclass(slots=True, eq=False)
class Tracked:
    """State of a job that was, or will be, submitted to the server.

    Parameters
    ----------
    job : `Job`
        The record of the job when it was submitted.
    server_id : `str`
        The server's id of the job; empty while it is not known.
    phase : `str`
        The phase that the server last showed.
    doubtful : `bool`
        Whether the server may have created a job whose id is not known here.
    stopping : `asyncio.Event`
        Set when the job is to be stopped.
    shown : `tuple`
        Phase and message of the last report.
    misses : `int`
        How many times in succession the server did not know the job.
    due : `float`
        Earliest time (s, of the event loop) of the next request about it.
    heard : `float`
        When the change stream last showed it (s, of the event loop).
    early : `RemoteJob` or `None`
        The job as the change stream showed it before the server's id was
        known.
    progress : `Progress`
        Progress of the last report.
    """

    job: Job
    server_id: str = ""
    phase: str = "EXECUTING"
    doubtful: bool = False
    stopping: asyncio.Event = field(default_factory=asyncio.Event)
    shown: tuple[ExecutionPhase, str] | None = None
    misses: int = 0
    due: float = 0.0
    heard: float = 0.0
    early: RemoteJob | None = None
    progress: Progress = field(default_factory=Progress)
    submission: asyncio.Task[Any] | None = None
    duplicates: set[str] = field(default_factory=set)

    async def nap(self, pause: float) -> None:
        """Sleep for ``pause`` seconds, or until the job is to be stopped."""
        with suppress(TimeoutError):
            await asyncio.wait_for(self.stopping.wait(), pause)


def retrying(first: float, **options: Any) -> tenacity.AsyncRetrying:
    """Return a loop over attempts with growing pauses, of which the first is ``first`` (s)."""
    longest = min(LONGEST_PAUSE, 10 * first)
    wait = tenacity.wait_exponential(multiplier=first, max=longest) + tenacity.wait_random(0, first / 4)
    retry = tenacity.retry_if_exception_type(options.pop("on", UnreachableError))
    return tenacity.AsyncRetrying(wait=wait, retry=retry, reraise=True, **options)


class Finder:
    """Finds jobs by run id.

    An OCPS can be queried by run id; at another server all jobs are listed,
    and concurrent calls share one list.

    Parameters
    ----------
    server : `UwsServer`
        The server.
    """

    def __init__(self, server: UwsServer) -> None:
        self._server = server
        self._lock = asyncio.Lock()
        self._begun = -1.0
        self._outcome: list[RemoteJob] | ClientError = []

    async def find(self, job: Job) -> list[RemoteJob]:
        """Return the server's jobs with a job's id as run id, oldest first.

        The answer is never older than the call.

        Raises
        ------
        ClientError
            If the server does not answer, or refuses.
        """
        if self._server.dialect == Dialect.OURS:
            return _with_run_id(job, (await self._server.find(job))[0])
        loop = asyncio.get_running_loop()
        asked = loop.time()
        async with self._lock:
            if self._begun < asked:
                begun = loop.time()
                try:
                    self._outcome, all_jobs = await self._server.find(job)
                except ClientError as error:
                    self._outcome, all_jobs = error, True
                if all_jobs:
                    self._begun = begun
            outcome = self._outcome
        if isinstance(outcome, ClientError):
            raise outcome
        return _with_run_id(job, outcome)


def _with_run_id(job: Job, listed: list[RemoteJob]) -> list[RemoteJob]:
    found = [one for one in listed if one.run_id == job.id]
    return sorted(found, key=lambda one: str(one.creation_time))


class ServerJobs:
    """Creates each job once, and stops jobs.

    Parameters
    ----------
    server : `UwsServer`
        The server.
    pause : `float`
        First pause between attempts (s).
    delay : `float`
        How long (s) after a lost answer the job may still appear.
    log : `logging.Logger`
        Receives warnings.
    """

    def __init__(self, server: UwsServer, pause: float, delay: float, log: logging.Logger) -> None:
        self._server = server
        self._finder = Finder(server)
        self._pause = pause
        self._delay = delay
        self._log = log

    async def create(self, tracked: Tracked, trouble: Callable[[ClientError], None]) -> RemoteJob | None:
        """Create a job at the server, or find the one that was created before.

        Failures of the link are retried without limit.

        Parameters
        ----------
        tracked : `Tracked`
            The job; ``doubtful`` says whether it may exist already.
        trouble : `~collections.abc.Callable`
            Called with every failure of the link.

        Returns
        -------
        created : `RemoteJob` or `None`
            The job; `None` if it is being stopped, and was not created.

        Raises
        ------
        ClientError
            If the server refuses the job.
        """

        def tell(state: tenacity.RetryCallState) -> None:
            assert state.outcome is not None
            if error := state.outcome.exception():
                trouble(error)  # type: ignore[arg-type]

        attempts = retrying(
            self._pause,
            on=(UnreachableError, UnknownError),
            sleep=tracked.nap,
            stop=lambda _: tracked.stopping.is_set(),
            after=tell,
        )
        try:
            async for attempt in attempts:
                with attempt:
                    if tracked.stopping.is_set():
                        return None
                    return await self._create_once(tracked)
        except (UnreachableError, UnknownError):
            # The attempts end with an error only if the job is being stopped.
            pass
        return None

    async def _create_once(self, tracked: Tracked) -> RemoteJob:
        if tracked.doubtful:
            found = await self._finder.find(tracked.job)
            if found:
                await self.stop_others(tracked, found[0].id, found)
                return found[0]
        try:
            return await self._server.create(tracked.job)
        except UnreachableError as error:
            tracked.doubtful = tracked.doubtful or error.sent
            raise

    async def stop_duplicates(self, tracked: Tracked) -> None:
        """Look for a second job after a lost answer, now and once more later, and stop it."""
        for delay in (0.0, self._delay):
            await asyncio.sleep(delay)
            async for attempt in retrying(self._pause, on=ClientError):
                with attempt:
                    found = await self._finder.find(tracked.job)
                    await self.stop_others(tracked, tracked.server_id, found)

    async def stop_others(self, tracked: Tracked, server_id: str, found: list[RemoteJob]) -> None:
        """Stop all jobs of a run id except the one with ``server_id``."""
        for other in found:
            if other.id == server_id or execution_phase(other) in TERMINAL:
                continue
            if other.id not in tracked.duplicates:
                tracked.duplicates.add(other.id)
                self._log.warning(
                    f"Job {tracked.job.id}: the server has a second one, {other.id}, beside "
                    f"{server_id or 'the one that was stopped'}; stopping it"
                )
            with suppress(UnknownError):
                await self._server.delete(other.id)

    async def stop_duplicate(self, tracked: Tracked, other: RemoteJob) -> None:
        """Stop a duplicate job (idempotent)."""
        if other.id not in tracked.duplicates:
            async for attempt in retrying(self._pause, on=ClientError):
                with attempt:
                    await self.stop_others(tracked, tracked.server_id, [other])

    async def stop(self, tracked: Tracked) -> tuple[RemoteJob | None, bool]:
        """Stop a job and wait until it has ended, however long the server is unreachable.

        Returns
        -------
        last : `RemoteJob` or `None`
            The last document of the job; `None` if it was never created.
        finished : `bool`
            Whether the job ended by itself before it could be stopped.
        """
        last: RemoteJob | None = None
        deleted, failures = False, 0
        while True:
            try:
                if not tracked.server_id:
                    found = await self._finder.find(tracked.job) if tracked.doubtful else []
                    if not found:
                        return last, False
                    tracked.server_id = found[0].id
                    await self.stop_others(tracked, tracked.server_id, found)
                seen = await self._server.get(tracked.server_id)
                phase = execution_phase(seen)
                if phase in TERMINAL:
                    own_end = phase != ExecutionPhase.ABORTED
                    # A job whose processes were killed is shown as failed.
                    killed = deleted and phase == ExecutionPhase.ERROR
                    return seen, own_end and not killed
                last = seen
                if not deleted:
                    await self._server.delete(tracked.server_id)
                    deleted = True
                    continue
            except UnknownError:
                return last, False
            except ClientError as error:
                deleted, failures = False, failures + 1
                if failures == 1:
                    self._log.warning(f"Job {tracked.job.id} could not be stopped yet: {error}")
            await asyncio.sleep(min(LONGEST_PAUSE, self._pause * 2 ** min(failures, 4)))
