# SPDX-License-Identifier: GPL-3.0-or-later
"""Write files so that they survive a power cut.

Uses only the standard library, because the supervisor of a local job loads it by path.
"""

from __future__ import annotations

import contextlib
import json
import os
import stat
from pathlib import Path
from typing import Any


class AlreadyClaimedError(Exception):
    """The file exists already: another supervisor has claimed this job."""


def write_json(path: Path, value: Any, *, once: bool = False, durable: bool = True) -> None:
    """Write a JSON file atomically, readable by this account alone.

    Parameters
    ----------
    path : `pathlib.Path`
        The file.
    value : `object`
        What to write.
    once : `bool`
        Whether to raise `AlreadyClaimedError` if the file exists.
    durable : `bool`
        Whether to return only when the file and its directory entry are on disk.

    Raises
    ------
    OSError
        If it cannot be written; then no file is left behind.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with open(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
            json.dump(value, file)
            if durable:
                file.flush()
                os.fsync(file.fileno())
        if once:
            os.link(temporary, path)
        else:
            os.replace(temporary, path)
    except FileExistsError:
        raise AlreadyClaimedError(str(path)) from None
    finally:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
    if durable:
        sync_folder(path.parent)


def sync_folder(path: Path | str) -> None:
    """Write the entries of a directory to disk."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_tree(top: str) -> None:
    """Write all files and directories below a directory to disk; links are not followed.

    Raises
    ------
    OSError
        If that fails.
    """
    for _, _, names, folder in os.fwalk(top, follow_symlinks=False):
        for name in names:
            with contextlib.suppress(FileNotFoundError):
                # Opening anything but a regular file could block or have side effects.
                if not stat.S_ISREG(os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode):
                    continue
                flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
                descriptor = os.open(name, flags, dir_fd=folder)
                try:
                    os.fdatasync(descriptor)
                finally:
                    os.close(descriptor)
        os.fsync(folder)


def tree_size(top: str) -> int:
    """Return how much disk space (bytes) the files below a directory take."""
    total = 0
    for _, _, names, folder in os.fwalk(top, follow_symlinks=False):
        for name in names:
            with contextlib.suppress(OSError):
                total += os.stat(name, dir_fd=folder, follow_symlinks=False).st_blocks * 512
    return total
