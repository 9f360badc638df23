# SPDX-License-Identifier: GPL-3.0-or-later
"""The scheduler: workers, prerequisites, starting, stopping, deadlines.

It decides when something is to happen to a job; what becomes of the job is
decided in `rules`, and recorded by the `Ledger`.
"""

from __future__ import annotations

__all__ = ["Scheduler"]

import asyncio
import contextlib
import json
import logging
from collections import defaultdict
from collections.abc import Callable, Coroutine, Iterable
from functools import partial
from typing import Any

from . import rules
from .backend import BackendUpdate, not_started
from .errors import BackendError, JobError, RequestError, StoreError, UnknownJobError
from .lane import Lane, Run
from .ledger import Ledger
from .model import TERMINAL, ErrorSummary, ExecutionPhase, Job, now
from .places import Places

Phase = ExecutionPhase

_UNCONFIRMED = "unconfirmed_stops"
"""Under which name the store has the ids of stopped jobs of which something may still run."""

LAUNCH_WAIT = 15.0
"""How long (s) `Scheduler.close` waits for launches of jobs that are then to be stopped."""


class Scheduler:
    """Starts queued jobs on their backends, and stops jobs on request or at their deadlines.

    Parameters
    ----------
    ledger : `Ledger`
        All jobs.
    log : `logging.Logger`
        Gets errors and warnings.
    """

    def __init__(self, ledger: Ledger, log: logging.Logger) -> None:
        self.log = log
        self.ledger = ledger
        self.lanes: dict[str, Lane] = {}
        self.places = Places(ledger, self.lanes)
        self._dependents: defaultdict[str, set[str]] = defaultdict(set)
        self._tasks: set[asyncio.Task[Any]] = set()
        # Jobs that wait for the time of their next attempt.
        self._delayed: dict[str, asyncio.TimerHandle] = {}
        self.unconfirmed: set[str] = set()
        """Ids of stopped jobs of which something may still run."""
        self.on_confirmed: Callable[[], None] | None = None
        """Called when nothing of such a job runs any more."""
        self._remembering = asyncio.Lock()
        ledger.on_change = self._changed

    async def open(self) -> None:
        """Count the jobs that the ledger has read, and read which stops nobody confirmed."""
        self.places.open()
        self.unconfirmed = set(json.loads(await self.ledger.store.recall(_UNCONFIRMED) or "[]"))

    async def close(self) -> None:
        """Stop all tasks and close the backends; running jobs continue."""
        if stopped := [task for task in self._tasks if task.get_name() in self.unconfirmed]:
            # Jobs that are being launched can only be stopped afterwards.
            await asyncio.wait(stopped, timeout=LAUNCH_WAIT)
        for lane in self.lanes.values():
            for run in lane.runs.values():
                run.cancel_timers()
        for timer in self._delayed.values():
            timer.cancel()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for lane in self.lanes.values():
            await lane.backend.close()

    async def add(self, lane: Lane) -> None:
        """Open a lane's backend, and resume the jobs that the store has for it."""
        lane.backend.report = self.report
        await lane.backend.open()
        self.lanes[lane.key] = lane
        mine = [job for job in self.ledger.live.values() if job.backend == lane.key]
        given = [job for job in mine if job.dispatched]
        for job in given:
            lane.begin(job)
        await lane.backend.reattach(given)
        for job in given:
            found = self.ledger.live.get(job.id)
            if found is None or job.id not in lane.runs:
                # It ended while OCPS was away; it may wait for its next attempt.
                continue
            self._set_deadline(lane, found)
            self._set_lost(lane, found)
            if found.stopping:
                self.spawn(self.stop(found))
        for job in mine:
            if job.waiting:
                lane.waiting += 1
                self._line_up(lane, job)
        for job_id in list(self.unconfirmed):
            self.spawn(self._stop_again(lane, job_id))

    async def _stop_again(self, lane: Lane, job_id: str) -> None:
        """Stop a job that has ended in its record, but about which the backend was in doubt."""
        try:
            job = await self.ledger.get(job_id)
        except UnknownJobError:
            await self._remember_unconfirmed(job_id, False)
            return
        if job.backend == lane.key:
            await lane.backend.reattach([job])
            await lane.backend.cancel(job)

    async def warn_of_unconfirmed(self) -> None:
        """Log which jobs that may still run cannot be stopped, because their backends are not in use."""
        found: defaultdict[str, list[str]] = defaultdict(list)
        for job_id in sorted(self.unconfirmed):
            with contextlib.suppress(UnknownJobError, StoreError):
                found[(await self.ledger.get(job_id)).backend].append(job_id)
        for key in sorted(found.keys() - self.lanes.keys()):
            self.log.warning(
                f"No backend has confirmed that these jobs were stopped: {', '.join(found[key])}. They may "
                "still run, and their files are kept. Start OCPS once with the configuration of the backend "
                f"{key}, which stops them; it is in the table state of the job store as 'backend {key}'"
            )

    async def _remember_unconfirmed(self, job_id: str, unconfirmed: bool) -> None:
        """Store whether something of a job that was stopped may still run: a restart stops it again."""
        async with self._remembering:
            found = self.unconfirmed | {job_id} if unconfirmed else self.unconfirmed - {job_id}
            try:
                await self.ledger.store.remember(_UNCONFIRMED, json.dumps(sorted(found)))
            except StoreError as error:
                self.log.error(f"Job {job_id}: whether it has stopped could not be stored: {error}")
            # Not earlier: what is not stored yet is not known after a restart.
            self.unconfirmed = found
        if not unconfirmed and self.on_confirmed:
            self.on_confirmed()

    def spawn(self, coroutine: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        """Run a coroutine in the background; `close` cancels it."""
        task = asyncio.create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._done)
        return task

    def report(self, job_id: str, update: BackendUpdate) -> None:
        """Record what a backend saw of a job; see `Report`."""
        job = self.ledger.live.get(job_id)
        if job is None:
            if job_id in self.unconfirmed and update.phase in TERMINAL:
                self.spawn(self._remember_unconfirmed(job_id, False))
            return
        lane = self.lanes.get(job.backend)
        if lane and update.elapsed is not None and (run := lane.runs.get(job_id)):
            run.began = asyncio.get_running_loop().time() - update.elapsed
            self._set_deadline(lane, job)
        self.spawn(self.ledger.persist(job_id, partial(rules.seen, update=update, attempt=job.attempt)))

    # Accepting

    async def check_prerequisites(self, job_id: str, prerequisites: Iterable[str]) -> None:
        """Raise `RequestError` if a job would wait for itself or for a job that does not exist."""
        for other in prerequisites:
            if other == job_id:
                raise RequestError(f"job {job_id} cannot wait for itself", "prerequisites")
            try:
                unknown = (await self.ledger.get(other)).deleted
            except (UnknownJobError, RequestError):
                unknown = True
            if unknown:
                raise RequestError(f"no such job: {other!r}", "prerequisites")

    def obstacle(self, prerequisites: Iterable[str]) -> str:
        """Return in words which prerequisites have not ended; empty if all have."""
        names = ", ".join(other for other in prerequisites if other in self.ledger.live)
        return f"waiting for {names}" if names else ""

    # Waiting

    def order(self, lane: Lane) -> list[str]:
        """Return the ids of the jobs that wait for a worker of a lane, the next one first."""
        return lane.order(self._waiting_job)

    def _line_up(self, lane: Lane, job: Job) -> None:
        """Queue a job for a worker, or let it wait for its prerequisites or for its next attempt."""
        if job.retry_time:
            self._delay(lane, job)
            return
        # Before a further attempt all prerequisites have ended.
        if not job.prerequisites or job.attempt > 1:
            lane.push(job)
            self._dispatch(lane)
            return
        for other in job.prerequisites:
            if other in self.ledger.live:
                self._dependents[other].add(job.id)
        self.spawn(self._consider(job.id))

    def _delay(self, lane: Lane, job: Job) -> None:
        """Queue a job for a worker when the time of its next attempt has come."""
        assert job.retry_time
        assert job.retries
        # However the clock was set meanwhile, it does not wait longer than it should.
        left = min(job.retry_time - now(), job.retries.wait(job.attempt - 1)).total_seconds()

        def begin() -> None:
            del self._delayed[job.id]
            lane.push(job)
            self._dispatch(lane)

        self._delayed[job.id] = asyncio.get_running_loop().call_later(max(0.0, left), begin)

    async def _consider(self, job_id: str) -> None:
        """Check again what a queued job waits for, and queue it for a worker if that is nothing."""
        job = self.ledger.live.get(job_id)
        if job is None or not job.waiting:
            return
        lane = self.lanes[job.backend]
        if lane.limits.prerequisite_policy == "completed" and (
            reason := await self._failed_prerequisite(job)
        ):
            await self.ledger.persist(job_id, partial(rules.failed, error=ErrorSummary(reason)))
            return
        message = self.obstacle(job.prerequisites)
        job = await self.ledger.persist(job_id, partial(rules.waiting_for, message=message))
        # Check again: a prerequisite may have ended meanwhile.
        if job.waiting and not self.obstacle(job.prerequisites):
            lane.push(job)
            self._dispatch(lane)

    async def _failed_prerequisite(self, job: Job) -> str:
        for other in job.prerequisites:
            try:
                found = await self.ledger.get(other)
            except UnknownJobError:
                return f"prerequisite {other} has been deleted"
            if found.terminal and found.final_phase != Phase.COMPLETED:
                return f"prerequisite {other} ended as {found.final_phase}"
        return ""

    # Starting

    def _dispatch(self, lane: Lane) -> None:
        """Start as many jobs as there are free workers, of all lanes that share them."""
        limits = lane.limits
        shared = [other for other in self.lanes.values() if other.kind == lane.kind]
        while sum(len(other.runs) for other in shared) < limits.max_workers:
            full = sum(other.ordinary for other in shared) >= limits.ordinary_workers
            job = lane.pop(self._waiting_job, reserved_only=full)
            if job is None:
                return
            run = lane.begin(job)
            lane.waiting -= 1
            run.starting = self.spawn(self._start(lane, job.id, run))
            run.starting.set_name(job.id)

    def _waiting_job(self, job_id: str) -> Job | None:
        job = self.ledger.live.get(job_id)
        return job if job is not None and job.waiting and job_id not in self._delayed else None

    async def _start(self, lane: Lane, job_id: str, run: Run) -> None:
        job = await self.ledger.persist(job_id, rules.dispatched)
        if job.terminal or not job.dispatched:
            # The job was held or has ended since it was chosen.
            lane.end(job_id)
            self._dispatch(lane)
            return
        try:
            await lane.backend.submit(job)
            found = await self.ledger.get(job_id)
            if found.terminal:
                # The job was ended while it was being started.
                await lane.backend.cancel(found)
        except UnknownJobError:
            await lane.backend.cancel(job)
        except Exception as error:
            if not isinstance(error, JobError):
                self.log.exception(f"Job {job_id}: the backend failed")
            self.report(job_id, not_started(error, f"could not be started: {error}"))
        finally:
            run.starting = None

    # Stopping

    async def stop(self, job: Job) -> Job:
        """Stop a job that the backend has; return it when it has ended.

        If the backend has not confirmed within ``abort_grace`` that the job
        has stopped, the job ends with a remark about that.
        """
        lane = self.lanes[job.backend]
        grace = lane.limits.abort_grace
        try:
            async with asyncio.timeout(grace):
                run = lane.runs.get(job.id)
                if run and run.starting:
                    await asyncio.wait({run.starting})
                await lane.backend.cancel(self.ledger.live.get(job.id, job))
                return await self.ledger.wait(job.id, None, lambda job: job.terminal)
        except (TimeoutError, BackendError) as error:
            doubt = str(error) or f"the backend did not confirm within {grace:g} s that it has stopped"
            self.log.warning(f"Job {job.id}: {doubt}")
            # First, so that it is known wherever OCPS is killed from here on.
            await self._remember_unconfirmed(job.id, True)
            return await self.ledger.persist(job.id, partial(rules.stopped, doubt=doubt))

    async def _deadline(self, job_id: str, attempt: int) -> None:
        job = await self.ledger.persist(job_id, partial(rules.deadline_passed, attempt=attempt))
        if job.stopping and not job.terminal:
            await self.stop(job)

    async def _end_lost(self, job_id: str, grace: float) -> None:
        job = await self.ledger.persist(job_id, partial(rules.lost, grace=grace))
        if job.terminal:
            await self.lanes[job.backend].backend.forget(job)

    # After every change

    def _changed(self, old: Job | None, job: Job) -> None:
        lane = self.lanes.get(job.backend)
        again = bool(old and old.attempt != job.attempt)
        if lane and again:
            lane.end(job.id)
        self.places.count(old, job)
        if not job.waiting and (timer := self._delayed.pop(job.id, None)):
            timer.cancel()
        if lane is None:
            return
        if job.terminal:
            lane.end(job.id)
            for dependent in self._dependents.pop(job.id, ()):
                self.spawn(self._consider(dependent))
            self._dispatch_all(lane.kind)
            return
        if again:
            self._line_up(lane, job)
            self._dispatch_all(lane.kind)
        elif job.waiting and not (old and old.waiting):
            self._line_up(lane, job)
        if job.id in lane.runs:
            if old is None or old.phase != job.phase:
                self._set_lost(lane, job)
            if old is None or _of_deadline(old) != _of_deadline(job):
                self._set_deadline(lane, job)

    def _dispatch_all(self, kind: str) -> None:
        """Start jobs of all lanes that share the workers of a kind."""
        for lane in self.lanes.values():
            if lane.kind == kind:
                self._dispatch(lane)

    def _set_deadline(self, lane: Lane, job: Job) -> None:
        """Set the timer of a running job's deadline; it runs by a monotonic clock."""
        run = lane.runs[job.id]
        if run.deadline:
            run.deadline.cancel()
            run.deadline = None
        if not job.start_time and run.began is None:
            return
        if run.began is None:
            # Just started; or OCPS was restarted and the backend does not report the run time.
            elapsed = (now() - job.start_time).total_seconds() if job.start_time else 0.0
            run.began = asyncio.get_running_loop().time() - max(0.0, elapsed)
        if job.execution_duration and not job.stopping:
            when = run.began + job.execution_duration
            run.deadline = self._timer(when, lambda: self._deadline(job.id, job.attempt))

    def _set_lost(self, lane: Lane, job: Job) -> None:
        """Set the timer that ends a job which stays UNKNOWN."""
        run = lane.runs[job.id]
        if run.lost:
            run.lost.cancel()
            run.lost = None
        if job.phase == Phase.UNKNOWN:
            grace = lane.limits.unknown_grace
            left = min(grace, max(0.0, grace - (now() - job.phase_time).total_seconds()))
            when = asyncio.get_running_loop().time() + left
            run.lost = self._timer(when, lambda: self._end_lost(job.id, grace))

    def _timer(self, when: float, act: Callable[[], Coroutine[Any, Any, Any]]) -> asyncio.TimerHandle:
        return asyncio.get_running_loop().call_at(when, lambda: self.spawn(act()))

    def _done(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        error = None if task.cancelled() else task.exception()
        if error and not isinstance(error, UnknownJobError):
            # A job that was deleted meanwhile is no failure.
            self.log.error("A task of the engine failed", exc_info=error)


def _of_deadline(job: Job) -> tuple[object, ...]:
    """Return the fields that the deadline's timer depends on."""
    return job.start_time, job.execution_duration, job.stopping
