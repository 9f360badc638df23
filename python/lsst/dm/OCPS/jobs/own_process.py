# SPDX-License-Identifier: GPL-3.0-or-later
"""Process settings that an engine needs: file descriptors, heaps, and protection of its memory."""

from __future__ import annotations

__all__ = ["limit_heaps", "original_open_files", "prepare_process"]

import ctypes
import resource

WANTED_OPEN_FILES = 65_536
"""How many descriptors an engine with many connections may need."""

PR_SET_DUMPABLE = 4

M_ARENA_MAX = -8
"""Option of glibc's ``mallopt``."""

ARENAS = 2
"""How many heaps the threads share. With one for each, free memory in all of them adds up to tens of MB."""

_original: int | None = None


def prepare_process() -> None:
    """Raise the limit of file descriptors, and hide this process's memory from others of the account."""
    global _original
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if _original is None:
        _original = soft
    wanted = WANTED_OPEN_FILES if hard == resource.RLIM_INFINITY else min(hard, WANTED_OPEN_FILES)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    # Jobs run under the same account, and /proc/PID/environ contains secrets.
    ctypes.CDLL(None).prctl(PR_SET_DUMPABLE, 0, 0, 0, 0)


def limit_heaps() -> None:
    """Let all threads of this process share a few heaps; to be called before there are threads."""
    libc = ctypes.CDLL(None)
    # Another C library may lack it.
    if hasattr(libc, "mallopt"):
        libc.mallopt(M_ARENA_MAX, ARENAS)


def original_open_files() -> int:
    """Return the soft limit of file descriptors with which this process was started.

    Jobs get this one, because programs that use select() fail with more than
    1024.
    """
    return resource.getrlimit(resource.RLIMIT_NOFILE)[0] if _original is None else _original
