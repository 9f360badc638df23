# SPDX-License-Identifier: GPL-3.0-or-later
"""The transitions of a job, each a pure function.

A rule takes the present record, the time, and further facts as keywords. It
returns the new record, or `None` if nothing changes, or raises to refuse the
change. It reads no clock, no file and no store. Phases of jobs are decided
here and nowhere else; callers pass a rule, with its facts filled in by
`functools.partial`, to `Ledger.change`.
"""

from __future__ import annotations

__all__ = [
    "Rule",
    "abort_requested",
    "archived",
    "check_runnable",
    "created",
    "deadline_passed",
    "deleted",
    "dispatched",
    "failed",
    "held",
    "lost",
    "modified",
    "progressed",
    "published",
    "queued",
    "retried",
    "seen",
    "stopped",
    "waiting_for",
]

import dataclasses
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any

from .backend import BackendUpdate
from .errors import TransitionError
from .model import (
    TERMINAL,
    TRANSITIONS,
    ErrorSummary,
    ExecutionPhase,
    Job,
    JobRequest,
    Progress,
    Result,
    check_transition,
)
from .retries import Attempt, RetryPolicy, transient_cause
from .spec import Spec
from .workspace import FORMER_LOG, LOG_NAME

Rule = Callable[[Job, datetime], Job | None]
"""A transition with its facts filled in: called with a record and the present time (UTC)."""

Phase = ExecutionPhase

LONGEST_REASON = 500
"""How much (characters) of the reason of a failed attempt is kept."""


def _enter(job: Job, at: datetime, phase: ExecutionPhase, **fields: Any) -> Job:
    """Return the record of a job that enters a phase.

    Even if the clock was set back, a job does not end before it started.

    Raises
    ------
    TransitionError
        If the job's phase does not allow it.
    """
    check_transition(job.phase, phase)
    fields |= {"phase": phase, "phase_time": at}
    if phase == Phase.EXECUTING and job.start_time is None:
        fields["start_time"] = at
    if phase in TERMINAL and not job.terminal:
        fields |= {"final_phase": phase, "end_time": max(at, job.start_time or at, job.creation_time)}
    return dataclasses.replace(job, **fields)


# Beginning


def created(
    request: JobRequest,
    at: datetime,
    *,
    job_id: str,
    backend: str,
    spec: Spec | None,
    execution_duration: int,
    destruction: datetime,
    message: str = "",
    retries: RetryPolicy | None = None,
) -> Job:
    """Return the first record of a job: QUEUED if it has a spec, else PENDING."""
    return Job(
        id=job_id,
        definition=request.definition,
        phase=Phase.PENDING if spec is None else Phase.QUEUED,
        parameters=request.parameters,
        spec=spec,
        backend=backend,
        creation_time=at,
        phase_time=at,
        run_id=request.run_id,
        owner=request.owner,
        origin=request.origin,
        priority=request.priority,
        prerequisites=request.prerequisites,
        execution_duration=execution_duration,
        destruction=destruction,
        message=message,
        keep_until_published=request.keep_until_published,
        reserved=request.reserved,
        retries=retries,
    )


def check_runnable(job: Job) -> None:
    """Raise `TransitionError` if a job cannot be queued by request."""
    if job.phase not in (Phase.PENDING, Phase.HELD):
        raise TransitionError(f"Job {job.id} is {job.phase}; only a PENDING or HELD job can be run")


def queued(
    job: Job,
    at: datetime,
    *,
    before: Job,
    spec: Spec | None,
    backend: str,
    message: str,
) -> Job:
    """Queue a PENDING or HELD job.

    Parameters
    ----------
    before : `Job`
        The record from which ``spec`` was made; refused if the parameters
        have changed since.
    """
    check_runnable(job)
    if job.phase != before.phase or job.parameters != before.parameters:
        raise TransitionError(f"Job {job.id} was changed by another request at the same time")
    return _enter(job, at, Phase.QUEUED, spec=spec, backend=backend, message=message, retry_time=None)


def held(job: Job, at: datetime) -> Job:
    """Hold a job that has not been started."""
    if job.dispatched:
        raise TransitionError(f"Job {job.id} has been started already")
    return _enter(job, at, Phase.HELD, message="held")


def waiting_for(job: Job, at: datetime, *, message: str) -> Job | None:
    """Change the message of a queued job, which tells what it waits for."""
    if not job.waiting or job.message == message:
        return None
    return dataclasses.replace(job, message=message)


def modified(
    job: Job,
    at: datetime,
    *,
    changes: Mapping[str, Any],
    check: Callable[[Mapping[str, str]], None] | None = None,
) -> Job:
    """Change what the owner of a job may change.

    Parameters
    ----------
    changes : `~collections.abc.Mapping`
        New values by name; ``parameters`` are merged into the old ones.
    check : `~collections.abc.Callable`, optional
        Raises if parameters are wrong.
    """
    if job.phase != Phase.PENDING and {"parameters", "run_id"} & changes.keys():
        raise TransitionError(f"Job {job.id} is {job.phase}; this can be changed while PENDING only")
    if job.terminal and "execution_duration" in changes:
        raise TransitionError(f"Job {job.id} has ended ({job.phase})")
    fields = dict(changes)
    if "parameters" in fields:
        fields["parameters"] = {**job.parameters, **fields["parameters"]}
        if check:
            check(fields["parameters"])
    return dataclasses.replace(job, **fields)


# Running


def dispatched(job: Job, at: datetime) -> Job | None:
    """Mark a queued job as passed to the backend; no change if it was held or has ended."""
    return dataclasses.replace(job, dispatched=True, message="", retry_time=None) if job.waiting else None


def seen(job: Job, at: datetime, *, update: BackendUpdate, attempt: int | None = None) -> Job | None:
    """Apply a backend's update to a job; no change if the job has ended.

    Parameters
    ----------
    update : `BackendUpdate`
        What the backend saw.
    attempt : `int` or `None`
        Which attempt it saw; no change if that is not the present one.
        `None` for the present one.
    """
    if job.terminal or (attempt is not None and (attempt != job.attempt or not job.dispatched)):
        return None
    names = ("exit_code", "progress", "error", "handle")
    fields: dict[str, Any] = {name: getattr(update, name) for name in names}
    fields["results"] = None if update.results is None else _with_former_logs(job, update.results)
    fields = {name: value for name, value in fields.items() if value not in (None, getattr(job, name))}
    if update.message is not None and not job.stopping and update.message != job.message:
        fields["message"] = update.message
    if update.info:
        fields["info"] = {**job.info, **update.info}
    job = dataclasses.replace(job, **fields) if fields else job
    phase = update.phase
    if phase == Phase.ABORTED or (phase == Phase.ERROR and update.outcome_lost and job.stopping):
        return stopped(job, at)
    if phase == Phase.ERROR and not update.may_still_run and (again := retried(job, at)):
        return again
    if phase == Phase.ERROR:
        return failed(job, at, error=job.error or ErrorSummary(update.message or "failed without a reason"))
    # A phase that cannot follow comes from a late update.
    if phase is None or phase == Phase.HELD or phase not in TRANSITIONS[job.phase]:
        return job if fields else None
    if phase == Phase.COMPLETED:
        return _enter(job, at, Phase.COMPLETED, error=None, message=update.message or "")
    return _enter(job, at, phase)


def _with_former_logs(job: Job, results: tuple[Result, ...]) -> tuple[Result, ...]:
    """Return the results of the present attempt with the logs of those before."""
    names = {FORMER_LOG.format(attempt.number) for attempt in job.attempts}
    if not names:
        return results
    former = (result for result in job.results if result.id in names)
    return (*(result for result in results if result.id not in names), *former)


def progressed(job: Job, at: datetime, *, update: BackendUpdate) -> Job | None:
    """Apply the progress that a running job tells of itself."""
    if job.terminal or not job.dispatched:
        raise TransitionError(f"Job {job.id} is {job.phase}; only a job that runs has progress")
    return seen(job, at, update=update)


def retried(job: Job, at: datetime) -> Job | None:
    """Queue a job again whose attempt failed for a transient cause; nothing if it is not to be run again."""
    policy = job.retries
    if policy is None or job.attempt > policy.max or job.stopping or not job.dispatched:
        return None
    error = job.error or ErrorSummary("failed without a reason")
    texts = (error.message, error.detail)
    cause = transient_cause(policy, transient=error.transient, exit_code=job.exit_code, texts=texts)
    if not cause:
        return None
    reason = error.message[:LONGEST_REASON]
    attempt = Attempt(job.attempt, reason, cause, job.start_time, at, job.exit_code)
    when = at + policy.wait(job.attempt)
    name = FORMER_LOG.format(job.attempt)
    log = tuple(
        dataclasses.replace(result, id=name, mime_type="text/plain")
        for result in job.results
        if result.id == LOG_NAME
    )
    number, most = job.attempt + 1, policy.max + 1
    # Back in the queue from whatever phase: no backend may ask for that.
    fields: dict[str, Any] = {
        "phase": Phase.QUEUED,
        "phase_time": at,
        "message": f"attempt {number} of {most} from {when:%H:%M:%S} UTC on: {reason.partition(chr(10))[0]}",
        "attempt": number,
        "attempts": (*job.attempts, attempt),
        "retry_time": when,
        "dispatched": False,
        "start_time": None,
        "exit_code": None,
        "error": None,
        "results": _with_former_logs(job, log),
        "progress": Progress(),
        "handle": "",
        "info": {},
    }
    return dataclasses.replace(job, **fields)


# Ending


def failed(job: Job, at: datetime, *, error: ErrorSummary) -> Job | None:
    """End a job as ERROR; no change if it has ended."""
    return None if job.terminal else _enter(job, at, Phase.ERROR, error=error, message="")


def abort_requested(job: Job, at: datetime, *, reason: str) -> Job | None:
    """Abort a job that has not been started; record the request for one that has."""
    if job.terminal:
        raise TransitionError(f"Job {job.id} already {job.phase.lower()}")
    if not job.dispatched:
        return _enter(job, at, Phase.ABORTED, abort_reason=reason, message=reason)
    if job.abort_reason:
        return None
    return dataclasses.replace(job, abort_reason=reason, message=f"stopping: {reason}")


def deadline_passed(job: Job, at: datetime, *, attempt: int) -> Job | None:
    """Record that an attempt exceeded its run time; no change if the job has ended or is being stopped."""
    if job.terminal or job.stopping or job.attempt != attempt:
        return None
    message = f"stopping: ran longer than {job.execution_duration} s"
    return dataclasses.replace(job, deadline_passed=True, message=message)


def stopped(job: Job, at: datetime, *, doubt: str = "") -> Job | None:
    """End a job that was stopped; no change if it has ended.

    Parameters
    ----------
    doubt : `str`
        Why it is not certain that the job has stopped; added to the message.
        Empty if the backend has confirmed that none of its processes runs.
    """
    if job.terminal:
        return None
    remark = f" ({doubt})" if doubt else ""
    if job.deadline_passed:
        # ERROR, not ABORTED: no user requested it, and clients raise on
        # ABORTED before they read the result.
        words = f"ran longer than its limit of {job.execution_duration} s and was stopped"
        return failed(job, at, error=ErrorSummary(words + remark))
    reason = job.abort_reason or "stopped by something other than OCPS"
    return _enter(job, at, Phase.ABORTED, error=None, message=reason + remark)


def lost(job: Job, at: datetime, *, grace: float) -> Job | None:
    """End a job that was UNKNOWN for ``grace`` (s); no change in another phase."""
    if job.phase != Phase.UNKNOWN:
        return None
    words = f"nothing was heard of it for {grace:g} s: {job.message}"
    return failed(job, at, error=ErrorSummary(words, transient=True))


# After the end


def published(job: Job, at: datetime) -> Job | None:
    """Record that a job's result was published."""
    return None if job.published else dataclasses.replace(job, published=True)


def archived(job: Job, at: datetime, *, reason: str = "archived") -> Job | None:
    """Archive a job that has ended: its files are removed, its record stays and says why."""
    if job.phase == Phase.ARCHIVED:
        return None
    return _enter(job, at, Phase.ARCHIVED, results=(), message=reason)


def deleted(job: Job, at: datetime) -> Job | None:
    """Delete a job that has ended: it is not shown any more."""
    if job.deleted:
        return None
    job = archived(job, at) or job
    return dataclasses.replace(job, deleted=True, results=())
