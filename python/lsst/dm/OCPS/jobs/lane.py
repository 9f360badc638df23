# SPDX-License-Identifier: GPL-3.0-or-later
"""Lanes: each is a backend in use, with its queue and the jobs that it runs."""

from __future__ import annotations

__all__ = ["Lane", "Run"]

import asyncio
import dataclasses
import heapq
import itertools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from . import rules
from .backend import Backend
from .definition import JobDefinition
from .errors import RequestError
from .limits import Limits
from .model import Job, JobRequest, now
from .spec import Spec

Entry = tuple[int, int, str]
"""Priority (smaller first), number, job id."""

Waits = Callable[[str], Job | None]
"""Returns the record of a job that still waits for a worker, else `None`."""


@dataclass(slots=True)
class Run:
    """The scheduler's data about a job that the backend has, beside its record.

    Parameters
    ----------
    reserved : `bool`
        Whether the job may use reserved workers.
    starting : `asyncio.Task` or `None`
        Passes the job to the backend.
    began : `float` or `None`
        When the job began to run (s, time of the event loop).
    deadline, lost : `asyncio.TimerHandle` or `None`
        Stop the job when it has run too long, and end it when it has been
        UNKNOWN too long.
    """

    reserved: bool = False
    starting: asyncio.Task[Any] | None = None
    began: float | None = None
    deadline: asyncio.TimerHandle | None = None
    lost: asyncio.TimerHandle | None = None

    def cancel_timers(self) -> None:
        """Cancel all timers."""
        for timer in (self.deadline, self.lost):
            if timer:
                timer.cancel()


@dataclass(slots=True)
class Lane:
    """One backend in use.

    Parameters
    ----------
    key : `str`
        Name of the backend with its configuration.
    kind : `str`
        Name of the backend alone; lanes of the same kind share their workers.
    backend : `Backend`
        The backend, open.
    definitions : `~collections.abc.Mapping` [`str`, `JobDefinition`]
        What may be requested.
    limits : `Limits`
        Its limits.
    """

    key: str
    kind: str
    backend: Backend
    definitions: Mapping[str, JobDefinition]
    limits: Limits
    runs: dict[str, Run] = field(default_factory=dict)
    """Jobs that the backend has or is being passed, by id."""
    waiting: int = 0
    """How many jobs wait for a worker or for prerequisites, including jobs that are being accepted."""
    ordinary: int = 0
    """How many of ``runs`` may not use reserved workers."""
    _heaps: tuple[list[Entry], list[Entry]] = field(default_factory=lambda: ([], []))
    _count: itertools.count[int] = field(default_factory=itertools.count)

    def definition(self, name: str) -> JobDefinition:
        """Return a definition.

        Raises
        ------
        RequestError
            If no definition has this name.
        """
        try:
            return self.definitions[name]
        except KeyError:
            known = ", ".join(sorted(self.definitions)) or "none"
            raise RequestError(f"No job definition {name!r}; there are: {known}") from None

    def duration(self, definition: str, wish: int | None) -> int:
        """Return the longest run time (s) of a job of a definition; 0 for no limit."""
        found = self.definitions.get(definition)
        return self.limits.duration(found.duration(wish) if found else wish)

    async def spec(self, definition: JobDefinition, request: JobRequest, job_id: str) -> Spec:
        """Return the spec that a definition makes of a request.

        Raises
        ------
        RequestError
            If something in the request is wrong, or the backend does not run
            jobs of this kind.
        """
        spec = await definition.resolve(request, job_id)
        if spec.kind not in self.backend.kinds:
            known = ", ".join(sorted(self.backend.kinds)) or "none"
            raise RequestError(
                f"{definition.name}: jobs of kind {spec.kind} do not run on the backend {self.kind}; "
                f"it runs: {known}",
                "definition",
            )
        return spec

    async def record(
        self, definition: JobDefinition, request: JobRequest, job_id: str, *, run: bool, message: str
    ) -> Job:
        """Return the first record of a job, which is not stored yet; errors are those of `spec`.

        Parameters
        ----------
        definition : `JobDefinition`
            The definition, which has checked the request.
        request : `JobRequest`
            The request.
        job_id : `str`
            The job's id.
        run : `bool`
            Whether the job is to be queued; otherwise it has no spec yet.
        message : `str`
            What it waits for.
        """
        time = now()
        return rules.created(
            dataclasses.replace(request, priority=request.priority or definition.priority),
            time,
            job_id=job_id,
            backend=self.key,
            spec=await self.spec(definition, request, job_id) if run else None,
            execution_duration=self.duration(request.definition, request.execution_duration),
            destruction=self.limits.destruction(request.destruction, time),
            message=message,
            retries=definition.retries,
        )

    def begin(self, job: Job) -> Run:
        """Assign a worker to a job."""
        run = self.runs[job.id] = Run(job.reserved)
        self.ordinary += not job.reserved
        return run

    def end(self, job_id: str) -> None:
        """Release the worker of a job; no effect if it has none."""
        run = self.runs.pop(job_id, None)
        if run:
            self.ordinary -= not run.reserved
            run.cancel_timers()

    # The queue: one heap for ordinary jobs, one for those that may use
    # reserved workers. An entry may be out of date: the job's record alone
    # says whether it still waits.

    def push(self, job: Job) -> None:
        """Queue a job for the next free worker."""
        number = next(self._count)
        entry = (-job.priority, -number if self.limits.newest_first else number, job.id)
        heapq.heappush(self._heaps[job.reserved], entry)

    def pop(self, waits: Waits, *, reserved_only: bool = False) -> Job | None:
        """Remove and return the next job.

        Parameters
        ----------
        waits : `~collections.abc.Callable`
            Returns the record of a job that still waits.
        reserved_only : `bool`
            Whether to consider only jobs that may use reserved workers.

        Returns
        -------
        job : `Job` or `None`
            The job; `None` if no job waits.
        """
        heaps = [heap for heap in self._heaps[reserved_only:] if self._first(heap, waits)]
        return waits(heapq.heappop(min(heaps))[2]) if heaps else None

    def order(self, waits: Waits) -> list[str]:
        """Return the ids of the jobs that wait for a worker, the next one first."""
        # A job that was held and released has several entries, of which the first counts.
        ids = dict.fromkeys(entry[2] for entry in sorted(itertools.chain(*self._heaps)))
        return [job_id for job_id in ids if job_id not in self.runs and waits(job_id)]

    def _first(self, heap: list[Entry], waits: Waits) -> Entry | None:
        """Return the first entry of a heap whose job still waits; remove outdated ones before it."""
        if len(heap) > 64 + 2 * self.waiting:
            heap[:] = [entry for entry in heap if waits(entry[2])]
            heapq.heapify(heap)
        while heap and (heap[0][2] in self.runs or not waits(heap[0][2])):
            heapq.heappop(heap)
        return heap[0] if heap else None
