# SPDX-License-Identifier: GPL-3.0-or-later
"""The UWS job: its phases, its record, and the request that makes one.

The terms are those of the IVOA Universal Worker Service pattern 1.1
(REC 2016-10-24), sections 2.2.1 and 2.1.3.
"""

from __future__ import annotations

__all__ = [
    "ACTIVE",
    "LIVE",
    "TERMINAL",
    "TRANSITIONS",
    "ErrorSummary",
    "ExecutionPhase",
    "Job",
    "JobRequest",
    "Progress",
    "Result",
    "from_ms",
    "to_ms",
    "check_job_id",
    "check_transition",
    "now",
]

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Annotated, Any

from pydantic import PlainSerializer, PlainValidator

from .errors import RequestError, TransitionError
from .retries import Attempt, RetryPolicy
from .spec import Spec, read_spec
from .times import Time, from_ms, now, to_ms


class ExecutionPhase(StrEnum):
    """Phases of a job, UWS 1.1 section 2.1.3."""

    PENDING = "PENDING"
    HELD = "HELD"
    QUEUED = "QUEUED"
    EXECUTING = "EXECUTING"
    SUSPENDED = "SUSPENDED"
    UNKNOWN = "UNKNOWN"
    COMPLETED = "COMPLETED"
    ERROR = "ERROR"
    ABORTED = "ABORTED"
    ARCHIVED = "ARCHIVED"


_P = ExecutionPhase

TERMINAL = frozenset({_P.COMPLETED, _P.ERROR, _P.ABORTED, _P.ARCHIVED})
"""Phases of jobs that have ended; such a job can only be archived."""

LIVE = frozenset(_P) - TERMINAL
"""Phases of jobs that have not ended."""

ACTIVE = frozenset({_P.PENDING, _P.QUEUED, _P.EXECUTING})
"""Phases in which a UWS WAIT blocks (UWS 1.1 section 2.2.1.1)."""

TRANSITIONS: Mapping[ExecutionPhase, frozenset[ExecutionPhase]] = {
    _P.PENDING: frozenset({_P.QUEUED, _P.HELD, _P.ABORTED, _P.ERROR}),
    _P.HELD: frozenset({_P.QUEUED, _P.ABORTED, _P.ERROR}),
    _P.QUEUED: frozenset({_P.EXECUTING, _P.COMPLETED, _P.ERROR, _P.ABORTED, _P.HELD, _P.UNKNOWN}),
    _P.EXECUTING: frozenset({_P.COMPLETED, _P.ERROR, _P.ABORTED, _P.SUSPENDED, _P.UNKNOWN, _P.QUEUED}),
    _P.SUSPENDED: frozenset({_P.EXECUTING, _P.COMPLETED, _P.ERROR, _P.ABORTED, _P.UNKNOWN}),
    _P.UNKNOWN: frozenset({_P.QUEUED, _P.EXECUTING, _P.SUSPENDED, _P.COMPLETED, _P.ERROR, _P.ABORTED}),
    _P.COMPLETED: frozenset({_P.ARCHIVED}),
    _P.ERROR: frozenset({_P.ARCHIVED}),
    _P.ABORTED: frozenset({_P.ARCHIVED}),
    _P.ARCHIVED: frozenset(),
}
"""The phases that may follow each phase."""

# Safe in a path, a URL, a Butler collection name and a Slurm comment. Simulated
# ids contain dots ("true.yaml-…"), hence the dot; two in a row are refused.
_JOB_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")


StoredSpec = Annotated[
    Spec | None, PlainValidator(read_spec), PlainSerializer(lambda spec: spec and spec.document())
]
"""A spec, stored as a JSON object."""

_NOTHING: Mapping[str, Any] = {}


def _nothing() -> Mapping[str, Any]:
    """Return an empty mapping, the same object for all jobs, to save memory."""
    return _NOTHING


def check_job_id(job_id: str) -> str:
    """Return ``job_id`` if it has the form of a job id.

    Raises
    ------
    RequestError
        If it does not. Such a text must not be used in a path or a query.
    """
    if not _JOB_ID.fullmatch(job_id) or ".." in job_id:
        raise RequestError(f"No such job: {job_id[:80]!r} (not a valid job id)")
    return job_id


def check_transition(old: ExecutionPhase, new: ExecutionPhase) -> None:
    """Check that a job may go from phase ``old`` to phase ``new``.

    Raises
    ------
    TransitionError
        If it may not.
    """
    if new not in TRANSITIONS[old]:
        raise TransitionError(f"A job in phase {old} cannot become {new}")


@dataclass(frozen=True, slots=True)
class Result:
    """One product of a job.

    Parameters
    ----------
    id : `str`
        Name, unique within the job; it does not change when results are added.
    uri : `str`
        URI of the product: a ``file:`` URI, or one of the server that ran the job.
    size : `int` or `None`
        Length in bytes, if known.
    mime_type : `str` or `None`
        Media type, if known.
    """

    id: str
    uri: str
    size: int | None = None
    mime_type: str | None = None


@dataclass(frozen=True, slots=True)
class ErrorSummary:
    """The reason why a job did not complete (UWS 1.1 section 2.1.7).

    Parameters
    ----------
    message : `str`
        For the observer: one or a few lines.
    transient : `bool`
        Whether the same job may succeed if it is run again.
    detail : `str`
        Further text, for example the last lines of the log; may be empty.
    """

    message: str
    transient: bool = False
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Progress:
    """The progress of a job, in quanta (units of work of a pipeline).

    Parameters
    ----------
    done, failed, total : `int`
        Quanta that succeeded, that failed, and all quanta; ``total`` is 0
        while it is not known.
    """

    done: int = 0
    failed: int = 0
    total: int = 0


@dataclass(frozen=True, slots=True)
class JobRequest:
    """A request for a new job.

    Parameters
    ----------
    definition : `str`
        Name of the job definition (the UWS job list).
    parameters : `~collections.abc.Mapping` [`str`, `str`]
        Parameters by name, as text.
    run_id : `str`
        The caller's own name for the job.
    owner : `str`
        Name of the user; empty means anonymous.
    origin : `str`
        Name of the face that made the request; see `JobQuery`.
    priority : `int`
        Jobs of a larger priority run earlier.
    prerequisites : `tuple` [`str`, ...]
        Ids of jobs that must end before this one starts.
    execution_duration : `int` or `None`
        Longest run time (seconds), 0 for no limit, `None` for the default.
    destruction : `datetime.datetime` or `None`
        When to remove the job's files; `None` for the default.
    job_id : `str`
        The id for the job, if the caller needs to choose it; empty for a new
        one.
    keep_until_published : `bool`
        Whether the record must be kept until `JobManager.mark_published`,
        also when the job is deleted.
    reserved : `bool`
        Whether the job may use the places and workers that `Limits` reserves.
    trusted : `bool`
        Whether parameters may name any file on this host.
    exempt : `bool`
        Whether `Limits.max_jobs_per_owner` does not apply.
    """

    definition: str
    parameters: Mapping[str, str] = field(default_factory=_nothing)
    run_id: str = ""
    owner: str = ""
    origin: str = ""
    priority: int = 0
    prerequisites: tuple[str, ...] = ()
    execution_duration: int | None = None
    destruction: datetime | None = None
    job_id: str = ""
    keep_until_published: bool = False
    reserved: bool = False
    trusted: bool = False
    exempt: bool = False


@dataclass(frozen=True, slots=True)
class Job:
    """The record of a UWS job at one moment.

    A job is never changed in place: the functions of `rules` return a new
    record, which is stored and then shown. Fields that `JobRequest` has too
    are described there.

    Parameters
    ----------
    id : `str`
        The job's id.
    phase : `ExecutionPhase`
        The phase it is in.
    spec : `Spec` or `None`
        All that the backend needs to run the job, made from its parameters
        by its definition. `None` while the job is PENDING.
    backend : `str`
        Key of the backend that runs the job, see `JobManager.use`.
    sequence : `int`
        Number of the change that made this record; grows by every change of
        any job.
    creation_time, start_time, end_time : `datetime.datetime` or `None`
        UTC.
    phase_time : `datetime.datetime`
        When the job entered its phase.
    final_phase : `ExecutionPhase` or `None`
        The phase in which it ended; kept when the job is archived.
    message : `str`
        What the job is waiting for or doing, in words.
    exit_code : `int` or `None`
        The process's own exit code; negative for a signal.
    handle : `str`
        The backend's own name for the job.
    dispatched : `bool`
        Whether it may have been passed to the backend.
    abort_reason : `str`
        Why the job is being aborted; empty if it is not.
    deadline_passed : `bool`
        Whether the job is being stopped because it ran too long.
    published : `bool`
        Whether its result has been published by the face that requested it.
    deleted : `bool`
        Whether the job was deleted: it is not shown, and its record is
        removed after its files, and after its result has been published.
    info : `~collections.abc.Mapping`
        Further information: last log lines, metrics, task summaries.
    retries : `RetryPolicy` or `None`
        Whether the job is run again after a transient failure.
    attempt : `int`
        Number of the present attempt; the first is 1.
    attempts : `tuple` [`Attempt`, ...]
        The attempts before.
    retry_time : `datetime.datetime` or `None`
        Earliest time (UTC) of the present attempt, while the job waits for it.
    """

    id: str
    definition: str
    phase: ExecutionPhase
    parameters: Mapping[str, str]
    spec: StoredSpec
    backend: str
    creation_time: Time
    phase_time: Time
    sequence: int = 0
    run_id: str = ""
    owner: str = ""
    origin: str = ""
    priority: int = 0
    prerequisites: tuple[str, ...] = ()
    execution_duration: int = 0
    destruction: Time | None = None
    start_time: Time | None = None
    end_time: Time | None = None
    final_phase: ExecutionPhase | None = None
    message: str = ""
    exit_code: int | None = None
    error: ErrorSummary | None = None
    results: tuple[Result, ...] = ()
    progress: Progress = Progress()
    handle: str = ""
    dispatched: bool = False
    abort_reason: str = ""
    deadline_passed: bool = False
    keep_until_published: bool = False
    reserved: bool = False
    published: bool = False
    deleted: bool = False
    info: Mapping[str, Any] = field(default_factory=_nothing)
    retries: RetryPolicy | None = None
    attempt: int = 1
    attempts: tuple[Attempt, ...] = ()
    retry_time: Time | None = None

    @property
    def terminal(self) -> bool:
        """Whether the job has ended."""
        return self.phase in TERMINAL

    @property
    def waiting(self) -> bool:
        """Whether the job is queued and the backend does not have it yet."""
        return self.phase == ExecutionPhase.QUEUED and not self.dispatched

    @property
    def stopping(self) -> bool:
        """Whether the job is being stopped."""
        return bool(self.abort_reason) or self.deadline_passed

    @property
    def record_needed(self) -> bool:
        """Whether the record must be kept although the job was deleted."""
        return self.keep_until_published and not self.published
