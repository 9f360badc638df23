# SPDX-License-Identifier: GPL-3.0-or-later
"""Taking jobs on: what every new job is checked for, and its first record."""

from __future__ import annotations

__all__ = ["Acceptance"]

import contextlib
import dataclasses
from collections.abc import Collection, Iterator, Mapping
from datetime import timedelta
from typing import Any

from .archivist import Archivist
from .dispatcher import Dispatcher
from .errors import QueueFullError, RequestError, StoreError, UnknownJobError
from .file_access import look_at_files
from .lane import Lane
from .model import ExecutionPhase, Job, JobRequest, now
from .workspace import Workspaces


class Acceptance:
    """Checks what is asked for and takes it down.

    Parameters
    ----------
    dispatcher : `Dispatcher`
        Knows what runs and what waits.
    archivist : `Archivist`
        Wants to know of each destruction time.
    workspaces : `Workspaces`
        Jobs' files.
    """

    def __init__(self, dispatcher: Dispatcher, archivist: Archivist, workspaces: Workspaces) -> None:
        self._dispatcher = dispatcher
        self._ledger = dispatcher.ledger
        self._archivist = archivist
        self._workspaces = workspaces

    def new_job(
        self, lane: Lane, job_id: str, request: JobRequest, phase: ExecutionPhase, spec: Mapping[str, Any]
    ) -> Job:
        """Return the first record of a job.

        Raises
        ------
        RequestError
            If a time that was asked for is wrong.
        """
        time = now()
        destruction = request.destruction or time + timedelta(seconds=lane.limits.retention)
        job = Job(
            id=job_id,
            definition=request.definition,
            phase=phase,
            parameters=dict(request.parameters),
            spec=spec,
            backend=lane.key,
            creation_time=time,
            phase_time=time,
            run_id=request.run_id,
            owner=request.owner,
            origin=request.origin,
            priority=request.priority,
            prerequisites=request.prerequisites,
            execution_duration=lane.duration(request.definition, request.execution_duration),
            destruction=lane.limits.check_destruction(destruction),
        )
        message = "" if phase == ExecutionPhase.PENDING else self._dispatcher.obstacle(job)
        return dataclasses.replace(job, message=message)

    async def insert(self, job: Job) -> Job:
        """Store a new job; return it as it is then.

        Raises
        ------
        StoreError
            If it cannot be stored, or the disk has no room for new jobs.
        """
        if obstacle := await look_at_files(self._workspaces.obstacle):
            raise StoreError(f"No new jobs: {obstacle}")
        job = await self._ledger.insert(job)
        self._archivist.expect(job)
        return job

    async def check_prerequisites(self, job_id: str, prerequisites: Collection[str]) -> None:
        """Raise `RequestError` if a job is to wait for itself or for one that does not exist."""
        for other in prerequisites:
            if other == job_id:
                raise RequestError(f"prereq_jobs: job {job_id} cannot wait for itself")
            try:
                deleted = (await self._ledger.get(other)).deleted
            except (UnknownJobError, RequestError):
                deleted = True
            if deleted:
                raise RequestError(f"prereq_jobs: no such job: {other!r}")

    @contextlib.contextmanager
    def place(self, lane: Lane, job_id: str) -> Iterator[None]:
        """Take a place in the queue; give it back if the job is not stored.

        Raises
        ------
        QueueFullError
            If there is none.
        """
        if lane.limits.mode == "sync":
            # Jobs of former configurations count too.
            for other in self._dispatcher.lanes.values():
                if busy := next(iter(other.running or other.waiting), ""):
                    raise QueueFullError(f"One job at a time (mode sync), and job {busy} has not ended yet")
        lane.reserve(job_id)
        try:
            yield
        except BaseException:
            lane.waiting.discard(job_id)
            raise
