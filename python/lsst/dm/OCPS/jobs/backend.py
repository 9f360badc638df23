# SPDX-License-Identifier: GPL-3.0-or-later
"""The interface between the engine and what runs its jobs."""

from __future__ import annotations

__all__ = ["Backend", "BackendUpdate", "RemoteFile", "Report", "not_started"]

import abc
from collections.abc import AsyncIterator, Callable, Collection, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from .dry_run import DryRun
from .errors import BackendError
from .model import ErrorSummary, ExecutionPhase, Job, Progress, Result


@dataclass(frozen=True, slots=True)
class BackendUpdate:
    """News of one job from its backend; `None` means that a field is unchanged.

    Parameters
    ----------
    phase : `ExecutionPhase` or `None`
        The phase that the backend's system shows. ABORTED means that the job
        was stopped and that no process of it runs any more.
    message : `str` or `None`
        What the job is doing, in words.
    exit_code : `int` or `None`
        The process's exit code; negative for a signal.
    progress : `Progress` or `None`
        Quanta done.
    results : `tuple` [`Result`, ...] or `None`
        All results.
    error : `ErrorSummary` or `None`
        Why it failed.
    handle : `str` or `None`
        The backend's own name for the job.
    info : `~collections.abc.Mapping` or `None`
        Entries to add to the job's ``info``.
    elapsed : `float` or `None`
        How long the job has run (s), by a monotonic clock. Its deadline is
        measured by this.
    outcome_lost : `bool`
        Whether the job disappeared without a record of how it ended, for
        example because it was killed together with its supervisor. If the job
        was being stopped, it counts as stopped.
    may_still_run : `bool`
        Whether something of a job that failed may still run, so that it must
        not be run again, whatever its definition says.
    """

    phase: ExecutionPhase | None = None
    message: str | None = None
    exit_code: int | None = None
    progress: Progress | None = None
    results: tuple[Result, ...] | None = None
    error: ErrorSummary | None = None
    handle: str | None = None
    info: Mapping[str, Any] | None = None
    elapsed: float | None = None
    outcome_lost: bool = False
    may_still_run: bool = False


@dataclass(frozen=True, slots=True)
class RemoteFile:
    """A stream of a file that is stored where its job ran.

    Parameters
    ----------
    parts : `~collections.abc.AsyncIterator` [`bytes`]
        The content from ``start`` on.
    start : `int`
        Position of the first byte.
    size : `int` or `None`
        Length of the whole file (bytes), if known.
    """

    parts: AsyncIterator[bytes]
    start: int = 0
    size: int | None = None


def not_started(error: Exception, words: str) -> BackendUpdate:
    """Return the end of a job that could not be started.

    Parameters
    ----------
    error : `Exception`
        Why.
    words : `str`
        The message for people.
    """
    doubt = isinstance(error, BackendError) and error.may_still_run
    return BackendUpdate(phase=ExecutionPhase.ERROR, error=ErrorSummary(words), may_still_run=doubt)


Report = Callable[[str, BackendUpdate], None]
"""How a backend tells the engine what it saw: ``report(job_id, update)``.

It returns at once and may be called for jobs that have ended meanwhile.
"""


class Backend(abc.ABC):
    """A system that runs jobs.

    A backend reports what it sees and decides nothing: phases, retries of
    whole jobs, deadlines and results are the engine's.
    """

    kinds: Collection[str]
    """Kinds of specs that it runs (`Spec.kind`); a job of another kind is refused when it is requested."""

    may_be_away: bool = False
    """Whether it depends on a system that can be out of reach, so that `check` is asked now and then."""

    runs_again = False
    """Whether `submit` can run a job again, with a `Job.attempt` after the first.

    Each attempt has a workspace of its own, and is to be started once. The
    backend reports ERROR only when nothing of the attempt runs any more, or
    with ``may_still_run``, and marks the error as transient if the same job
    may succeed the next time.
    Job definitions with ``retries`` are refused where this is false.
    """

    report: Report
    """Set by `JobManager.use` before `open`."""

    @property
    def unreachable_since(self) -> datetime | None:
        """When (UTC) the backend's system last ceased to answer; `None` while it answers."""
        return None

    @abc.abstractmethod
    async def open(self) -> None:
        """Prepare to run jobs; must not wait for a system that may be unreachable."""

    @abc.abstractmethod
    async def close(self) -> None:
        """Release all resources of this process; jobs continue."""

    @abc.abstractmethod
    async def check(self) -> None:
        """Check whether jobs could run, as far as that can be known before one is submitted.

        Raises
        ------
        BackendError
            If jobs could not run; the text is the reason.
        """

    @abc.abstractmethod
    async def submit(self, job: Job) -> None:
        """Start a job.

        Idempotent by job id: it is called again after a restart if it is not
        known whether the first call started the job.

        Raises
        ------
        BackendError
            If the job cannot be started. It ends as ERROR with this reason.
        """

    async def dry_run(self, job: Job) -> DryRun:
        """Find out what a job would do, without running it or writing anything that lasts.

        Parameters
        ----------
        job : `Job`
            A record that is stored nowhere.

        Raises
        ------
        WouldFailError
            If the job would fail, as far as that can be known beforehand.
        QueueFullError
            If too many are under way.
        BackendError
            If it cannot be found out now.
        """
        return DryRun("the request; this backend has no dry run of its own")

    @abc.abstractmethod
    async def cancel(self, job: Job) -> None:
        """Begin to stop a job; report ABORTED when none of its processes runs any more."""

    @abc.abstractmethod
    async def reattach(self, jobs: Collection[Job]) -> None:
        """Watch the jobs that were passed to this backend before a restart.

        Each of ``jobs`` was passed to `submit`, but `submit` may not have
        finished; start those that the backend's system does not have.
        """

    async def forget(self, job: Job) -> None:  # noqa: B027 - most have nothing to do
        """Stop watching a job that the engine has ended because it was UNKNOWN too long.

        A running job continues; one that has not been started must not start.
        """

    @asynccontextmanager
    async def fetch(self, job: Job, result: Result | None, start: int) -> AsyncIterator[RemoteFile | None]:
        """Open a file that only this backend can reach, with credentials of its own.

        Parameters
        ----------
        job : `Job`
            The job whose file it is.
        result : `Result` or `None`
            The result; `None` for the log of a running job.
        start : `int`
            Position of the first byte to return.

        Yields
        ------
        file : `RemoteFile` or `None`
            The file; `None` if this backend does not fetch files.

        Raises
        ------
        FileNotFoundError
            If the file does not exist.
        BackendError
            If the server that has the file cannot be reached.
        """
        yield None
