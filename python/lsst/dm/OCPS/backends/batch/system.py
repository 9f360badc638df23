# SPDX-License-Identifier: GPL-3.0-or-later
"""The interface between `BatchBackend` and a batch system."""

from __future__ import annotations

__all__ = ["PHASES", "BatchSystem", "Entry", "State", "Submission", "SystemAwayError"]

import enum
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from ...jobs.model import ExecutionPhase


class SystemAwayError(Exception):
    """The batch system does not answer; what it was asked to do may have been done or not."""


class State(enum.Enum):
    """What a batch system says of a job."""

    WAITING = "waiting"
    RUNNING = "running"
    SUSPENDED = "suspended"
    STOPPING = "stopping"
    """It has ended or was told to, and its node is being tidied up."""
    ENDED = "ended"


PHASES = {
    State.WAITING: ExecutionPhase.QUEUED,
    State.RUNNING: ExecutionPhase.EXECUTING,
    State.SUSPENDED: ExecutionPhase.SUSPENDED,
    State.STOPPING: ExecutionPhase.EXECUTING,
}
"""Phases of jobs that have not ended, by the system's state."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One job of a batch system.

    Parameters
    ----------
    system_id : `str`
        The system's id of it.
    state : `State`
        Its state.
    reason : `str`
        Why it waits, in words.
    elapsed : `float`
        How long it has run (s).
    exit_code : `int` or `None`
        Exit code, negative for a signal, once it has ended.
    failure : `str`
        Why the system ended it; empty if it ended by itself.
    transient : `bool`
        Whether it may succeed when it is tried again.
    cancelled : `bool`
        Whether somebody cancelled it.
    may_still_run : `bool`
        Whether the system cannot tell that no process of it runs any more,
        for example because its node does not answer.
    """

    system_id: str
    state: State
    reason: str = ""
    elapsed: float = 0.0
    exit_code: int | None = None
    failure: str = ""
    transient: bool = False
    cancelled: bool = False
    may_still_run: bool = False


@dataclass(frozen=True, slots=True)
class Submission:
    """What a batch system is to run.

    Parameters
    ----------
    tag : `str`
        The name by which the system must find it again.
    argv : `tuple` [`str`, ...]
        The command.
    folder : `pathlib.Path`
        Where it is to be run.
    output : `pathlib.Path`
        Where standard output and error go.
    """

    tag: str
    argv: tuple[str, ...]
    folder: Path
    output: Path


class BatchSystem(Protocol):
    """A batch system, as far as `BatchBackend` needs it.

    Each method raises `SystemAwayError` if the system does not answer.
    """

    name: str

    async def check(self) -> None:
        """Raise `BackendError` if jobs could not be submitted."""

    async def submit(self, submission: Submission) -> str:
        """Submit a job and return the system's id of it; raise `BackendError` if it is refused."""

    async def query(self) -> Mapping[str, list[Entry]]:
        """Return all jobs that the system knows, by their tags."""

    async def history(self, tags: Collection[str]) -> Mapping[str, list[Entry]] | None:
        """Return those of these jobs of which only the system's records tell; `None` without such records."""

    async def terminate(self, system_ids: Collection[str]) -> None:
        """Send SIGTERM to the supervisors of jobs that run, and to no other process."""

    async def cancel(self, system_ids: Collection[str]) -> None:
        """Begin to stop jobs; no error for those that have ended."""
