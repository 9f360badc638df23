# SPDX-License-Identifier: GPL-3.0-or-later
"""The end of a job's stay: its files go, its record stays."""

from __future__ import annotations

__all__ = ["Archivist"]

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable

from .errors import StoreError, TransitionError, UnknownJobError
from .ledger import Ledger
from .model import ExecutionPhase, Job, now
from .workspace import Workspaces

INTERVAL = 60.0
"""How often (s), at least, to look for jobs whose destruction time has come."""

LEAST_INTERVAL = 0.05
"""How often (s), at most."""


class Archivist:
    """Archives the jobs whose time has come or that are too many.

    Parameters
    ----------
    ledger : `Ledger`
        All jobs.
    workspaces : `Workspaces`
        Their files.
    abort : `~collections.abc.Callable`
        Stops a job that still runs: ``await abort(job_id, reason)``.
    keep_jobs : `~collections.abc.Callable`
        Returns how many ended jobs are kept, whatever their age.
    log : `logging.Logger`
        Gets what goes wrong.
    """

    def __init__(
        self,
        ledger: Ledger,
        workspaces: Workspaces,
        abort: Callable[[str, str], Awaitable[Job]],
        keep_jobs: Callable[[], int],
        log: logging.Logger,
    ) -> None:
        self._ledger = ledger
        self._workspaces = workspaces
        self._abort = abort
        self._keep_jobs = keep_jobs
        self._log = log
        self._look = asyncio.Event()

    def expect(self, job: Job) -> None:
        """Take note of a job's destruction time."""
        if job.destruction and (job.destruction - now()).total_seconds() < INTERVAL:
            self._look.set()

    async def run(self) -> None:
        """Archive for ever."""
        while True:
            delay = INTERVAL
            try:
                await self.sweep()
                due = await self._ledger.store.next_destruction()
                if due is not None:
                    delay = min(delay, max(LEAST_INTERVAL, (due - now()).total_seconds()))
            except StoreError as error:
                self._log.error(f"Could not look for jobs to archive: {error}")
            except Exception:
                # Whatever it was: without this task no file would ever go.
                self._log.exception("Could not archive; trying again")
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._look.wait(), delay)
            self._look.clear()

    async def sweep(self) -> None:
        """Archive what is due now."""
        store = self._ledger.store
        for job in await store.doomed(now()) + await store.oldest_ended(self._keep_jobs()):
            with contextlib.suppress(TransitionError, UnknownJobError):
                if not job.terminal:
                    await self._abort(job.id, "its destruction time has come")
                # The record goes first: files without a record are found and
                # removed by nobody, but a record without files says so.
                await self._ledger.change(
                    job.id,
                    lambda _: {"phase": ExecutionPhase.ARCHIVED, "results": (), "message": "archived"},
                )
                await self._workspaces.remove(job.id)
