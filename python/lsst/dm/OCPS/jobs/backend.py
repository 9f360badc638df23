# SPDX-License-Identifier: GPL-3.0-or-later
"""The interface between the engine and what runs its jobs."""

from __future__ import annotations

__all__ = ["Backend", "BackendUpdate", "RemoteFile", "Report"]

import abc
from collections.abc import AsyncIterator, Callable, Collection, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from .model import ErrorSummary, ExecutionPhase, Job, Progress, Result


@dataclass(frozen=True, slots=True)
class BackendUpdate:
    """What a backend saw of one job; `None` means no news.

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
        How long the job has run already (s), by a clock that does not jump.
        The deadline counts from there.
    outcome_lost : `bool`
        Whether the job has gone without a trace of how it ended, for example
        because it was killed together with what watched it. Such a job that
        was to be stopped counts as stopped.
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


@dataclass(frozen=True, slots=True)
class RemoteFile:
    """A file that lies where its job ran, as it comes.

    Parameters
    ----------
    parts : `~collections.abc.AsyncIterator` [`bytes`]
        Its content from ``start`` on.
    start : `int`
        First byte that comes.
    size : `int` or `None`
        Its whole length (bytes), if known.
    """

    parts: AsyncIterator[bytes]
    start: int = 0
    size: int | None = None


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

    report: Report
    """Set by `JobManager.use` before `open`."""

    @property
    def unreachable_since(self) -> datetime | None:
        """Since when (UTC) the backend's system has not answered; `None` if it does, or is never away."""
        return None

    @abc.abstractmethod
    async def open(self) -> None:
        """Prepare to work; must not wait for a system that may be away."""

    @abc.abstractmethod
    async def close(self) -> None:
        """Release all resources of this process; jobs run on."""

    @abc.abstractmethod
    async def check(self) -> None:
        """Check whether jobs could run, as far as that can be known beforehand.

        Raises
        ------
        BackendError
            If they could not; the text is the reason.
        """

    @abc.abstractmethod
    async def submit(self, job: Job) -> None:
        """Start a job, or make sure that it is started.

        Idempotent by job id: called again after a restart in which it is
        not known whether the first call was carried out.

        Raises
        ------
        BackendError
            If the job cannot be started. It ends as ERROR with this reason.
        """

    @abc.abstractmethod
    async def cancel(self, job: Job) -> None:
        """Begin to stop a job; ABORTED is reported when no process of it runs any more."""

    @abc.abstractmethod
    async def reattach(self, jobs: Collection[Job]) -> None:
        """Watch the jobs that were passed to this backend before a restart.

        Each of ``jobs`` was passed to `submit`, but whether that was carried
        out is not known; one that the backend's system does not have is started.
        """

    async def forget(self, job: Job) -> None:  # noqa: B027 - most have nothing to do
        """Stop watching a job that the engine has ended because it was UNKNOWN too long.

        A job that runs goes on; one that has not been started yet must not
        start any more.
        """

    @asynccontextmanager
    async def fetch(self, job: Job, result: Result | None, start: int) -> AsyncIterator[RemoteFile | None]:
        """Open a file that only this backend can reach, with credentials of its own.

        Parameters
        ----------
        job : `Job`
            Whose file.
        result : `Result` or `None`
            Which result; `None` for the log of a job that runs.
        start : `int`
            First byte that is wanted.

        Yields
        ------
        file : `RemoteFile` or `None`
            The file; `None` if it is not this backend's to fetch.

        Raises
        ------
        FileNotFoundError
            If it is not there.
        BackendError
            If the server that has it cannot be asked.
        """
        yield None
