# SPDX-License-Identifier: GPL-3.0-or-later
"""The UWS job and the rules of its life.

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
    "check_job_id",
    "check_transition",
    "now",
]

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any

from .errors import RequestError, TransitionError


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
"""Phases that a job does not leave any more (but for its archive)."""

LIVE = frozenset(_P) - TERMINAL
"""Phases of a job that still has its end before it."""

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
"""The only ways between phases."""

# Safe in a path, a URL, a Butler collection name and a Slurm comment. Simulated
# ids contain dots ("true.yaml-…"), hence the dot; two in a row are refused.
_JOB_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")


def now() -> datetime:
    """Return the current time, UTC, with whole milliseconds.

    Milliseconds because that is what every face prints: a time must not
    change when it goes out and comes back as a filter.
    """
    time = datetime.now(UTC)
    return time.replace(microsecond=time.microsecond // 1000 * 1000)


def check_job_id(job_id: str) -> str:
    """Return ``job_id`` if it has the form of a job id.

    Raises
    ------
    RequestError
        If it has not. Such a text never reaches a path or a database.
    """
    if not _JOB_ID.fullmatch(job_id) or ".." in job_id:
        raise RequestError(f"No such job: {job_id[:80]!r} (not the form of a job id)")
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
    """One thing that a job produced.

    Parameters
    ----------
    id : `str`
        Name, unique within the job; it does not shift when others appear.
    uri : `str`
        Where it is: a ``file:`` URI, or an address of the engine that ran it.
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
    """Why a job did not complete, in words (UWS 1.1 section 2.1.7).

    Parameters
    ----------
    message : `str`
        For the observer: one or a few lines.
    transient : `bool`
        Whether the same job may succeed when it is tried again.
    detail : `str`
        More of it, for example the last lines of the log; may be empty.
    """

    message: str
    transient: bool = False
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a job is, in quanta (units of work of its pipeline).

    Parameters
    ----------
    done, failed, total : `int`
        Quanta that succeeded, that failed, and that there are in all;
        ``total`` is 0 while it is not known.
    """

    done: int = 0
    failed: int = 0
    total: int = 0


@dataclass(frozen=True, slots=True)
class JobRequest:
    """What a face asks the engine for.

    Parameters
    ----------
    definition : `str`
        Name of the job definition (the UWS job list).
    parameters : `~collections.abc.Mapping` [`str`, `str`]
        Parameters by name, as text.
    run_id : `str`
        The caller's own name for the job.
    owner : `str`
        Who asks; empty means anonymous.
    origin : `str`
        The face that asks (``sal``, ``http``); results of ``sal`` jobs are
        published there, also after a restart.
    priority : `int`
        Larger runs earlier.
    prerequisites : `tuple` [`str`, ...]
        Ids of jobs that must end before this one starts.
    execution_duration : `int` or `None`
        Longest run time (seconds), 0 for no limit, `None` for the default.
    destruction : `datetime.datetime` or `None`
        When to remove the job's files; `None` for the default.
    job_id : `str`
        The id that the job shall have, for a face that must know it before;
        empty for a new one.
    """

    definition: str
    parameters: Mapping[str, str] = field(default_factory=dict)
    run_id: str = ""
    owner: str = ""
    origin: str = ""
    priority: int = 0
    prerequisites: tuple[str, ...] = ()
    execution_duration: int | None = None
    destruction: datetime | None = None
    job_id: str = ""


@dataclass(frozen=True, slots=True)
class Job:
    """A UWS job, as it is at one moment.

    A job is never changed in place: `JobManager` stores a new record and
    then shows it. Parameters that `JobRequest` has too are described there.

    Parameters
    ----------
    id : `str`
        The job's id.
    phase : `ExecutionPhase`
        Where in its life it is.
    spec : `~collections.abc.Mapping`
        What its definition made of the parameters: all that the backend
        needs to run it, frozen when the job was accepted.
    backend : `str`
        Key of the backend that has the job, see `JobManager.use`.
    sequence : `int`
        Number of the change that made this record; grows by every change of
        any job.
    creation_time, start_time, end_time : `datetime.datetime` or `None`
        UTC.
    phase_time : `datetime.datetime`
        When the job entered its phase.
    final_phase : `ExecutionPhase` or `None`
        The end it came to; kept when the job is archived.
    message : `str`
        What it is waiting for or doing, in words.
    exit_code : `int` or `None`
        The process's own exit code; negative for a signal.
    handle : `str`
        The backend's own name for the job.
    dispatched : `bool`
        Whether it may have been given to the backend.
    abort_reason : `str`
        Why it shall stop; empty while nobody wants that.
    deadline_passed : `bool`
        Whether it shall stop because it ran too long.
    published : `bool`
        Whether its result has gone out through the face that asked.
    deleted : `bool`
        Whether it is shown no more; kept only until its result has gone out.
    info : `~collections.abc.Mapping`
        What else is known: last log lines, metrics, task summaries.
    """

    id: str
    definition: str
    phase: ExecutionPhase
    parameters: Mapping[str, str]
    spec: Mapping[str, Any]
    backend: str
    creation_time: datetime
    phase_time: datetime
    sequence: int = 0
    run_id: str = ""
    owner: str = ""
    origin: str = ""
    priority: int = 0
    prerequisites: tuple[str, ...] = ()
    execution_duration: int = 0
    destruction: datetime | None = None
    start_time: datetime | None = None
    end_time: datetime | None = None
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
    published: bool = False
    deleted: bool = False
    info: Mapping[str, Any] = field(default_factory=dict)

    @property
    def terminal(self) -> bool:
        """Whether the job has come to its end."""
        return self.phase in TERMINAL

    @property
    def stopping(self) -> bool:
        """Whether the backend was, or is to be, told to stop the job."""
        return bool(self.abort_reason) or self.deadline_passed
