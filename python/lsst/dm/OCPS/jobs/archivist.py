# SPDX-License-Identifier: GPL-3.0-or-later
"""The archivist: removes the files of ended jobs in time or for want of space, and deleted jobs."""

from __future__ import annotations

__all__ = ["Archivist"]

import asyncio
import contextlib
import logging
import os
from collections.abc import Awaitable, Callable, Set
from functools import partial

from . import rules
from .errors import StoreError, TransitionError, UnknownJobError
from .kept_space import KeptSpace
from .ledger import Ledger
from .limits import Limits
from .model import TERMINAL, Job, now
from .store import JobQuery
from .workspace import Workspaces

INTERVAL = 60.0
"""How often (s), at least, to look for jobs to archive."""

PAGE = 500
"""How many jobs are looked up at a time."""

LEAST_INTERVAL = 0.05
"""How often (s), at most."""


class Archivist:
    """Archives jobs at their destruction time or when they are too many or too large, and finishes deletions.

    Parameters
    ----------
    ledger : `Ledger`
        All jobs.
    workspaces : `Workspaces`
        Their files.
    abort : `~collections.abc.Callable`
        Aborts a live job: ``await abort(job_id, reason)``.
    limits : `~collections.abc.Callable`
        Returns the present limits.
    unconfirmed : `~collections.abc.Callable`
        Returns the ids of stopped jobs of which something may still run.
        Their records and files are kept, because stopping them needs both.
    log : `logging.Logger`
        Gets errors and warnings.
    """

    def __init__(
        self,
        ledger: Ledger,
        workspaces: Workspaces,
        abort: Callable[[str, str], Awaitable[Job]],
        limits: Callable[[], Limits],
        unconfirmed: Callable[[], Set[str]],
        log: logging.Logger,
    ) -> None:
        self._ledger = ledger
        self._workspaces = workspaces
        self._abort = abort
        self._limits = limits
        self._unconfirmed = unconfirmed
        self._kept = KeptSpace(ledger.store, workspaces)
        ledger.observers.append(self._kept.changed)
        self._log = log
        self._look = asyncio.Event()
        # Archived jobs whose files could not be removed.
        self._remaining: set[str] = set()

    def expect(self, job: Job) -> None:
        """Look for jobs to archive earlier than planned if a job's destruction time is near."""
        if job.destruction and (job.destruction - now()).total_seconds() < INTERVAL:
            self.look()

    def look(self) -> None:
        """Look now for jobs to archive and for deletions to finish."""
        self._look.set()

    async def run(self) -> None:
        """Archive jobs until cancelled."""
        await self._remove_remains()
        while True:
            delay = INTERVAL
            try:
                if await self.sweep():
                    delay = LEAST_INTERVAL
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
        """Remove files of archived jobs that were left behind by a crash, and find those not yet measured."""
        try:
            present = await asyncio.to_thread(self._workspaces.present)
            names = sorted(present)
            for page in (names[start : start + PAGE] for start in range(0, len(names), PAGE)):
                archived = await self._ledger.store.archived(page)
                for job_id in archived:
                    await self._remove_files(job_id)
                await self._kept.look_for_unmeasured(set(page) - archived)
        except FileNotFoundError:
            # A simulation has no work directory.
            return
        except (OSError, StoreError) as error:
            self._log.error(f"Could not look for files of archived jobs: {error}")

    async def sweep(self) -> bool:
        """Archive what is due now, and finish deletions that a crash or a full disk interrupted.

        Returns
        -------
        more : `bool`
            Whether more may be due.
        """
        store, limits = self._ledger.store, self._limits()
        for job in await store.find(JobQuery(deleted=True, phases=[*TERMINAL])):
            await self.finish_deletion(job)
        for job_id in sorted(self._remaining):
            if await self._remove_files(job_id):
                await self._kept.removed([job_id])
        due = [*await store.doomed(now()), *await store.oldest_ended(limits.keep_jobs)]
        for job in due:
            if not job.terminal:
                with contextlib.suppress(TransitionError, UnknownJobError):
                    await self._abort(job.id, "its destruction time has come")
            await self._archive(job.id, "archived")
        await self._kept.removed({job.id for job in due} - self._remaining)
        await self._kept.measure(self._ledger.live)
        excess = await self._kept.excess(limits.keep_space, limits.keep_space_per_owner)
        for job_id, reason in excess.items():
            await self._archive(job_id, reason)
        await self._kept.removed(excess.keys() - self._remaining)
        # Files without a record would never be found.
        needed = self._remaining | self._unconfirmed()
        old = [one for one in await store.oldest_archived(limits.keep_records) if one not in needed]
        for job_id in old:
            await self._ledger.remove(job_id)
        return bool(due or old)

    async def _archive(self, job_id: str, reason: str) -> None:
        """Archive a job that has ended, and remove its files."""
        with contextlib.suppress(TransitionError, UnknownJobError):
            # The record first: files without a record would never be found,
            # but a record without files says so.
            await self._ledger.change(job_id, partial(rules.archived, reason=reason))
            await self._remove_files(job_id)

    async def _remove_files(self, job_id: str) -> bool:
        """Remove the files of an archived job; return whether none remain. `sweep` retries if some do."""
        if job_id in self._unconfirmed():
            self._remaining.add(job_id)
            return False
        await self._workspaces.remove(job_id)
        workspace = self._workspaces.of(job_id)
        # Also a link in place of the directory remains.
        if not (os.path.lexists(workspace.root) or os.path.lexists(workspace.engine)):
            self._remaining.discard(job_id)
            return True
        if job_id not in self._remaining:
            self._log.error(f"Job {job_id} was archived, but its files could not be removed; trying again")
        self._remaining.add(job_id)
        return False

    async def finish_deletion(self, job: Job) -> None:
        """Remove the files of a deleted job, then its record; `sweep` retries if that must wait."""
        if job.id in self._unconfirmed():
            return
        await self._workspaces.remove(job.id)
        if self._workspaces.of(job.id).root.exists():
            self._log.error(f"Job {job.id} was deleted, but its files could not be removed; trying again")
        elif not job.record_needed:
            await self._ledger.remove(job.id)
