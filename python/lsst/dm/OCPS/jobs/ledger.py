# SPDX-License-Identifier: GPL-3.0-or-later
"""The one place where a job's record is changed and the change is shown.

A change is made under the job's lock, stored by compare-and-set, and only
then seen by anybody; so what is published is always what is stored.
"""

from __future__ import annotations

__all__ = ["Ledger"]

import asyncio
import dataclasses
import logging
import weakref
from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import Any

from .changes import Changes
from .errors import StoreError, UnknownJobError
from .model import TERMINAL, ExecutionPhase, Job, check_job_id, check_transition, now
from .store import JobStore

KEPT_ENDED = 1000
"""How many jobs that have ended are kept in memory beside those that live."""

Make = Callable[[Job], Mapping[str, Any] | None]
"""Says what to change in a job: fields by name, `None` for nothing.

It may raise to refuse; then nothing is changed.
"""


class Ledger:
    """All jobs: those that live in memory too, the others in the store only.

    Parameters
    ----------
    store : `JobStore`
        Where they are kept.
    settled : `~collections.abc.Callable`
        Called with the old record (`None` for a new job) and the new one
        after each change, before anybody else sees it.
    log : `logging.Logger`
        Gets one line per change of phase.
    """

    def __init__(
        self, store: JobStore, settled: Callable[[Job | None, Job], None], log: logging.Logger
    ) -> None:
        self.store = store
        self.live: dict[str, Job] = {}
        self.changes = Changes()
        self._settled = settled
        self._log = log
        self._locks: weakref.WeakValueDictionary[str, asyncio.Lock] = weakref.WeakValueDictionary()
        self._sequence = 0
        # Jobs that have ended a short time ago are asked for more than others.
        self._ended: OrderedDict[str, Job] = OrderedDict()

    async def open(self) -> None:
        """Read what the store has."""
        self._sequence = await self.store.last_sequence()
        self.live = {job.id: job for job in await self.store.live()}

    async def get(self, job_id: str) -> Job:
        """Return a job as it is now, also one that is shown no more.

        Raises
        ------
        UnknownJobError
            If there is none of this id.
        """
        job = self.live.get(job_id) or self._ended.get(job_id) or await self.store.get(check_job_id(job_id))
        if job is None:
            raise UnknownJobError(job_id)
        return job

    async def insert(self, job: Job) -> Job:
        """Store a new job and show it."""
        job = dataclasses.replace(job, sequence=self._next_sequence())
        await self.store.insert(job)
        self._show(None, job)
        return job

    async def change(self, job_id: str, make: Make) -> Job:
        """Change a job as ``make`` says; return it as it is then.

        Raises
        ------
        TransitionError
            If its phase may not change that way.
        UnknownJobError
            If there is no such job.
        StoreError
            If the change could not be stored; nothing was changed.
        """
        lock = self._locks.get(job_id)
        if lock is None:
            lock = self._locks[job_id] = asyncio.Lock()
        async with lock:
            old = await self.get(job_id)
            fields = make(old)
            if fields is None:
                return old
            new = self._changed(old, fields)
            if not await self.store.replace(old, new):
                await self._refresh(old)
                raise StoreError(f"Job {job_id} was changed in the store behind OCPS's back")
            self._show(old, new)
            return new

    async def _refresh(self, old: Job) -> None:
        """Take over what the store has of a job.

        A connection that broke in the middle of a commit leaves open whether
        the change is there; here one sees that it was.
        """
        found = await self.store.get(old.id)
        if found is None:
            self.live.pop(old.id, None)
            raise UnknownJobError(old.id)
        self._show(old, found)

    async def wait(self, job_id: str, timeout: float | None, done: Callable[[Job], bool]) -> Job:
        """Wait until ``done`` says so of a job, at most ``timeout`` (s); return it as it is then."""
        loop = asyncio.get_running_loop()
        end = None if timeout is None else loop.time() + timeout
        job = await self.get(job_id)
        while not done(job):
            left = None if end is None else end - loop.time()
            if job.phase in TERMINAL or (left is not None and left <= 0):
                break
            # No await since the record was looked at: no change slips by.
            found = await self.changes.next(job_id, left)
            if found is None:
                break
            # More may have happened to it before this task had its turn.
            job = found if found.terminal else self.live.get(job_id) or await self.get(job_id)
        return job

    def _changed(self, old: Job, fields: Mapping[str, Any]) -> Job:
        fields = {**fields, "sequence": self._next_sequence()}
        phase: ExecutionPhase = fields.get("phase", old.phase)
        if phase != old.phase:
            check_transition(old.phase, phase)
            fields["phase_time"] = time = now()
            if phase == ExecutionPhase.EXECUTING and old.start_time is None:
                fields.setdefault("start_time", time)
            if phase in TERMINAL and old.phase not in TERMINAL:
                fields["final_phase"] = phase
                fields.setdefault("end_time", time)
        return dataclasses.replace(old, **fields)

    def _keep(self, job: Job) -> None:
        """Keep a job that has ended at hand, until others have taken its place."""
        self._ended.pop(job.id, None)
        if not job.deleted:
            self._ended[job.id] = job
            if len(self._ended) > KEPT_ENDED:
                self._ended.popitem(last=False)

    def _next_sequence(self) -> int:
        self._sequence += 1
        return self._sequence

    def _show(self, old: Job | None, new: Job) -> None:
        if new.terminal:
            self.live.pop(new.id, None)
            self._keep(new)
        else:
            self.live[new.id] = new
        if old is None or old.phase != new.phase:
            reason = new.error.message.splitlines()[0] if new.error else new.message
            self._log.info(f"Job {new.id} {new.phase}{': ' if reason else ''}{reason}")
        self._settled(old, new)
        self.changes.show(new)
