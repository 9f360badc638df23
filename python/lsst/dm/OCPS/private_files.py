# SPDX-License-Identifier: GPL-3.0-or-later
"""Files that hold secrets, which their owner alone may read."""

from __future__ import annotations

__all__ = ["read_private_file", "stamp_of"]

import os
import stat
from pathlib import Path


def read_private_file(path: Path, size: int = 1 << 20) -> tuple[str, tuple[int, int, int]]:
    """Return the text of a file that holds secrets, and a stamp that changes with it.

    Parameters
    ----------
    path : `pathlib.Path`
        The file.
    size : `int`
        The longest it may be (bytes).

    Raises
    ------
    OSError
        If it cannot be read.
    ValueError
        If others than its owner may read it, or it is no regular file, not
        UTF-8, or too long. The text says so.
    """
    with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
        status = os.fstat(file.fileno())
        if not stat.S_ISREG(status.st_mode):
            raise ValueError("it is not a regular file")
        if status.st_uid not in (os.geteuid(), 0):
            raise ValueError("it belongs to another account than the one that OCPS runs as")
        if status.st_mode & 0o077:
            raise ValueError(f"others than its owner may read or write it; use chmod 600 {path}")
        data = file.read(size + 1)
    if len(data) > size:
        raise ValueError(f"it is longer than {size} bytes")
    return data.decode(), stamp_of(status)


def stamp_of(status: os.stat_result) -> tuple[int, int, int]:
    """Return what changes when a file does."""
    return status.st_mtime_ns, status.st_ctime_ns, status.st_ino
