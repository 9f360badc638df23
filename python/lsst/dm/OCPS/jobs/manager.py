# SPDX-License-Identifier: GPL-3.0-or-later
"""The engine's public interface."""

from __future__ import annotations

__all__ = ["JobManager"]

import asyncio
import contextlib
import dataclasses
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Collection, Mapping
from functools import partial
from typing import Any

from . import rules
from .archivist import Archivist
from .backend import BackendUpdate
from .changes import Subscription
from .dry_run import DryRun, dry_run_id
from .errors import BackendError, StoreError, TransitionError, UnknownJobError
from .file_access import look_at_files
from .lane import Lane
from .lease import Lease
from .ledger import Ledger
from .model import (
    TERMINAL,
    ErrorSummary,
    ExecutionPhase,
    Job,
    JobRequest,
    Progress,
    check_job_id,
    now,
)
from .parts import Parts
from .query import JobEntry, JobQuery, JobSummary
from .scheduler import Scheduler
from .store import JobStore
from .workspace import Workspaces

Phase = ExecutionPhase

CHANGES_PAGE = 200
"""How many changed jobs are read from the store at a time."""


class JobManager:
    """The engine: accepts jobs, runs them on a backend, and ends each exactly once.

    Parameters
    ----------
    store : `JobStore`
        Where jobs are kept; closed by `close`.
    workspaces : `Workspaces`
        Where jobs' files are, open; closed by `close`.
    log : `logging.Logger`, optional
        Gets one line per change of phase.
    """

    def __init__(self, store: JobStore, workspaces: Workspaces, log: logging.Logger | None = None) -> None:
        self.store = store
        self.workspaces = workspaces
        self.log = log or logging.getLogger(__name__)
        self.ledger = Ledger(store, self.log)
        self.scheduler = Scheduler(self.ledger, self.log)
        self._lease = Lease(store, workspaces.work_dir, self.log)
        self._current: Lane | None = None
        self._look: asyncio.Task[str] | None = None
        self._archivist = Archivist(
            self.ledger,
            workspaces,
            self.abort,
            lambda: self.lane.limits,
            lambda: self.scheduler.unconfirmed,
            self.log,
        )
        self.scheduler.on_confirmed = self._archivist.look

    # Opening and closing

    async def open(self) -> None:
        """Take the store for this engine alone and read it; `use` then resumes each backend's jobs.

        Raises
        ------
        StoreError
            If another engine uses the store.
        """
        if self.workspaces.work_dir.is_dir():
            await self._lease.acquire()
        await self.ledger.open()
        await self.scheduler.open()

    async def close(self) -> None:
        """Release all resources; running jobs continue."""
        await self.ledger.close()
        await self.scheduler.close()
        await self._lease.release()
        await self.store.close()
        self.workspaces.close()

    async def use(self, key: str, parts: Parts) -> None:
        """Run new jobs on this backend; existing jobs stay on theirs.

        Live jobs that the store has for ``key`` are resumed.

        Parameters
        ----------
        key : `str`
            Names the backend with its configuration; the same after a restart.
        parts : `Parts`
            The backend, not open yet, with its definitions and limits. If
            ``key`` is in use already, only the definitions count.
        """
        lane = self.scheduler.lanes.get(key)
        if lane is None:
            lane = Lane(key, parts.kind, parts.backend, parts.definitions, parts.limits)
            self.ledger.read_specs(key)
            await self.scheduler.add(lane)
        else:
            # The definitions may have changed; accepted jobs keep their specs.
            lane.definitions = parts.definitions
        if self._current is None:
            # Not earlier: the archivist needs the limits of a backend.
            self.scheduler.spawn(self._archivist.run())
        self._current = lane

    @property
    def lane(self) -> Lane:
        """The backend that runs new jobs, with its definitions and limits.

        Raises
        ------
        BackendError
            If there is none yet.
        """
        if self._current is None:
            raise BackendError("OCPS is not configured yet")
        return self._current

    @property
    def lanes(self) -> Mapping[str, Lane]:
        """All backends in use, by key."""
        return self.scheduler.lanes

    def live(self) -> list[Job]:
        """Return all jobs that have not ended."""
        return list(self.ledger.live.values())

    async def fail_jobs(self, key: str, reason: str) -> None:
        """End all jobs of a backend as ERROR, because it cannot be used any more; PENDING jobs stay."""
        for job in self.live():
            if job.backend == key and job.phase != Phase.PENDING:
                await self.ledger.change(job.id, partial(rules.failed, error=ErrorSummary(reason)))

    # Requests

    async def submit(self, request: JobRequest, *, run: bool = True) -> Job:
        """Accept a job.

        Parameters
        ----------
        request : `JobRequest`
            The request.
        run : `bool`
            Whether to queue the job at once. Otherwise it waits, PENDING, for
            `run`; parameters that are missing may be given until then.

        Returns
        -------
        job : `Job`
            The job, stored.

        Raises
        ------
        RequestError
            If something in the request is wrong.
        QueueFullError
            If no more jobs are accepted at present.
        StoreError
            If the job could not be stored.
        """
        lane = self.lane
        job = await self._record(lane, request, run=run)
        owner = None if request.exempt else job.owner
        with self.scheduler.places.keep(lane, owner, reserved=job.reserved, queue=run):
            await self._check_disk()
            job = await self.ledger.insert(job)
        self._archivist.expect(job)
        return self.ledger.live.get(job.id, job)

    async def dry_run(self, request: JobRequest) -> DryRun:
        """Check a request as `submit` does; return what its job would do. Nothing is run or stored.

        Raises
        ------
        JobError
            As `submit` and `Backend.dry_run` do.
        """
        lane = self.lane
        job = await self._record(lane, dataclasses.replace(request, job_id=dry_run_id()), run=True)
        owner = None if request.exempt else job.owner
        with self.scheduler.places.keep(lane, owner, reserved=job.reserved, queue=True):
            await self._check_disk()
        with self.scheduler.places.keep_dry_run(owner):
            return await lane.backend.dry_run(job)

    async def _record(self, lane: Lane, request: JobRequest, *, run: bool) -> Job:
        """Check a request; return the first record of its job, which is not stored yet."""
        definition = lane.definition(request.definition)
        definition.check(request, complete=run)
        job_id = check_job_id(request.job_id) if request.job_id else definition.new_id(request)
        await self.scheduler.check_prerequisites(job_id, request.prerequisites)
        message = self.scheduler.obstacle(request.prerequisites) if run else ""
        return await lane.record(definition, request, job_id, run=run, message=message)

    async def _check_disk(self) -> None:
        """Raise `StoreError` if the disk has no room for new jobs; concurrent requests share one check."""
        if self._look is None or self._look.done():
            self._look = asyncio.create_task(look_at_files(self.workspaces.obstacle))
        if reason := await asyncio.shield(self._look):
            raise StoreError(f"No new jobs: {reason}")

    async def run(self, job_id: str) -> Job:
        """Queue a job that is PENDING or HELD.

        Raises
        ------
        TransitionError
            If it is in another phase.
        RequestError, QueueFullError, StoreError
            As for `submit`; the job stays as it is.
        """
        job = await self.get(job_id)
        rules.check_runnable(job)
        if job.spec is None:
            lane = self.lane
            request = JobRequest(job.definition, job.parameters, run_id=job.run_id, owner=job.owner)
            definition = lane.definition(job.definition)
            definition.check(request, complete=True)
            spec = await lane.spec(definition, request, job_id)
        else:
            lane, spec = self.lanes[job.backend], job.spec
        message = self.scheduler.obstacle(job.prerequisites)
        rule = partial(rules.queued, before=job, spec=spec, backend=lane.key, message=message)
        with self.scheduler.places.keep(lane, None, reserved=job.reserved, queue=True):
            job = await self.ledger.change(job_id, rule)
        return self.ledger.live.get(job_id, job)

    async def modify(self, job_id: str, **changes: Any) -> Job:
        """Change what a job's owner may change.

        Parameters
        ----------
        job_id : `str`
            Which job.
        **changes
            ``parameters`` (merged into the old ones) and ``run_id``, while
            the job is PENDING; ``execution_duration`` (s), while it has not
            ended; ``destruction`` (UTC).

        Raises
        ------
        TransitionError
            If the job's phase does not allow it.
        RequestError
            If a value is wrong.
        """
        job = await self.get(job_id)
        if "execution_duration" in changes:
            changes["execution_duration"] = self.lane.duration(job.definition, changes["execution_duration"])
        if "destruction" in changes:
            changes["destruction"] = self.lane.limits.destruction(changes["destruction"], now())
        rule = partial(rules.modified, changes=changes, check=partial(self._check_parameters, job))
        job = await self.ledger.change(job_id, rule)
        self._archivist.expect(job)
        return job

    def _check_parameters(self, job: Job, parameters: Mapping[str, str]) -> None:
        request = JobRequest(job.definition, parameters, owner=job.owner)
        self.lane.definition(job.definition).check(request, complete=False)

    async def hold(self, job_id: str) -> Job:
        """Keep a waiting job from being started until `run` is called.

        Raises
        ------
        TransitionError
            If the job has been started, or has ended.
        """
        await self.get(job_id)
        return await self.ledger.change(job_id, rules.held)

    async def abort(self, job_id: str, reason: str = "aborted on request") -> Job:
        """Stop a job.

        The request is stored at once; the job is ABORTED when the backend
        confirms that no process of it runs any more, or after ``abort_grace``.

        Returns
        -------
        job : `Job`
            The job, ABORTED.

        Raises
        ------
        UnknownJobError
            If there is no such job.
        TransitionError
            If the job had ended, or ended by itself before it could be stopped.
        """
        await self.get(job_id)
        job = await self.ledger.change(job_id, partial(rules.abort_requested, reason=reason))
        if not job.terminal:
            job = await self.scheduler.stop(job)
        if job.final_phase != Phase.ABORTED:
            raise TransitionError(f"Job {job_id} already {job.phase.lower()}")
        return job

    async def destroy(self, job_id: str) -> None:
        """Delete a job with its files and its record; a live job is aborted first.

        A record whose result has not been published is kept until it is, and
        one of a job that may still run until that has been stopped, but
        neither is shown any more.
        """
        job = await self.get(job_id)
        if not job.terminal:
            with contextlib.suppress(TransitionError):
                await self.abort(job_id, "deleted")
        # The record first: the archivist finishes a deletion that is interrupted.
        job = await self.ledger.change(job_id, rules.deleted)
        await self._archivist.finish_deletion(job)

    async def record_progress(self, job_id: str, progress: Progress | None, message: str | None) -> None:
        """Record the progress that a running job tells of itself.

        Raises
        ------
        TransitionError
            If the job does not run.
        """
        await self.get(job_id)
        update = BackendUpdate(progress=progress, message=message)
        await self.ledger.change(job_id, partial(rules.progressed, update=update))

    # Reading

    async def get(self, job_id: str) -> Job:
        """Return a job as it is now.

        Raises
        ------
        UnknownJobError
            If there is none of this id.
        """
        job = await self.ledger.get(job_id)
        if job.deleted:
            raise UnknownJobError(job_id)
        return job

    async def find(self, query: JobQuery) -> list[Job]:
        """Return the jobs that ``query`` selects."""
        return await self.store.find(query)

    def find_pages(self, query: JobQuery, size: int = 200) -> AsyncGenerator[list[Job], None]:
        """Return the jobs that ``query`` selects, page by page, for lists that are sent as they are read."""
        return self.store.job_pages(query, size)

    def find_summaries(self, query: JobQuery, size: int = 1000) -> AsyncGenerator[list[JobSummary], None]:
        """Return the list entries of the jobs that ``query`` selects, page by page."""
        return self.store.pages(query, size)

    def find_entries(self, query: JobQuery, size: int = 1000) -> AsyncGenerator[list[JobEntry], None]:
        """Return what tables show of the jobs that ``query`` selects, page by page."""
        return self.store.entry_pages(query, size)

    async def last_change(self) -> int:
        """Return the number of the last change of any job.

        Raises
        ------
        StoreError
            If the store cannot be read.
        """
        return await self.store.last_sequence()

    async def changed_since(self, number: int) -> AsyncIterator[Job]:
        """Return the jobs that have changed after change ``number``, in the order of their last change."""
        while page := await self.store.changed_since(number, CHANGES_PAGE):
            for job in page:
                yield job
            number = page[-1].sequence

    async def wait(
        self, job_id: str, timeout: float | None = None, phases: Collection[ExecutionPhase] | None = None
    ) -> Job:
        """Wait until a job has ended, or until its phase changes.

        Parameters
        ----------
        job_id : `str`
            Which job.
        timeout : `float` or `None`
            How long to wait at most (s).
        phases : `~collections.abc.Collection` [`ExecutionPhase`] or `None`
            Return when the job leaves its present phase, and at once if that
            is none of these. `None` to wait until the job has ended.

        Returns
        -------
        job : `Job`
            The job at that time, or when ``timeout`` ran out.
        """
        first = (await self.get(job_id)).phase

        def done(job: Job) -> bool:
            return job.terminal if phases is None else job.phase != first or job.phase not in phases

        return await self.ledger.wait(job_id, timeout, done)

    @contextlib.asynccontextmanager
    async def subscribe(self, wanted: Callable[[Job], bool]) -> AsyncIterator[Subscription]:
        """Follow changes: ``async with … as changes: async for job in changes``.

        Parameters
        ----------
        wanted : `~collections.abc.Callable`
            Returns whether the caller wants a job.
        """
        subscription = self.ledger.changes.subscribe(wanted)
        try:
            yield subscription
        finally:
            self.ledger.changes.unsubscribe(subscription)

    # Publishing

    async def unpublished(self, origin: str) -> list[Job]:
        """Return the ended jobs of a face whose results have not been published, also deleted ones."""
        query = JobQuery(origin=origin, published=False, phases=TERMINAL, deleted=None)
        return await self.store.find(query)

    async def mark_published(self, job_id: str) -> None:
        """Record that a job's result has been published."""
        with contextlib.suppress(UnknownJobError):
            job = await self.ledger.change(job_id, rules.published)
            if job.deleted:
                await self._archivist.finish_deletion(job)
