# SPDX-License-Identifier: GPL-3.0-or-later
"""Pages of memory that a forked process will write, copied before it does.

Loaded by path by ``main.py``. Python counts references in every object, so a
forked process writes to, and so copies, thousands of pages, one fault each.
Which ones these are differs little from job to job: they are learnt from a
trial, and copied by a child that waits for its job.
"""

from __future__ import annotations

import ctypes
import mmap
import os
from collections.abc import Iterable
from pathlib import Path

MADV_POPULATE_WRITE = 23
PR_SET_DUMPABLE = 4

_ENTRY = 8
_EXCLUSIVE = 1 << 56
_FILE_OR_SHARED = 1 << 61
_PRESENT = 1 << 63

Range = tuple[int, int]
"""Addresses: the first, and the one after the last."""


def writable() -> list[Range]:
    """Return this process's private memory that can be written."""
    found = []
    for line in Path("/proc/self/maps").read_text().splitlines():
        addresses, mode, _ = line.split(maxsplit=2)
        if mode == "rw-p":
            begin, end = addresses.split("-")
            found.append((int(begin, 16), int(end, 16)))
    return found


def copied(among: Iterable[Range]) -> list[Range]:
    """Return the pages that this process, a forked one, has for itself.

    Parameters
    ----------
    among : `~collections.abc.Iterable`
        Where to look: memory that the parent had when it forked.

    Raises
    ------
    OSError
        If the kernel does not tell.
    """
    found: list[Range] = []
    prctl = ctypes.CDLL(None).prctl
    # The file of a process whose memory others may not read is root's.
    prctl(PR_SET_DUMPABLE, 1, 0, 0, 0)
    try:
        pagemap = os.open("/proc/self/pagemap", os.O_RDONLY | os.O_CLOEXEC)
    finally:
        prctl(PR_SET_DUMPABLE, 0, 0, 0, 0)
    try:
        for begin, end in among:
            first, count = begin // mmap.PAGESIZE, (end - begin) // mmap.PAGESIZE
            entries = memoryview(os.pread(pagemap, count * _ENTRY, first * _ENTRY)).cast("Q")
            for number, entry in enumerate(entries):
                if entry & _PRESENT and entry & _EXCLUSIVE and not entry & _FILE_OR_SHARED:
                    address = begin + number * mmap.PAGESIZE
                    if found and found[-1][1] == address:
                        found[-1] = found[-1][0], address + mmap.PAGESIZE
                    else:
                        found.append((address, address + mmap.PAGESIZE))
    finally:
        os.close(pagemap)
    return found


def populate(ranges: Iterable[Range]) -> None:
    """Have the kernel give this process its own copy of some pages.

    Without effect where the kernel cannot do so (before Linux 5.14).
    """
    madvise = ctypes.CDLL(None).madvise
    madvise.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
    for begin, end in ranges:
        madvise(begin, end - begin, MADV_POPULATE_WRITE)


def available() -> int:
    """Return how much memory (bytes) can be used without swapping."""
    for line in Path("/proc/meminfo").read_text().splitlines():
        name, _, value = line.partition(":")
        if name == "MemAvailable":
            return int(value.split()[0]) * 1024
    return 0
