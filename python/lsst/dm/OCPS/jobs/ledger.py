# SPDX-License-Identifier: GPL-3.0-or-later
"""The records of all jobs: every change is stored here before anyone sees it.

A change is made under the job's lock and stored by compare-and-set. Only then
is it passed on, so what is published is always what is stored.
"""

from __future__ import annotations

__all__ = ["Ledger"]

import asyncio
import dataclasses
import logging
import weakref
from collections import OrderedDict
from collections.abc import Callable

from .changes import Changes
from .errors import StoreError, UnknownJobError
from .model import Job, check_job_id, now
from .rules import Rule
from .spec import UnreadSpec, read_spec
from .store import JobStore

KEPT_ENDED = 1000
"""How many jobs that have ended are kept in memory beside the live ones."""

STORE_RETRY = 2.0
"""How long (s) to wait before a change that could not be stored is tried again."""

OnChange = Callable[[Job | None, Job], None]
"""Called with the old record (`None` for a new job) and the new one."""


class Ledger:
    """All jobs: live ones in memory and in the store, the others in the store only.

    Parameters
    ----------
    store : `JobStore`
        The store of the records.
    log : `logging.Logger`
        Gets one line per change of phase.
    on_change : `~collections.abc.Callable`, optional
        Called after each change, before waiters and subscribers get it.
    """

    def __init__(self, store: JobStore, log: logging.Logger, on_change: OnChange | None = None) -> None:
        self.store = store
        self.live: dict[str, Job] = {}
        """The live jobs by id: the one place in memory for their records."""
        self.changes = Changes()
        self.on_change = on_change
        self.observers: list[OnChange] = []
        """Called after each change, for statistics."""
        self._log = log
        self._locks: weakref.WeakValueDictionary[str, asyncio.Lock] = weakref.WeakValueDictionary()
        self._sequence = 0
        # Jobs that ended recently are requested more often than others.
        self._ended: OrderedDict[str, Job] = OrderedDict()
        self._withdrawing: set[asyncio.Task[None]] = set()

    async def open(self) -> None:
        """Read the live jobs from the store."""
        self._sequence = await self.store.last_sequence()
        self.live = {job.id: job for job in await self.store.live()}

    def read_specs(self, backend: str) -> None:
        """Read the specs of a backend whose package was not loaded when the store was read."""
        for job in list(self.live.values()):
            if job.backend == backend and isinstance(job.spec, UnreadSpec):
                self.live[job.id] = dataclasses.replace(job, spec=read_spec(job.spec.document()))

    async def close(self) -> None:
        """End all subscriptions and stop."""
        self.changes.close()
        for task in self._withdrawing:
            task.cancel()
        await asyncio.gather(*self._withdrawing, return_exceptions=True)

    def at_hand(self, job_id: str) -> Job | None:
        """Return a job as it is now if its record is in memory: it has not ended, or ended recently."""
        return self.live.get(job_id) or self._ended.get(job_id)

    async def get(self, job_id: str) -> Job:
        """Return a job as it is now, even a deleted one whose record still exists.

        Raises
        ------
        UnknownJobError
            If no job has this id.
        """
        job = self.at_hand(job_id) or await self.store.get(check_job_id(job_id))
        if job is None:
            raise UnknownJobError(job_id)
        return job

    async def insert(self, job: Job) -> Job:
        """Store a new job, and pass it on.

        Raises
        ------
        StoreError
            If the job could not be stored; it will not run.
        """
        job = dataclasses.replace(job, sequence=self._next_sequence())
        try:
            await self.store.insert(job)
        except BaseException:
            # After a broken connection or a cancellation the job may be in
            # the store all the same, and the next start would run it.
            task = asyncio.create_task(self._withdraw(job))
            self._withdrawing.add(task)
            task.add_done_callback(self._withdrawing.discard)
            raise
        self._show(None, job)
        return job

    async def change(self, job_id: str, rule: Rule) -> Job:
        """Apply a rule to a job, store the new record, and return it.

        Raises
        ------
        TransitionError
            If the rule refuses the change.
        UnknownJobError
            If there is no such job.
        StoreError
            If the change could not be stored; nothing was changed.
        """
        lock = self._locks.get(job_id)
        if lock is None:
            lock = self._locks[job_id] = asyncio.Lock()
        async with lock:
            # Twice, because the store can differ from memory: after a broken
            # connection or a cancellation the last change may or may not have
            # been stored.
            for _ in range(2):
                old = await self.get(job_id)
                new = rule(old, now())
                if new is None:
                    return old
                new = dataclasses.replace(new, sequence=self._next_sequence())
                if await self.store.replace(old, new):
                    self._show(old, new)
                    return new
                await self._refresh(old)
        raise StoreError(f"Job {job_id} was changed in the store by another program")

    async def persist(self, job_id: str, rule: Rule) -> Job:
        """Apply a rule to a job, and retry until the store accepts it.

        For facts that cannot be refused: the end of a job must not be lost to
        a full disk.
        """
        while True:
            try:
                return await self.change(job_id, rule)
            except StoreError as error:
                self._log.error(f"Job {job_id}: {error}; trying again in {STORE_RETRY:g} s")
                await asyncio.sleep(STORE_RETRY)

    async def remove(self, job_id: str) -> None:
        """Remove the record of a job that has ended."""
        await self.store.delete(job_id)
        self._ended.pop(job_id, None)

    async def wait(self, job_id: str, timeout: float | None, done: Callable[[Job], bool]) -> Job:
        """Wait until ``done`` is true of a job or it ends, at most ``timeout`` (s); return it then."""
        loop = asyncio.get_running_loop()
        end = None if timeout is None else loop.time() + timeout
        job = await self.get(job_id)
        while not done(job):
            left = None if end is None else end - loop.time()
            if job.terminal or (left is not None and left <= 0):
                break
            # There is no await between reading the record and this line, so no change is missed.
            found = await self.changes.next(job_id, left)
            if found is None:
                break
            # The job may have changed again before this task was resumed.
            job = found if found.terminal else self.live.get(job_id) or await self.get(job_id)
        return job

    async def _refresh(self, old: Job) -> None:
        """Read a job's record again from the store, and pass it on."""
        found = await self.store.get(old.id)
        if found is None:
            self.live.pop(old.id, None)
            raise UnknownJobError(old.id)
        self._show(old, found)

    async def _withdraw(self, job: Job) -> None:
        """Remove a refused job from the store; retry until that succeeds."""
        while True:
            try:
                await self.store.withdraw(job)
                return
            except StoreError:
                await asyncio.sleep(STORE_RETRY)

    def _next_sequence(self) -> int:
        self._sequence += 1
        return self._sequence

    def _show(self, old: Job | None, new: Job) -> None:
        if new.terminal:
            self.live.pop(new.id, None)
            self._ended.pop(new.id, None)
            if not new.deleted:
                self._ended[new.id] = new
                if len(self._ended) > KEPT_ENDED:
                    self._ended.popitem(last=False)
        else:
            self.live[new.id] = new
        if old is None or old.phase != new.phase:
            reason = new.error.message.splitlines()[0] if new.error else new.message
            words = f"Job {new.id} {new.phase}{': ' if reason else ''}{reason}"
            self._log.info(words, extra={"job_id": new.id, "owner": new.owner})
        if self.on_change:
            self.on_change(old, new)
        for observe in self.observers:
            observe(old, new)
        self.changes.show(new)
