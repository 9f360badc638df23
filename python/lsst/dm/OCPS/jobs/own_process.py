# SPDX-License-Identifier: GPL-3.0-or-later
"""Settings of this process that an engine needs."""

from __future__ import annotations

__all__ = ["original_open_files", "prepare_process"]

import ctypes
import resource

WANTED_OPEN_FILES = 65_536
"""How many descriptors an engine with many connections may need."""

PR_SET_DUMPABLE = 4

_original: int | None = None


def prepare_process() -> None:
    """Allow this process more descriptors, and its memory and environment to no other of this account."""
    global _original
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if _original is None:
        _original = soft
    wanted = WANTED_OPEN_FILES if hard == resource.RLIM_INFINITY else min(hard, WANTED_OPEN_FILES)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    # The jobs run under the same account, and /proc/PID/environ has secrets.
    ctypes.CDLL(None).prctl(PR_SET_DUMPABLE, 0, 0, 0, 0)


def original_open_files() -> int:
    """Return the soft limit of descriptors that this process was started with.

    Programs that use select() fail with more than 1024, so jobs get this one.
    """
    return resource.getrlimit(resource.RLIMIT_NOFILE)[0] if _original is None else _original
