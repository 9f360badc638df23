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

DRY_RUNS_PER_OWNER = 2
"""How many dry runs of one owner may be under way; half of the smallest number that a backend takes."""


class Places:
    """Counts the waiting jobs of each lane, and the live jobs and the dry runs of each owner.

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
        self._dry_runs: Counter[str] = Counter()

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
        _add(self._owners, owner, 1)
        try:
            yield
        finally:
            lane.waiting -= queue
            _add(self._owners, owner, -1)

    @contextlib.contextmanager
    def keep_dry_run(self, owner: str | None) -> Iterator[None]:
        """Count a dry run while it is under way.

        Parameters
        ----------
        owner : `str` or `None`
            Who asked for it; `None` for one who has no limit.

        Raises
        ------
        QueueFullError
            If too many of this owner are under way.
        """
        if owner is not None and self._dry_runs[owner] >= DRY_RUNS_PER_OWNER:
            raise QueueFullError(
                f"{DRY_RUNS_PER_OWNER} of your dry runs are under way, which is the limit; try again later"
            )
        _add(self._dry_runs, owner, 1)
        try:
            yield
        finally:
            _add(self._dry_runs, owner, -1)

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
            _add(self._owners, job.owner, 1)
        elif job.terminal and not old.terminal:
            _add(self._owners, job.owner, -1)


def _add(counts: Counter[str], owner: str | None, change: int) -> None:
    """Change an owner's count; owners without any are not kept."""
    if owner is not None:
        counts[owner] += change
        if not counts[owner]:
            del counts[owner]
