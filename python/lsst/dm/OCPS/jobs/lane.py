# SPDX-License-Identifier: GPL-3.0-or-later
"""A backend with its queue: what `JobManager` keeps for each backend in use."""

from __future__ import annotations

__all__ = ["Lane", "Limits"]

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Literal

from .backend import Backend
from .definition import JobDefinition
from .errors import QueueFullError, RequestError
from .model import now
from .queue import JobQueue


@dataclass(frozen=True, slots=True)
class Limits:
    """How much is taken on, and how long it may last.

    Parameters
    ----------
    max_workers : `int`
        Jobs given to the backend at a time.
    max_queued : `int`
        Jobs that may wait; one more is refused.
    mode : `str`
        ``async``: a queue; ``sync``: one job at a time, others refused.
    newest_first : `bool`
        Order of the queue, see `JobQueue`.
    prerequisite_policy : `str`
        ``finished``: any end of a prerequisite will do; ``completed``: it
        must have completed.
    execution_duration, max_execution_duration : `int`
        Default and longest run time of a job (s); 0 means no limit.
    retention : `float`
        How long after its creation a job's files are kept (s).
    max_retention : `float`
        The longest that may be asked for instead (s).
    keep_jobs : `int`
        How many ended jobs are kept, whatever their age.
    abort_grace : `float`
        How long (s) the backend may take to confirm that a job has stopped.
    unknown_grace : `float`
        How long (s) a job may be UNKNOWN before it counts as failed.
    """

    max_workers: int = 2
    max_queued: int = 1000
    mode: Literal["async", "sync"] = "async"
    newest_first: bool = False
    prerequisite_policy: Literal["finished", "completed"] = "finished"
    execution_duration: int = 0
    max_execution_duration: int = 0
    retention: float = 30 * 86400.0
    max_retention: float = 365 * 86400.0
    keep_jobs: int = 100_000
    abort_grace: float = 8.0
    unknown_grace: float = 3600.0

    def check_duration(self, duration: int | None) -> int:
        """Return the run time (s) to use for a wish; 0 means no limit.

        Raises
        ------
        RequestError
            If it is negative. A longer one than allowed is cut, as UWS wants.
        """
        wish = self.execution_duration if duration is None else duration
        if wish < 0:
            raise RequestError(f"executionDuration is {wish} s; it must be 0 (no limit) or more")
        longest = self.max_execution_duration
        return min(wish or longest, longest) if longest else wish

    def check_destruction(self, time: datetime) -> datetime:
        """Return the destruction time to use for a wish (UTC).

        Raises
        ------
        RequestError
            If it is in the past. A later one than allowed is cut.
        """
        present = now()
        if time <= present:
            raise RequestError(f"destruction {time:%Y-%m-%dT%H:%M:%SZ} is in the past")
        return min(time, present + timedelta(seconds=self.max_retention))


@dataclass(slots=True)
class Lane:
    """One backend in use."""

    key: str
    kind: str
    """Names the backend without its configuration; lanes of the same kind share their workers."""
    backend: Backend
    definitions: Mapping[str, JobDefinition]
    limits: Limits
    queue: JobQueue = field(init=False)
    waiting: set[str] = field(default_factory=set)
    """Queued jobs that the backend does not have, also those with prerequisites."""
    running: set[str] = field(default_factory=set)
    """Jobs that the backend has."""

    def __post_init__(self) -> None:
        self.queue = JobQueue(self.limits.newest_first)

    def definition(self, name: str) -> JobDefinition:
        """Return a definition.

        Raises
        ------
        RequestError
            If there is none of this name.
        """
        try:
            return self.definitions[name]
        except KeyError:
            known = ", ".join(sorted(self.definitions)) or "none"
            raise RequestError(f"No job definition {name!r}; there are: {known}") from None

    def duration(self, definition: str, wish: int | None) -> int:
        """Return the run time (s) that a job of a definition gets; 0 for no limit."""
        found = self.definitions.get(definition)
        return self.limits.check_duration(found.duration(wish) if found else wish)

    def reserve(self, job_id: str) -> None:
        """Take a place in the queue.

        Raises
        ------
        QueueFullError
            If there is none.
        """
        limits = self.limits
        # A job that a free worker takes at once does not wait.
        free = max(0, limits.max_workers - len(self.running))
        if len(self.waiting) >= limits.max_queued + free:
            raise QueueFullError(f"The queue is full: {len(self.waiting)} jobs wait; try again later")
        self.waiting.add(job_id)
