# This file is part of dm_OCPS.
#
# Developed for the Vera C. Rubin Observatory.
# License: GPL-3.0-or-later; see COPYRIGHT and LICENSE at the top of the repository.
"""Jobs that a UWS server of the Rubin JSON dialect runs.

One loop asks for all jobs. With a handful in flight it asks for each; above
that it asks for one list per phase, and one by one for those that are in none.
A round begins when the last one has been answered, however long that took.

A job that the server cannot be asked about, does not know, or shows as
unknown, is UNKNOWN: a lost link is no result. The engine ends it as ERROR
after the configured time.
"""

from __future__ import annotations

__all__ = ["HANDFUL", "UwsBackend"]

import asyncio
import dataclasses
import logging
from collections import defaultdict
from collections.abc import Collection, Coroutine
from datetime import UTC, datetime
from typing import Any

from ..config import UwsConfig
from ..jobs.backend import Backend, BackendUpdate
from ..jobs.errors import BackendError
from ..jobs.model import ErrorSummary, ExecutionPhase, Job
from .uws_client import LinkError, NotFoundError, RubinClient, ServerError
from .uws_rubin import PHASES, ServerJob, ending, server_info
from .uws_submission import ServerJobs, Tracked, retrying

HANDFUL = 8
"""Up to so many jobs in one phase are asked for one by one."""

ENDS = ("completed", "error")
"""Phases to list where many jobs have left the others; an aborted one is rare."""

LONGEST_MISS = 30.0
"""How long (s), at most, until a job that the server does not know is asked for again."""

CHECK_TIMEOUT = 5.0
"""How long (s) the server may take to answer at ``start`` and ``enable``."""

Phase = ExecutionPhase


class UwsBackend(Backend):
    """Forwards jobs to a UWS server.

    Parameters
    ----------
    url : `str`
        Base address of the server, up to and without ``/job``.
    poll_interval : `float`
        How often to ask (s).
    config : `UwsConfig`
        More about the server.
    log : `logging.Logger`, optional
        Gets what is unusual.
    """

    def __init__(
        self, url: str, poll_interval: float, config: UwsConfig, log: logging.Logger | None = None
    ) -> None:
        self.log = log or logging.getLogger(__name__)
        self.poll_interval = poll_interval
        self.config = config
        self._client = RubinClient(url, config)
        self._server = ServerJobs(self._client, poll_interval, config.timeout, self.log)
        self._jobs: dict[str, Tracked] = {}
        self._tasks: set[asyncio.Task[Any]] = set()
        self._open = False
        self._any = asyncio.Event()
        self._link_words = ""
        # Upstream walks through all jobs' files whatever is asked for; where that
        # takes long, one list with everything is better than one per phase.
        self._slow = False

    @property
    def unreachable_since(self) -> datetime | None:
        since = self._client.unreachable_since
        return None if since is None else datetime.fromtimestamp(since, UTC)

    async def open(self) -> None:
        self._open = True
        self._spawn(self._poll_forever())

    async def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._client.close()

    async def check(self) -> None:
        timeout = min(CHECK_TIMEOUT, self.config.timeout)
        try:
            await self._client.list("executing", timeout=timeout)
        except NotFoundError:
            url = self._client.url
            raise BackendError(f"url {url}: there is no UWS server (HTTP 404 for {url}/job)") from None
        except ServerError as error:
            raise BackendError(f"UWS server {self._client.url}: {error}") from None
        finally:
            if not self._open:
                await self._client.close()

    async def submit(self, job: Job) -> None:
        if "environment" not in job.spec:
            raise BackendError(f"a UWS server runs pipelines only, no {job.spec['kind']}")
        if job.id not in self._jobs:
            tracked = self._track(job)
            tracked.submission = self._spawn(self._submit(tracked))

    async def cancel(self, job: Job) -> None:
        tracked = self._jobs.get(job.id) or self._track(job)
        if not tracked.stopping.is_set():
            tracked.stopping.set()
            self._spawn(self._stop(tracked))

    async def forget(self, job: Job) -> None:
        tracked = self._jobs.get(job.id)
        if tracked and tracked.server_id:
            self._untrack(tracked)
        elif tracked:
            # It must not come to life when the server is back.
            await self.cancel(job)

    async def reattach(self, jobs: Collection[Job]) -> None:
        for job in jobs:
            tracked = self._track(job)
            # Without the server's id nobody knows how far its submission got.
            tracked.doubtful = not tracked.server_id
            tracked.shown = (job.phase, job.message)
            if tracked.doubtful and not job.stopping:
                tracked.submission = self._spawn(self._submit(tracked))

    # One job

    def _track(self, job: Job) -> Tracked:
        tracked = self._jobs[job.id] = Tracked(job, job.handle)
        self._any.set()
        return tracked

    def _untrack(self, tracked: Tracked) -> None:
        self._jobs.pop(tracked.job.id, None)
        if not self._jobs:
            self._any.clear()

    async def _submit(self, tracked: Tracked) -> None:
        job_id = tracked.job.id
        try:
            created = await self._server.create(tracked, lambda error: self._show_trouble(tracked, error))
        except ServerError as error:
            self._untrack(tracked)
            reason = ErrorSummary(f"UWS server {self._client.url} refused the job: {error}")
            self.report(job_id, BackendUpdate(phase=Phase.ERROR, error=reason))
            return
        if created is None:
            return
        tracked.server_id = created.id
        self.report(job_id, BackendUpdate(handle=created.id, info={"uws": self._info(created)}))
        if tracked.doubtful:
            self._spawn(self._settle(tracked))
        if not created.ended:
            self._take(tracked, created)

    async def _settle(self, tracked: Tracked) -> None:
        await self._server.settle(tracked)
        self._tell_duplicates(tracked)

    def _tell_duplicates(self, tracked: Tracked) -> None:
        if tracked.duplicates:
            info = {"duplicates": sorted(tracked.duplicates)}
            self.report(tracked.job.id, BackendUpdate(info=info))

    async def _stop(self, tracked: Tracked) -> None:
        if tracked.submission:
            # It ends with the request that is under way: only its answer
            # tells what there is to be stopped.
            await asyncio.wait({tracked.submission})
        if tracked.job.id not in self._jobs:
            return
        last, finished = await self._server.stop(tracked)
        self._untrack(tracked)
        if last and finished:
            self.report(tracked.job.id, ending(last, self._client.url))
            return
        update = BackendUpdate(phase=Phase.ABORTED)
        if last:
            kept = ending(last, self._client.url)
            info = {**(kept.info or {}), "lastDocument": dict(last.document)}
            # Results that a deletion has taken along are not to be had any more.
            results = kept.results if last.ended else None
            update = dataclasses.replace(update, exit_code=kept.exit_code, results=results, info=info)
        self._tell_duplicates(tracked)
        self.report(tracked.job.id, update)
        if tracked.doubtful:
            # A creation that is still on its way must not run unseen.
            await self._server.settle(tracked)

    def _take(self, tracked: Tracked, found: ServerJob) -> None:
        """Report what the server's own document says of a job."""
        if self._jobs.get(tracked.job.id) is not tracked or tracked.stopping.is_set():
            # Stopped or given up while the answer was on its way.
            return
        tracked.misses = 0
        tracked.phase = found.phase
        if found.run_id and found.run_id != tracked.job.id:
            self._miss(tracked, f"the server's job {found.id} has another run id, {found.run_id!r}")
        elif found.ended:
            self._tell_duplicates(tracked)
            self._untrack(tracked)
            self.report(tracked.job.id, ending(found, self._client.url))
        else:
            self._show(tracked, found.execution_phase, found.remark)

    def _miss(self, tracked: Tracked, reason: str) -> None:
        """Note that the server does not know a job, and ask for it less often."""
        pause = min(LONGEST_MISS, self.poll_interval * 2**tracked.misses)
        tracked.misses += 1
        tracked.due = asyncio.get_running_loop().time() + pause
        self._show(tracked, Phase.UNKNOWN, reason)

    def _show(self, tracked: Tracked, phase: ExecutionPhase, message: str) -> None:
        if tracked.shown != (phase, message) and not tracked.stopping.is_set():
            tracked.shown = (phase, message)
            self.report(tracked.job.id, BackendUpdate(phase=phase, message=message))

    def _show_trouble(self, tracked: Tracked, error: Exception) -> None:
        self._show(tracked, Phase.UNKNOWN, f"not submitted yet: UWS server {self._client.url}: {error}")

    def _info(self, found: ServerJob) -> dict[str, Any]:
        return server_info(found, self._client.url)

    # All jobs

    async def _poll_forever(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await self._any.wait()
            async for attempt in retrying(self.poll_interval, on=ServerError):
                with attempt:
                    begun = loop.time()
                    try:
                        await self._round()
                    except ServerError as error:
                        self._link_lost(error)
                        raise
            self._link_back()
            took = loop.time() - begun
            # A slow server gets a moment's rest all the same.
            await asyncio.sleep(max(self.poll_interval - took, self.poll_interval / 4))

    async def _round(self) -> None:
        """Ask once for all jobs.

        Raises
        ------
        ServerError
            If nothing at all could be learnt.
        """
        time = asyncio.get_running_loop().time()
        wanted = {
            tracked.server_id: tracked
            for tracked in self._jobs.values()
            if tracked.server_id and not tracked.stopping.is_set() and tracked.due <= time
        }
        groups: defaultdict[str, list[Tracked]] = defaultdict(list)
        for tracked in wanted.values():
            # A server knows no phase that is not in the table, also if it has shown one.
            if not tracked.misses and tracked.phase in PHASES:
                groups[tracked.phase].append(tracked)
        phases = [phase for phase, group in groups.items() if len(group) > HANDFUL]
        if phases and self._slow:
            await self._ask_list("", wanted)
        else:
            for phase in phases:
                await self._ask_list(phase, wanted)
            for phase in ENDS:
                # Many at once have left the lists of those that live.
                if phases and len(wanted) > HANDFUL:
                    await self._ask_list(phase, wanted)
        await self._ask_each(list(wanted.values()))

    async def _ask_list(self, phase: str, wanted: dict[str, Tracked]) -> None:
        """Ask for the jobs in one phase, or all; take those that are there out of ``wanted``."""
        loop = asyncio.get_running_loop()
        begun = loop.time()
        try:
            listed = await self._client.list(phase)
        except ServerError as error:
            if isinstance(error, LinkError) and not error.reached:
                raise
            # Upstream's list fails as a whole if one job's folder cannot be read.
            self.log.debug(f"UWS server {self._client.url}: list of jobs {phase}: {error}")
            return
        self._slow = loop.time() - begun > self.poll_interval / 2
        for found in listed:
            if tracked := wanted.get(found.id):
                # Where the list has less than the final document, that is asked for by itself.
                if found.whole or not found.ended:
                    del wanted[found.id]
                    self._take(tracked, found)
            elif (other := self._jobs.get(found.run_id)) and other.server_id not in ("", found.id):
                self._spawn(self._server.stop_duplicate(other, found))

    async def _ask_each(self, tracked: list[Tracked]) -> None:
        """Ask for jobs one by one, a few at a time."""
        waiting = iter(tracked)
        outcomes: list[ServerError | None] = []

        async def ask() -> None:
            for one in waiting:
                # Once nothing answers any more, the others need not wait for it too.
                if not any(isinstance(error, LinkError) and not error.reached for error in outcomes):
                    outcomes.append(await self._ask(one))

        await asyncio.gather(*(ask() for _ in range(min(HANDFUL, len(tracked)))))
        errors = [error for error in outcomes if error]
        if errors and len(errors) == len(outcomes):
            raise errors[0]

    async def _ask(self, tracked: Tracked) -> ServerError | None:
        """Ask for one job; return what went wrong with the link."""
        words = f"UWS server {self._client.url}"
        try:
            found = await self._client.get(tracked.server_id)
        except NotFoundError:
            self._miss(tracked, f"{words} does not know it as {tracked.server_id} any more")
        except ServerError as error:
            self._show(tracked, Phase.UNKNOWN, f"{words}: {error}")
            return error
        else:
            self._take(tracked, found)
        return None

    def _link_lost(self, error: ServerError) -> None:
        words = f"UWS server {self._client.url}: {error}"
        if not self._link_words:
            self.log.warning(f"{words}; trying again")
        self._link_words = words
        for tracked in self._jobs.values():
            if tracked.server_id:
                self._show(tracked, Phase.UNKNOWN, words)

    def _link_back(self) -> None:
        if self._link_words:
            self._link_words = ""
            self.log.info(f"UWS server {self._client.url} answers again")

    def _spawn(self, coroutine: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        task = asyncio.create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._done)
        return task

    def _done(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()):
            self.log.error(f"UWS server {self._client.url}: a task failed", exc_info=error)
