# SPDX-License-Identifier: GPL-3.0-or-later
"""The archivist: removes the files of jobs whose destruction time has come, and deleted jobs."""

from __future__ import annotations

__all__ = ["Archivist"]

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable

from . import rules
from .errors import StoreError, TransitionError, UnknownJobError
from .ledger import Ledger
from .model import TERMINAL, Job, now
from .store import JobQuery
from .workspace import Workspaces

INTERVAL = 60.0
"""How often (s), at least, to look for jobs to archive."""

LEAST_INTERVAL = 0.05
"""How often (s), at most."""


class Archivist:
    """Archives jobs at their destruction time or when there are too many, and finishes deletions.

    Parameters
    ----------
    ledger : `Ledger`
        All jobs.
    workspaces : `Workspaces`
        Their files.
    abort : `~collections.abc.Callable`
        Aborts a live job: ``await abort(job_id, reason)``.
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
        """Look for jobs to archive earlier than planned if a job's destruction time is near."""
        if job.destruction and (job.destruction - now()).total_seconds() < INTERVAL:
            self._look.set()

    async def run(self) -> None:
        """Archive jobs until cancelled."""
        await self._remove_remains()
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
                # Any error at all: without this task no files would ever be removed.
                self._log.exception("Could not archive; trying again")
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._look.wait(), delay)
            self._look.clear()

    async def _remove_remains(self) -> None:
        """Remove files of archived jobs that were left behind by a crash."""
        try:
            present = await asyncio.to_thread(self._workspaces.present)
            for job_id in present & await self._ledger.store.archived() if present else ():
                await self._workspaces.remove(job_id)
        except FileNotFoundError:
            # A simulation has no work directory.
            return
        except (OSError, StoreError) as error:
            self._log.error(f"Could not look for files of archived jobs: {error}")

    async def sweep(self) -> None:
        """Archive what is due now, and finish deletions that a crash or a full disk interrupted."""
        store = self._ledger.store
        for job in await store.find(JobQuery(deleted=True, phases=[*TERMINAL])):
            await self.finish_deletion(job)
        for job in await store.doomed(now()) + await store.oldest_ended(self._keep_jobs()):
            with contextlib.suppress(TransitionError, UnknownJobError):
                if not job.terminal:
                    await self._abort(job.id, "its destruction time has come")
                # The record first: files without a record would never be found,
                # but a record without files says so.
                await self._ledger.change(job.id, rules.archived)
                await self._workspaces.remove(job.id)

    async def finish_deletion(self, job: Job) -> None:
        """Remove the files of a deleted job, then its record; `sweep` retries if files remain."""
        await self._workspaces.remove(job.id)
        if self._workspaces.of(job.id).root.exists():
            self._log.error(f"Job {job.id} was deleted, but its files could not be removed; trying again")
        elif not job.record_needed:
            await self._ledger.remove(job.id)
