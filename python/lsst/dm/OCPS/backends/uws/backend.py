# SPDX-License-Identifier: GPL-3.0-or-later
"""The forwarding backend: jobs run on a UWS server.

The server may be an OCPS, one of the Rubin JSON dialect, or any of UWS 1.1;
its kind is found from its answers (`UwsServer`). Depending on it, jobs are
followed by one change stream (`StreamWatcher`), by polling (`PollWatcher`),
or with WAIT (`WaitWatcher`).

If the server cannot be reached, does not know a job, or shows it as unknown,
the job is UNKNOWN, because a lost link is not a result. The engine ends it as
ERROR after the configured time.
"""

from __future__ import annotations

__all__ = ["HANDFUL", "UwsBackend"]

import asyncio
import dataclasses
import logging
from collections.abc import AsyncIterator, Collection, Coroutine
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any

from ...client.errors import ClientError, UnknownError
from ...config import UwsConfig
from ...jobs.backend import Backend, BackendUpdate, RemoteFile
from ...jobs.dry_run import DryRun
from ...jobs.errors import BackendError
from ...jobs.model import TERMINAL, ErrorSummary, ExecutionPhase, Job, Result
from .dry_run import dry_run
from .polling import HANDFUL, PollWatcher
from .server import MAX_FILES, Dialect, UwsServer
from .stream import StreamWatcher
from .submission import ServerJobs, Tracked
from .tracking import JobTable
from .updates import ending, execution_phase, in_words, last_seen, server_info
from .waiting import WaitWatcher

CHECK_TIMEOUT = 5.0
"""How long (s) the server may take to answer at ``start`` and ``enable``."""

Phase = ExecutionPhase


class UwsBackend(Backend):
    """Forwards jobs to a UWS server.

    Parameters
    ----------
    url : `str`
        URL of the server; see `UwsServer`.
    poll_interval : `float`
        How often to poll (s).
    config : `UwsConfig`
        More about the server.
    log : `logging.Logger`, optional
        Receives warnings.
    """

    kinds = frozenset({"forwarded", "forwarded_command"})

    def __init__(
        self, url: str, poll_interval: float, config: UwsConfig, log: logging.Logger | None = None
    ) -> None:
        self.log = log or logging.getLogger(__name__)
        self.poll_interval = poll_interval
        self.config = config
        self._server = UwsServer(url, config, self.log)
        self._made = ServerJobs(self._server, poll_interval, config.timeout, self.log)
        self._table = table = JobTable(self._server.url, poll_interval, self.log)
        self._poller = PollWatcher(self._server, table, self._made, poll_interval, self._spawn, self.log)
        self._stream = StreamWatcher(self._poller, self.log)
        self._waiter = WaitWatcher(self._poller)
        self._tasks: set[asyncio.Task[Any]] = set()
        self._open = False

    may_be_away = True

    @property
    def unreachable_since(self) -> datetime | None:
        since = self._server.unreachable_since
        return None if since is None else datetime.fromtimestamp(since, UTC)

    async def open(self) -> None:
        self._open = True
        self._table.report = self.report
        self._spawn(self._watch_forever())

    async def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._server.close()

    async def check(self) -> None:
        timeout = min(CHECK_TIMEOUT, self.config.timeout)
        try:
            await self._server.list("executing", timeout=timeout)
        except UnknownError:
            url = self._server.url
            raise BackendError(
                f"url {url}: there is no UWS server: neither an OCPS, nor the Rubin JSON dialect "
                f"(HTTP 404 for {url}/job), nor a UWS job list"
            ) from None
        except ClientError as error:
            raise BackendError(in_words(self._server.url, error)) from None
        finally:
            if not self._open:
                await self._server.close()

    async def submit(self, job: Job) -> None:
        if job.id not in self._table.jobs:
            tracked = self._table.track(job)
            tracked.submission = self._spawn(self._submit(tracked))

    async def dry_run(self, job: Job) -> DryRun:
        return await dry_run(self._server, job)

    async def cancel(self, job: Job) -> None:
        tracked = self._table.jobs.get(job.id) or self._table.track(job)
        if not tracked.stopping.is_set():
            tracked.stopping.set()
            self._spawn(self._stop(tracked))

    async def forget(self, job: Job) -> None:
        tracked = self._table.jobs.get(job.id)
        if tracked and tracked.server_id:
            self._table.untrack(tracked)
        elif tracked:
            # It must not be submitted when the server answers again.
            await self.cancel(job)

    async def reattach(self, jobs: Collection[Job]) -> None:
        for job in jobs:
            tracked = self._table.track(job)
            # Without the server's id it is not known whether it was submitted.
            tracked.doubtful = not tracked.server_id
            tracked.shown = (job.phase, job.message)
            if tracked.doubtful and not job.stopping:
                tracked.submission = self._spawn(self._submit(tracked))

    @asynccontextmanager
    async def fetch(self, job: Job, result: Result | None, start: int) -> AsyncIterator[RemoteFile | None]:
        url = result.uri if result else self._server.log_url(job.handle) if job.handle else ""
        if self._server.files.locked():
            raise BackendError(
                f"{MAX_FILES} files are being fetched from {self._server.url}; try again later"
            )
        try:
            async with self._server.files, self._server.fetch(url, start) as file:
                yield file
        except ClientError as error:
            raise BackendError(in_words(self._server.url, error)) from None

    # One job

    async def _submit(self, tracked: Tracked) -> None:
        job_id = tracked.job.id
        try:
            created = await self._made.create(tracked, lambda error: self._show_trouble(tracked, error))
        except ClientError as error:
            self._table.untrack(tracked)
            reason = ErrorSummary(f"UWS server {self._server.url} refused the job: {error}")
            self.report(job_id, BackendUpdate(phase=Phase.ERROR, error=reason))
            return
        if created is None:
            return
        tracked.server_id = created.id
        self.report(job_id, BackendUpdate(handle=created.id, info={"uws": server_info(created)}))
        if tracked.doubtful:
            self._spawn(self._look_for_duplicates(tracked))
        if tracked.early and tracked.early.id == created.id:
            self._table.take(tracked, tracked.early)
        elif execution_phase(created) not in TERMINAL:
            self._table.take(tracked, created)
        elif self._server.dialect == Dialect.OURS:
            # The change stream does not repeat its end.
            self._spawn(self._poller.ask(tracked))

    async def _look_for_duplicates(self, tracked: Tracked) -> None:
        await self._made.stop_duplicates(tracked)
        self._table.report_duplicates(tracked)

    async def _stop(self, tracked: Tracked) -> None:
        if tracked.submission:
            # Wait for the answer to the submission, which has the server's id
            # of the job.
            await asyncio.wait({tracked.submission})
        if tracked.job.id not in self._table.jobs:
            return
        last, finished = await self._made.stop(tracked)
        self._table.untrack(tracked)
        if last and finished:
            self.report(tracked.job.id, ending(last))
            return
        update = BackendUpdate(phase=Phase.ABORTED)
        if last:
            kept = ending(last)
            info = {**(kept.info or {}), "lastDocument": last_seen(last)}
            # The deletion has removed the results too.
            results = kept.results if execution_phase(last) in TERMINAL else None
            update = dataclasses.replace(update, exit_code=kept.exit_code, results=results, info=info)
        self._table.report_duplicates(tracked)
        self.report(tracked.job.id, update)
        if tracked.doubtful:
            # A job whose creation is still in progress at the server must not run unnoticed.
            await self._made.stop_duplicates(tracked)

    def _show_trouble(self, tracked: Tracked, error: ClientError) -> None:
        self._table.report_phase(
            tracked, Phase.UNKNOWN, f"not submitted yet: {in_words(self._server.url, error)}"
        )

    async def _watch_forever(self) -> None:
        """Follow all jobs by the method for the kind of server."""
        while True:
            match self._server.dialect:
                case Dialect.OURS:
                    await self._stream.watch()
                case Dialect.XML:
                    await self._waiter.watch()
                case _:
                    await self._poller.watch()

    def _spawn(self, coroutine: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        task = asyncio.create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._done)
        return task

    def _done(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()):
            self.log.error(f"UWS server {self._server.url}: a task failed", exc_info=error)
