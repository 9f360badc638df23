# SPDX-License-Identifier: GPL-3.0-or-later
"""The table of jobs in flight at a UWS server, and the reports about them."""

from __future__ import annotations

__all__ = ["JobTable"]

import asyncio
import logging
from collections.abc import Iterator
from contextlib import contextmanager

from ...client.documents import Progress, RemoteJob
from ...client.errors import ClientError
from ...jobs import model
from ...jobs.backend import BackendUpdate, Report
from ...jobs.model import TERMINAL, ExecutionPhase, Job
from .submission import Tracked
from .updates import ending, execution_phase, in_words, remark

LONGEST_MISS = 30.0
"""How long (s), at most, until a job that the server does not know is requested again."""

Phase = ExecutionPhase


class JobTable:
    """All jobs in flight.

    Parameters
    ----------
    url : `str`
        The server's URL, without credentials.
    pause : `float`
        First pause (s) before a job that the server did not know is requested again.
    log : `logging.Logger`
        Receives a line when the link is lost, and when the server answers again.
    """

    report: Report
    """Set before the first job is added."""

    def __init__(self, url: str, pause: float, log: logging.Logger) -> None:
        self.url = url
        self.jobs: dict[str, Tracked] = {}
        self.any = asyncio.Event()
        """Set while there are jobs."""
        self._pause = pause
        self._log = log
        self._link_words = ""

    def track(self, job: Job) -> Tracked:
        """Add a job."""
        tracked = self.jobs[job.id] = Tracked(job, job.handle)
        self.any.set()
        return tracked

    def untrack(self, tracked: Tracked) -> None:
        """Remove a job."""
        self.jobs.pop(tracked.job.id, None)
        if not self.jobs:
            self.any.clear()

    def by_server_id(self, server_id: str) -> Tracked | None:
        """Return the job with an id of the server, if it is in the table."""
        return next((tracked for tracked in self.jobs.values() if tracked.server_id == server_id), None)

    def wanted(self) -> list[Tracked]:
        """Return the jobs to request now."""
        time = asyncio.get_running_loop().time()
        return [
            tracked
            for tracked in self.jobs.values()
            if tracked.server_id and not tracked.stopping.is_set() and tracked.due <= time
        ]

    def take(self, tracked: Tracked, found: RemoteJob) -> None:
        """Report a job as in the server's document."""
        if self.jobs.get(tracked.job.id) is not tracked or tracked.stopping.is_set():
            # It was stopped or removed before the answer arrived.
            return
        tracked.misses = 0
        tracked.phase = found.phase
        if found.run_id and found.run_id != tracked.job.id:
            self.miss(tracked, f"the server's job {found.id} has another run id, {found.run_id!r}")
        elif execution_phase(found) in TERMINAL:
            self.report_duplicates(tracked)
            self.untrack(tracked)
            self.report(tracked.job.id, ending(found))
        else:
            self._report_progress(tracked, found.progress)
            self.report_phase(tracked, execution_phase(found), remark(found))

    def miss(self, tracked: Tracked, reason: str) -> None:
        """Report a job as UNKNOWN with a reason, and request it less often."""
        pause = min(LONGEST_MISS, self._pause * 2**tracked.misses)
        tracked.misses += 1
        tracked.due = asyncio.get_running_loop().time() + pause
        self.report_phase(tracked, Phase.UNKNOWN, reason)

    def report_missing(self, tracked: Tracked) -> None:
        """Report that the server does not know a job any more."""
        self.miss(tracked, f"UWS server {self.url} does not know it as {tracked.server_id} any more")

    def _report_progress(self, tracked: Tracked, progress: Progress) -> None:
        if progress != tracked.progress:
            tracked.progress = progress
            shown = model.Progress(progress.done, progress.failed, progress.total)
            self.report(tracked.job.id, BackendUpdate(progress=shown))

    def report_phase(self, tracked: Tracked, phase: ExecutionPhase, message: str) -> None:
        """Report phase and message, if they are new."""
        if tracked.shown != (phase, message) and not tracked.stopping.is_set():
            tracked.shown = (phase, message)
            self.report(tracked.job.id, BackendUpdate(phase=phase, message=message))

    def report_duplicates(self, tracked: Tracked) -> None:
        """Report the duplicates of a job that were found at the server."""
        if tracked.duplicates:
            info = {"duplicates": sorted(tracked.duplicates)}
            self.report(tracked.job.id, BackendUpdate(info=info))

    @contextmanager
    def asking(self) -> Iterator[None]:
        """Report all jobs as UNKNOWN if the server does not answer; log when it answers again."""
        try:
            yield
        except ClientError as error:
            self._link_lost(error)
            raise
        if self._link_words:
            self._link_words = ""
            self._log.info(f"UWS server {self.url} answers again")

    def _link_lost(self, error: ClientError) -> None:
        words = in_words(self.url, error)
        if not self._link_words:
            self._log.warning(f"{words}; trying again")
        self._link_words = words
        for tracked in self.jobs.values():
            if tracked.server_id:
                self.report_phase(tracked, Phase.UNKNOWN, words)
