# SPDX-License-Identifier: GPL-3.0-or-later
"""The jobs that wait for a free worker, in the order in which they run."""

from __future__ import annotations

__all__ = ["JobQueue"]

import heapq
import itertools


class JobQueue:
    """Ids by priority, then by age.

    Parameters
    ----------
    newest_first : `bool`
        Whether of two jobs of the same priority the newer one goes first:
        wavefront work wants the present exposure, not the last one.
    """

    def __init__(self, newest_first: bool = False) -> None:
        self._heap: list[tuple[int, int, str]] = []
        self._waiting: set[str] = set()
        self._count = itertools.count()
        self._sign = -1 if newest_first else 1

    def __len__(self) -> int:
        return len(self._waiting)

    def push(self, job_id: str, priority: int) -> None:
        """Add a job; no effect if it is there."""
        if job_id in self._waiting:
            return
        self._waiting.add(job_id)
        heapq.heappush(self._heap, (-priority, self._sign * next(self._count), job_id))

    def discard(self, job_id: str) -> None:
        """Take a job out; no effect if it is not there."""
        # Its entry stays in the heap until it comes up, or until such entries
        # are the greater part of it.
        self._waiting.discard(job_id)
        if len(self._heap) > 64 and len(self._heap) > 2 * len(self._waiting):
            self._heap = [entry for entry in self._heap if entry[2] in self._waiting]
            heapq.heapify(self._heap)

    def pop(self) -> str | None:
        """Take out and return the job that is next, `None` if there is none."""
        while self._heap:
            job_id = heapq.heappop(self._heap)[2]
            if job_id in self._waiting:
                self._waiting.remove(job_id)
                return job_id
        return None
