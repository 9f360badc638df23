# SPDX-License-Identifier: GPL-3.0-or-later
"""What runs and what waits: lanes, prerequisites, starting, stopping, deadlines."""

from __future__ import annotations

__all__ = ["Dispatcher"]

import asyncio
import functools
import logging
from collections import defaultdict
from collections.abc import Coroutine
from datetime import timedelta
from typing import Any

from .backend import BackendUpdate
from .errors import BackendError, JobError, StoreError, UnknownJobError
from .lane import Lane
from .ledger import Ledger, Make
from .model import ErrorSummary, ExecutionPhase, Job, now
from .outcome import apply_update, stopped
from .parts import Parts
from .store import JobStore

Phase = ExecutionPhase

STORE_RETRY = 2.0
"""How long (s) to wait before a change that could not be stored is tried again."""


class Dispatcher:
    """Brings queued jobs to their backends and back to one end.

    Parameters
    ----------
    store : `JobStore`
        Where jobs are kept.
    log : `logging.Logger`
        Gets what happens.
    """

    def __init__(self, store: JobStore, log: logging.Logger) -> None:
        self.log = log
        self.ledger = Ledger(store, self._settled, log)
        self.lanes: dict[str, Lane] = {}
        self._dependents: defaultdict[str, set[str]] = defaultdict(set)
        self._starting: dict[str, asyncio.Task[Any]] = {}
        self._timers: dict[tuple[str, str], asyncio.TimerHandle] = {}
        self._tasks: set[asyncio.Task[Any]] = set()

    async def close(self) -> None:
        """Stop all tasks and close the backends; running jobs run on."""
        for timer in self._timers.values():
            timer.cancel()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for lane in self.lanes.values():
            await lane.backend.close()

    async def add(self, key: str, parts: Parts) -> Lane:
        """Open a backend and take up the jobs that the store has for it."""
        backend = parts.backend
        backend.report = self.report
        await backend.open()
        lane = self.lanes[key] = Lane(key, parts.kind, backend, parts.definitions, parts.limits)
        mine = [job for job in self.ledger.live.values() if job.backend == key]
        lane.running |= {job.id for job in mine if job.dispatched}
        for job in mine:
            if not job.dispatched and job.phase == Phase.QUEUED:
                lane.waiting.add(job.id)
        given = [job for job in mine if job.dispatched]
        for job in given:
            self._set_timers(None, job)
        await backend.reattach(given)
        for job in given:
            if job.stopping:
                self.spawn(self.stop(job))
        for job in mine:
            if job.id in lane.waiting:
                await self.consider(job)
        return lane

    def spawn(self, coroutine: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        """Run something beside, until `close`."""
        task = asyncio.create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._done)
        return task

    def report(self, job_id: str, update: BackendUpdate) -> None:
        """Take what a backend saw of a job; see `Report`."""
        if job_id in self.ledger.live:
            self.spawn(self._persist(job_id, lambda job: apply_update(job, update)))

    # Waiting

    def obstacle(self, job: Job) -> str:
        """Return which prerequisites a job waits for, in words; empty if none."""
        open_ = [other for other in job.prerequisites if other in self.ledger.live]
        return f"waiting for {', '.join(open_)}" if open_ else ""

    async def consider(self, job: Job) -> None:
        """Put a queued job in line, if its prerequisites allow it."""
        lane = self.lanes[job.backend]
        open_ = [other for other in job.prerequisites if other in self.ledger.live]
        for other in open_:
            self._dependents[other].add(job.id)
        if lane.limits.prerequisite_policy == "completed":
            failed = await self._failed_prerequisite(job)
            if failed:
                error: dict[str, Any] = {"phase": Phase.ERROR, "error": ErrorSummary(failed)}
                await self._persist(job.id, lambda job: None if job.terminal else error)
                return
        if not open_ and job.id in lane.waiting:
            lane.queue.push(job.id, job.priority)
            self.dispatch(lane)

    async def _failed_prerequisite(self, job: Job) -> str:
        for other in job.prerequisites:
            try:
                found = await self.ledger.get(other)
            except UnknownJobError:
                return f"prerequisite {other} has been deleted"
            if found.terminal and found.final_phase != Phase.COMPLETED:
                return f"prerequisite {other} ended as {found.final_phase}"
        return ""

    async def _reconsider(self, job_id: str) -> None:
        job = self.ledger.live.get(job_id)
        if job is None or job.phase != Phase.QUEUED or job.dispatched:
            return
        message = self.obstacle(job)
        if message != job.message:

            def say(job: Job) -> dict[str, Any] | None:
                return {"message": message} if job.phase == Phase.QUEUED else None

            job = await self._persist(job_id, say)
        if job.phase == Phase.QUEUED:
            await self.consider(job)

    # Starting

    def dispatch(self, lane: Lane) -> None:
        """Start as many jobs as there are free workers."""
        while self._busy(lane) < lane.limits.max_workers:
            job_id = lane.queue.pop()
            if job_id is None:
                return
            lane.waiting.discard(job_id)
            lane.running.add(job_id)
            self._starting[job_id] = task = self.spawn(self._start(lane, job_id))
            task.add_done_callback(functools.partial(self._started, job_id))

    def _started(self, job_id: str, _: asyncio.Task[Any]) -> None:
        self._starting.pop(job_id, None)

    def _busy(self, lane: Lane) -> int:
        """Return how many jobs run on backends like this one, of all configurations."""
        return sum(len(other.running) for other in self.lanes.values() if other.kind == lane.kind)

    async def _start(self, lane: Lane, job_id: str) -> None:
        def give(job: Job) -> dict[str, Any] | None:
            return {"dispatched": True, "message": ""} if job.phase == Phase.QUEUED else None

        job = await self._persist(job_id, give)
        if job.phase != Phase.QUEUED:
            # Held or aborted since it was picked.
            lane.running.discard(job_id)
            self.dispatch(lane)
            return
        try:
            await lane.backend.submit(job)
            found = await self.ledger.get(job_id)
            if found.terminal:
                # It was given up while it was being started.
                await lane.backend.cancel(found)
        except UnknownJobError:
            await lane.backend.cancel(job)
        except Exception as error:
            if not isinstance(error, JobError):
                self.log.exception(f"Job {job_id}: the backend failed")
            reason = ErrorSummary(f"could not be started: {error}")
            self.report(job_id, BackendUpdate(phase=Phase.ERROR, error=reason))

    # Stopping

    async def stop(self, job: Job) -> Job:
        """Stop a job that the backend has; return it when it has ended.

        Waits no longer than ``abort_grace``; a job that is not confirmed to
        have stopped by then ends all the same, with that remark.
        """
        lane = self.lanes[job.backend]
        grace = lane.limits.abort_grace
        try:
            async with asyncio.timeout(grace):
                if starting := self._starting.get(job.id):
                    await asyncio.wait({starting})
                await lane.backend.cancel(self.ledger.live.get(job.id, job))
                job = await self.ledger.wait(job.id, None, lambda job: job.terminal)
        except (TimeoutError, BackendError) as error:
            doubt = str(error) or f"the backend did not confirm within {grace:g} s that it has stopped"
            self.log.warning(f"Job {job.id}: {doubt}")
            job = await self._persist(job.id, lambda job: None if job.terminal else stopped(job, doubt))
        return job

    async def _deadline(self, job_id: str) -> None:
        def note(job: Job) -> dict[str, Any] | None:
            if job.terminal or job.stopping:
                return None
            limit = job.execution_duration
            return {"deadline_passed": True, "message": f"stopping: ran longer than {limit} s"}

        job = await self._persist(job_id, note)
        if not job.terminal:
            await self.stop(job)

    async def _give_up(self, job_id: str, grace: float) -> None:
        words = f"nothing was heard of it for {grace:g} s"

        def note(job: Job) -> dict[str, Any] | None:
            if job.phase != Phase.UNKNOWN:
                return None
            return {"phase": Phase.ERROR, "error": ErrorSummary(f"{words}: {job.message}", transient=True)}

        job = await self._persist(job_id, note)
        if job.terminal:
            await self.lanes[job.backend].backend.forget(job)

    # After every change

    def _settled(self, old: Job | None, job: Job) -> None:
        lane = self.lanes.get(job.backend)
        if lane is None:
            return
        self._set_timers(old, job)
        if job.terminal or job.phase == Phase.HELD:
            lane.waiting.discard(job.id)
            lane.queue.discard(job.id)
        if job.terminal:
            lane.running.discard(job.id)
            for dependent in self._dependents.pop(job.id, ()):
                self.spawn(self._reconsider(dependent))
            for other in self.lanes.values():
                if other.kind == lane.kind:
                    self.dispatch(other)

    def _set_timers(self, old: Job | None, job: Job) -> None:
        """Set the timers that go with a job's phase; clear the others."""
        limits = self.lanes[job.backend].limits
        deadline = None
        if job.start_time and job.execution_duration and not job.terminal and not job.stopping:
            deadline = job.start_time + timedelta(seconds=job.execution_duration)
        known = old is not None and old.phase == job.phase
        if not known or old is None or old.execution_duration != job.execution_duration or job.stopping:
            self._set_timer(job.id, "deadline", deadline, self._deadline)
        if not known:
            grace = limits.unknown_grace
            lost = job.phase_time + timedelta(seconds=grace) if job.phase == Phase.UNKNOWN else None
            self._set_timer(job.id, "unknown", lost, lambda job_id: self._give_up(job_id, grace))

    def _set_timer(self, job_id: str, kind: str, when: Any, act: Any) -> None:
        timer = self._timers.pop((job_id, kind), None)
        if timer:
            timer.cancel()
        if when is not None:
            delay = max(0.0, (when - now()).total_seconds())

            def fire() -> None:
                self._timers.pop((job_id, kind), None)
                self.spawn(act(job_id))

            self._timers[job_id, kind] = asyncio.get_running_loop().call_later(delay, fire)

    async def _persist(self, job_id: str, make: Make) -> Job:
        """Change a job; where the store fails, try again until it does not.

        For what happened anyway: an end that was seen must not be lost to a
        full disk.
        """
        while True:
            try:
                return await self.ledger.change(job_id, make)
            except StoreError as error:
                self.log.error(f"Job {job_id}: {error}; trying again in {STORE_RETRY:g} s")
                await asyncio.sleep(STORE_RETRY)

    def _done(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        error = None if task.cancelled() else task.exception()
        if error and not isinstance(error, UnknownJobError):
            # A job that was deleted meanwhile is no failure.
            self.log.error("A task of the engine failed", exc_info=error)
