# SPDX-License-Identifier: GPL-3.0-or-later
"""The engine, as its callers see it."""

from __future__ import annotations

__all__ = ["JobManager"]

import contextlib
import logging
from collections.abc import AsyncIterator, Callable, Collection, Mapping
from typing import Any

from .acceptance import Acceptance
from .archivist import Archivist
from .backend import BackendUpdate
from .changes import Subscription
from .dispatcher import Dispatcher
from .errors import BackendError, TransitionError, UnknownJobError
from .lane import Lane
from .model import (
    ACTIVE,
    TERMINAL,
    ErrorSummary,
    ExecutionPhase,
    Job,
    JobRequest,
    Progress,
    check_job_id,
)
from .outcome import apply_update
from .parts import Parts
from .store import JobQuery, JobStore
from .workspace import Workspaces

Phase = ExecutionPhase


class JobManager:
    """The engine: accepts jobs, runs them on a backend, brings each to one end.

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
        self._dispatcher = Dispatcher(store, self.log)
        self._ledger = self._dispatcher.ledger
        self._current: Lane | None = None
        self._archivist = Archivist(
            self._ledger, workspaces, self.abort, lambda: self.lane.limits.keep_jobs, self.log
        )
        self._acceptance = Acceptance(self._dispatcher, self._archivist, workspaces)

    # Opening and closing

    async def open(self) -> None:
        """Read what the store has; `use` then takes up each backend's jobs."""
        await self._ledger.open()

    async def close(self) -> None:
        """Let go of everything; running jobs run on."""
        self._ledger.changes.close()
        await self._dispatcher.close()
        await self.store.close()
        self.workspaces.close()

    async def use(self, key: str, parts: Parts) -> None:
        """Give new jobs to this backend; jobs of another one stay with it.

        Jobs that the store has for ``key`` from before are taken up.

        Parameters
        ----------
        key : `str`
            Names the backend with its configuration; the same after a restart.
        parts : `Parts`
            The backend, not open yet, with its definitions and limits. If
            ``key`` is in use already, only the definitions count.
        """
        lane = self._dispatcher.lanes.get(key)
        if lane is None:
            lane = await self._dispatcher.add(key, parts)
        else:
            # Their files may have changed; jobs that were accepted keep what these made of them.
            lane.definitions = parts.definitions
        if self._current is None:
            # Not before: it needs to know how many jobs are kept.
            self._dispatcher.spawn(self._archivist.run())
        self._current = lane

    @property
    def lane(self) -> Lane:
        """The backend that new jobs go to, with its definitions and limits.

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
        return self._dispatcher.lanes

    def live(self) -> list[Job]:
        """Return all jobs that have their end before them."""
        return list(self._ledger.live.values())

    async def give_up(self, key: str, reason: str) -> None:
        """End all jobs of a backend that is not there any more as ERROR.

        Jobs that are PENDING wait for nobody and stay.
        """
        end: dict[str, Any] = {"phase": Phase.ERROR, "error": ErrorSummary(reason)}
        for job in self.live():
            if job.backend == key and job.phase != Phase.PENDING:
                await self._ledger.change(job.id, lambda _: end)

    # What callers do

    async def submit(self, request: JobRequest) -> Job:
        """Accept a job, to be run as soon as may be.

        Returns
        -------
        job : `Job`
            The job, stored.

        Raises
        ------
        RequestError
            If something in the request is wrong.
        QueueFullError
            If no more jobs are taken now.
        StoreError
            If the job could not be stored.
        """
        lane = self.lane
        definition = lane.definition(request.definition)
        definition.check(request, complete=True)
        job_id = check_job_id(request.job_id) if request.job_id else definition.new_id(request)
        await self._acceptance.check_prerequisites(job_id, request.prerequisites)
        spec = await definition.resolve(request, job_id)
        job = self._acceptance.new_job(lane, job_id, request, Phase.QUEUED, spec)
        with self._acceptance.place(lane, job_id):
            job = await self._acceptance.insert(job)
        await self._dispatcher.consider(job)
        return self._ledger.live.get(job_id, job)

    async def create(self, request: JobRequest) -> Job:
        """Accept a job that waits, PENDING, for `run`.

        What is given must be right; what is missing may be given until it
        is run. Raises as `submit`.
        """
        lane = self.lane
        definition = lane.definition(request.definition)
        definition.check(request, complete=False)
        job_id = check_job_id(request.job_id) if request.job_id else definition.new_id(request)
        await self._acceptance.check_prerequisites(job_id, request.prerequisites)
        return await self._acceptance.insert(
            self._acceptance.new_job(lane, job_id, request, Phase.PENDING, {})
        )

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
        if job.phase not in (Phase.PENDING, Phase.HELD):
            raise TransitionError(f"Job {job_id} is {job.phase}; only a PENDING or HELD job can be run")
        fields: dict[str, Any] = {"phase": Phase.QUEUED, "message": self._dispatcher.obstacle(job)}
        lane = self._dispatcher.lanes[job.backend] if job.spec else self.lane
        if not job.spec:
            request = JobRequest(job.definition, job.parameters, run_id=job.run_id, owner=job.owner)
            definition = lane.definition(job.definition)
            definition.check(request, complete=True)
            fields["spec"] = await definition.resolve(request, job_id)
            fields["backend"] = lane.key

        def queue(found: Job) -> dict[str, Any]:
            if found.phase != job.phase or found.parameters != job.parameters:
                raise TransitionError(f"Job {job_id} was changed by somebody else at the same time")
            return fields

        with self._acceptance.place(lane, job_id):
            job = await self._ledger.change(job_id, queue)
        await self._dispatcher.consider(job)
        return self._ledger.live.get(job_id, job)

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

        def make(job: Job) -> dict[str, Any]:
            if job.phase != Phase.PENDING and {"parameters", "run_id"} & changes.keys():
                raise TransitionError(f"Job {job_id} is {job.phase}; this can be changed while PENDING only")
            if job.terminal and "execution_duration" in changes:
                raise TransitionError(f"Job {job_id} has ended ({job.phase})")
            new = dict(changes)
            if "parameters" in new:
                new["parameters"] = {**job.parameters, **new["parameters"]}
                self.lane.definition(job.definition).check(
                    JobRequest(job.definition, new["parameters"], owner=job.owner), complete=False
                )
            if "execution_duration" in new:
                wish = new["execution_duration"]
                new["execution_duration"] = self.lane.duration(job.definition, wish)
            if "destruction" in new:
                new["destruction"] = self.lane.limits.check_destruction(new["destruction"])
            return new

        await self.get(job_id)
        job = await self._ledger.change(job_id, make)
        self._archivist.expect(job)
        return job

    async def hold(self, job_id: str) -> Job:
        """Keep a job that waits from being started, until `run`.

        Raises
        ------
        TransitionError
            If it has been started, or has ended.
        """

        def make(job: Job) -> dict[str, Any]:
            if job.dispatched:
                raise TransitionError(f"Job {job_id} has been started already")
            return {"phase": Phase.HELD, "message": "held"}

        await self.get(job_id)
        return await self._ledger.change(job_id, make)

    async def abort(self, job_id: str, reason: str = "aborted on request") -> Job:
        """Stop a job.

        The wish is stored at once; the job is ABORTED when the backend says
        that nothing of it runs any more, or after ``abort_grace``.

        Returns
        -------
        job : `Job`
            The job, ABORTED.

        Raises
        ------
        UnknownJobError
            If there is no such job.
        TransitionError
            If it had ended, or ended by itself before it could be stopped.
        """

        def wish(job: Job) -> dict[str, Any] | None:
            if job.terminal:
                raise TransitionError(f"Job {job_id} already {job.phase.lower()}")
            if not job.dispatched:
                return {"phase": Phase.ABORTED, "abort_reason": reason, "message": reason}
            return None if job.abort_reason else {"abort_reason": reason, "message": f"stopping: {reason}"}

        await self.get(job_id)
        job = await self._ledger.change(job_id, wish)
        if not job.terminal:
            job = await self._dispatcher.stop(job)
        if job.final_phase != Phase.ABORTED:
            raise TransitionError(f"Job {job_id} already {job.phase.lower()}")
        return job

    async def destroy(self, job_id: str) -> None:
        """Remove a job with its files and its record; stop it before if need be.

        A record whose result has still to go out is kept until then, but not
        shown any more.
        """
        job = await self.get(job_id)
        if not job.terminal:
            with contextlib.suppress(TransitionError):
                await self.abort(job_id, "deleted")
        await self.workspaces.remove(job_id)

        def forget(job: Job) -> dict[str, Any]:
            phase = {} if job.phase == Phase.ARCHIVED else {"phase": Phase.ARCHIVED}
            return {**phase, "deleted": True, "results": ()}

        job = await self._ledger.change(job_id, forget)
        if job.origin != "sal" or job.published:
            await self.store.delete(job_id)

    async def report(self, job_id: str, progress: Progress | None, message: str | None) -> None:
        """Take what a job says of its own progress; its phase is the backend's affair.

        Raises
        ------
        TransitionError
            If the job does not run.
        """

        def make(job: Job) -> dict[str, Any] | None:
            if job.terminal or not job.dispatched:
                raise TransitionError(f"Job {job_id} is {job.phase}; only a job that runs has progress")
            return apply_update(job, BackendUpdate(progress=progress, message=message))

        await self.get(job_id)
        await self._ledger.change(job_id, make)

    async def get(self, job_id: str) -> Job:
        """Return a job as it is now.

        Raises
        ------
        UnknownJobError
            If there is none of this id.
        """
        job = await self._ledger.get(job_id)
        if job.deleted:
            raise UnknownJobError(job_id)
        return job

    async def find(self, query: JobQuery) -> list[Job]:
        """Return the jobs that ``query`` asks for."""
        return [job for job in await self.store.find(query) if not job.deleted]

    async def wait(
        self, job_id: str, timeout: float | None = None, phases: Collection[ExecutionPhase] = ACTIVE
    ) -> Job:
        """Wait until a job's phase changes.

        Parameters
        ----------
        job_id : `str`
            Which job.
        timeout : `float` or `None`
            How long to wait at most (s).
        phases : `~collections.abc.Collection` [`ExecutionPhase`]
            Phases in which to wait; in any other the job is returned at once.

        Returns
        -------
        job : `Job`
            The job after its phase changed or ``timeout`` ran out.
        """
        first = (await self.get(job_id)).phase
        return await self._ledger.wait(
            job_id, timeout, lambda job: job.phase != first or job.phase not in phases
        )

    async def wait_end(self, job_id: str, timeout: float | None = None) -> Job:
        """Wait until a job has ended, at most ``timeout`` (s); return it as it is then."""
        await self.get(job_id)
        return await self._ledger.wait(job_id, timeout, lambda job: job.terminal)

    @contextlib.asynccontextmanager
    async def subscribe(self, wanted: Callable[[Job], bool]) -> AsyncIterator[Subscription]:
        """Follow changes: ``async with … as changes: async for job in changes``.

        Parameters
        ----------
        wanted : `~collections.abc.Callable`
            Which jobs to show.
        """
        subscription = self._ledger.changes.subscribe(wanted)
        try:
            yield subscription
        finally:
            self._ledger.changes.unsubscribe(subscription)

    async def unpublished(self, origin: str) -> list[Job]:
        """Return the ended jobs of a face whose results have not gone out."""
        return await self.store.find(JobQuery(origin=origin, published=False, phases=TERMINAL))

    async def mark_published(self, job_id: str) -> None:
        """Record that a job's result has gone out."""
        with contextlib.suppress(UnknownJobError):
            job = await self._ledger.change(
                job_id, lambda job: None if job.published else {"published": True}
            )
            if job.deleted:
                await self.store.delete(job_id)
