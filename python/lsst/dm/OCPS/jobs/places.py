# SPDX-License-Identifier: GPL-3.0-or-later
"""Queue places and owners' shares: how many jobs there are, and whether one more is accepted."""

from __future__ import annotations

__all__ = ["Places"]

import contextlib
from collections import Counter
from collections.abc import Iterator, Mapping

from .errors import QueueFullError
from .lane import Lane
from .ledger import Ledger
from .model import Job


class Places:
    """Counts the waiting jobs of each lane and the live jobs of each owner.

    Parameters
    ----------
    ledger : `Ledger`
        All jobs.
    lanes : `~collections.abc.Mapping` [`str`, `Lane`]
        All lanes in use, by key.
    """

    def __init__(self, ledger: Ledger, lanes: Mapping[str, Lane]) -> None:
        self._ledger = ledger
        self._lanes = lanes
        self._owners: Counter[str] = Counter()

    def open(self) -> None:
        """Count the owners of the jobs that the ledger has read."""
        self._owners = Counter(job.owner for job in self._ledger.live.values())

    @contextlib.contextmanager
    def keep(self, lane: Lane, owner: str | None, *, reserved: bool, queue: bool) -> Iterator[None]:
        """Keep a place free while a job is being stored.

        Parameters
        ----------
        lane : `Lane`
            The lane that the job is for.
        owner : `str` or `None`
            The owner of a new job that counts; `None` for a job that exists
            already, or whose owner has no limit.
        reserved : `bool`
            Whether the job may use reserved places.
        queue : `bool`
            Whether the job is to be queued.

        Raises
        ------
        QueueFullError
            If no place is free.
        """
        if queue:
            self._check_queue(lane, reserved)
        if owner is not None:
            mine, limit = self._owners[owner], lane.limits.max_jobs_per_owner
            if limit and mine >= limit:
                raise QueueFullError(f"{mine} of your jobs have not ended; the limit is {limit}")
        lane.waiting += queue
        self._count_owner(owner, 1)
        try:
            yield
        finally:
            lane.waiting -= queue
            self._count_owner(owner, -1)

    def _check_queue(self, lane: Lane, reserved: bool) -> None:
        limits = lane.limits
        if limits.mode == "sync":
            # Jobs of former configurations count too.
            for job in self._ledger.live.values():
                if job.waiting or job.dispatched:
                    raise QueueFullError(f"One job at a time (mode sync), and job {job.id} has not ended yet")
            if any(other.waiting for other in self._lanes.values()):
                raise QueueFullError("One job at a time (mode sync), and another one is being accepted")
        # A job that a free worker takes at once does not wait.
        free, places = limits.max_workers - len(lane.runs), limits.max_queued
        if not reserved:
            free, places = min(free, limits.ordinary_workers - lane.ordinary), limits.ordinary_places
        if lane.waiting >= places + max(0, free):
            raise QueueFullError(f"The queue is full: {lane.waiting} jobs wait; try again later")

    def count(self, old: Job | None, job: Job) -> None:
        """Update the numbers of waiting jobs and of each owner's live jobs."""
        for record, change in ((old, -1), (job, 1)):
            lane = self._lanes.get(record.backend) if record and record.waiting else None
            # A job that is being started is not counted as waiting.
            if lane and job.id not in lane.runs:
                lane.waiting += change
        if old is None:
            self._count_owner(job.owner, 1)
        elif job.terminal and not old.terminal:
            self._count_owner(job.owner, -1)

    def _count_owner(self, owner: str | None, change: int) -> None:
        if owner is not None:
            self._owners[owner] += change
            if not self._owners[owner]:
                del self._owners[owner]
