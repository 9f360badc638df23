# SPDX-License-Identifier: GPL-3.0-or-later
"""Watching a supervisor that is not a child of this process."""

from __future__ import annotations

__all__ = ["SupervisorHandle"]

import asyncio
import contextlib
import os
import signal
from collections.abc import Mapping
from typing import Any

from .supervisor import identity


class SupervisorHandle:
    """A running supervisor, known by what it wrote into the workspace.

    Holds a descriptor of the process, so that a later process of the same
    number can never be taken for it.

    Parameters
    ----------
    fd : `int`
        Descriptor of the process (``pidfd``).
    pid : `int`
        Its number.
    """

    def __init__(self, fd: int, pid: int) -> None:
        self._fd = fd
        self.pid = pid

    @classmethod
    def find(cls, claim: Mapping[str, Any] | None) -> SupervisorHandle | None:
        """Return a handle of the supervisor that wrote ``claim``.

        Parameters
        ----------
        claim : `~collections.abc.Mapping` or `None`
            What ``supervisor.json`` says.

        Returns
        -------
        handle : `SupervisorHandle` or `None`
            `None` if it runs no more.
        """
        if not claim:
            return None
        try:
            fd = os.pidfd_open(claim["pid"])
        except OSError:
            return None
        if identity(claim["pid"]) != claim:
            os.close(fd)
            return None
        return cls(fd, claim["pid"])

    async def ended(self) -> None:
        """Wait for its end."""
        loop = asyncio.get_running_loop()
        done = asyncio.Event()
        loop.add_reader(self._fd, done.set)
        try:
            await done.wait()
        finally:
            loop.remove_reader(self._fd)
        if os.getpid() == 1:
            # In a container without an init of its own, orphans are ours to bury.
            with contextlib.suppress(ChildProcessError):
                os.waitpid(self.pid, os.WNOHANG)  # noqa: ASYNC222 (it does not wait)

    def terminate(self) -> None:
        """Tell it to stop its job."""
        with contextlib.suppress(OSError):
            signal.pidfd_send_signal(self._fd, signal.SIGTERM)

    def close(self) -> None:
        """Let go of it."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


def kill_session(claim: Mapping[str, Any] | None) -> None:
    """Kill what a supervisor left when it was killed itself.

    Its job, and all that this started, are in the supervisor's session. The
    session's own process ended at once, so if there is one of that number,
    it is another session.

    Parameters
    ----------
    claim : `~collections.abc.Mapping` or `None`
        What ``supervisor.json`` says.
    """
    if not claim or identity(claim["session"]):
        return
    for name in os.listdir("/proc"):
        found = identity(int(name)) if name.isdigit() else None
        if found and all(found[key] == claim[key] for key in ("session", "boot")):
            with contextlib.suppress(OSError):
                os.kill(found["pid"], signal.SIGKILL)
