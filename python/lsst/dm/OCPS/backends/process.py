# This file is part of dm_OCPS.
#
# Developed for the Vera C. Rubin Observatory.
# License: GPL-3.0-or-later; see COPYRIGHT and LICENSE at the top of the repository.
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
    """

    def __init__(self, fd: int) -> None:
        self._fd = fd

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
        return cls(fd)

    async def ended(self) -> None:
        """Wait for its end."""
        loop = asyncio.get_running_loop()
        done = asyncio.Event()
        loop.add_reader(self._fd, done.set)
        try:
            await done.wait()
        finally:
            loop.remove_reader(self._fd)

    def terminate(self) -> None:
        """Tell it to stop its job."""
        with contextlib.suppress(OSError):
            signal.pidfd_send_signal(self._fd, signal.SIGTERM)

    def close(self) -> None:
        """Let go of it."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


def kill_group(claim: Mapping[str, Any] | None) -> None:
    """Kill the process group that ``group.json`` names, if it is still that one."""
    if claim and identity(claim["pid"]) == claim:
        with contextlib.suppress(OSError):
            os.killpg(claim["pid"], signal.SIGKILL)
