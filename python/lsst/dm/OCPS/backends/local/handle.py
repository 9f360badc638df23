# SPDX-License-Identifier: GPL-3.0-or-later
"""Supervisors, which are not children of this process: their files, and handles to watch and stop them."""

from __future__ import annotations

__all__ = ["Claim", "Status", "SupervisorHandle"]

import asyncio
import contextlib
import os
import signal
import time
from typing import Annotated, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ...jobs.workspace import Workspace
from .processes import identity
from .supervisor import seal

Count = Annotated[int, Field(ge=0, le=2**63 - 1)]
ProcessId = Annotated[int, Field(gt=1, le=2**22)]


class _EngineFile(BaseModel):
    """A file of the engine that is checked before it is used."""

    model_config = ConfigDict(frozen=True, strict=True)

    @classmethod
    def read(cls, workspace: Workspace, name: str) -> Self | None:
        """Return the content of a file; `None` if it is missing or not valid."""
        document = workspace.read_json(name)
        try:
            return None if document is None else cls.model_validate(document)
        except ValidationError:
            return None


class Claim(_EngineFile):
    """Identity of the supervisor that runs a job; see ``supervisor.json`` in `supervisor`."""

    pid: ProcessId
    session: ProcessId
    start: Count
    boot: Annotated[str, Field(max_length=64)]
    seal: Annotated[str, Field(pattern="^[0-9a-f]{64}$")]

    @classmethod
    def parse(cls, text: str | None) -> Claim | None:
        """Return the claim that was stored with a job; `None` if none was."""
        try:
            return cls.model_validate_json(text or "")
        except ValidationError:
            return None


class Status(_EngineFile):
    """How a job ended; see ``status.json`` in `supervisor`."""

    token: Annotated[str, Field(max_length=128)]
    exit_code: Annotated[int, Field(ge=-256, le=255)] | None
    step: Count
    cancelled: bool
    failure: Annotated[str, Field(max_length=1000)]
    max_rss: Count
    cpu: Annotated[float, Field(ge=0, allow_inf_nan=False)]

    def is_by(self, claim: Claim | None) -> bool:
        """Return whether the supervisor of this claim wrote the status."""
        return claim is not None and seal(self.token) == claim.seal


class SupervisorHandle:
    """A running supervisor.

    It holds a descriptor of the process, so that a later process with the
    same id cannot be mistaken for it.

    Parameters
    ----------
    fd : `int`
        Descriptor of the process (``pidfd``).
    pid : `int`
        Its id.
    start : `int`
        When it was started (clock ticks since the boot of the machine).
    """

    def __init__(self, fd: int, pid: int, start: int) -> None:
        self._fd = fd
        self.pid = pid
        self._start = start

    @classmethod
    def find(cls, claim: Claim | None) -> SupervisorHandle | None:
        """Return a handle of the supervisor that wrote a claim.

        Parameters
        ----------
        claim : `Claim` or `None`
            The claim.

        Returns
        -------
        handle : `SupervisorHandle` or `None`
            The handle; `None` if the supervisor has ended.

        Raises
        ------
        OSError
            If that cannot be determined, for example because no descriptor is
            free.
        """
        if claim is None:
            return None
        try:
            fd = os.pidfd_open(claim.pid)
        except ProcessLookupError:
            return None
        try:
            same = identity(claim.pid) == claim.model_dump(exclude={"seal"})
        except BaseException:
            os.close(fd)
            raise
        if not same:
            os.close(fd)
            return None
        return cls(fd, claim.pid, claim.start)

    def elapsed(self) -> float:
        """Return for how long the supervisor has run (s), by a monotonic clock."""
        return max(0.0, time.clock_gettime(time.CLOCK_BOOTTIME) - self._start / os.sysconf("SC_CLK_TCK"))

    async def ended(self) -> None:
        """Wait until the supervisor has ended."""
        loop = asyncio.get_running_loop()
        done = asyncio.Event()
        loop.add_reader(self._fd, done.set)
        try:
            await done.wait()
        finally:
            loop.remove_reader(self._fd)
        if os.getpid() == 1:
            # In a container without an init process, orphans become children of this process.
            with contextlib.suppress(ChildProcessError):
                os.waitpid(self.pid, os.WNOHANG)  # noqa: ASYNC222 (it does not wait)

    def terminate(self) -> None:
        """Tell the supervisor to stop its job."""
        with contextlib.suppress(OSError):
            signal.pidfd_send_signal(self._fd, signal.SIGTERM)

    def close(self) -> None:
        """Close the descriptor."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
