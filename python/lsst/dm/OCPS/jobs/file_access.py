# SPDX-License-Identifier: GPL-3.0-or-later
"""Safe access to files that may be slow to read, or that a malicious job may have written."""

from __future__ import annotations

__all__ = ["FILES_TIMEOUT", "UnsafeFileError", "look_at_files", "open_below", "open_regular", "read_json"]

import asyncio
import json
import os
import stat
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path, PurePosixPath
from typing import Any, TypeVar

from .errors import RequestError

FILES_TIMEOUT = 5.0
"""How long (s) a file system may take."""

MAX_JSON = 8 * 2**20
"""Longest JSON file (bytes) that is read."""

# Separate threads: if they hang on a network file system, the engine can
# still write its records in others.
_threads = ThreadPoolExecutor(4, thread_name_prefix="files")

T = TypeVar("T")


class UnsafeFileError(OSError):
    """A path does not lead to a regular file, or leads out of its directory."""


async def look_at_files(look: Callable[..., T], *arguments: object) -> T:
    """Call ``look(*arguments)``, which may wait for files, in a thread; return its result.

    Raises
    ------
    RequestError
        If it takes longer than `FILES_TIMEOUT`.
    """
    looking = asyncio.get_running_loop().run_in_executor(_threads, look, *arguments)
    try:
        return await asyncio.wait_for(looking, FILES_TIMEOUT)
    except TimeoutError:
        raise RequestError(
            f"a file system has not answered within {FILES_TIMEOUT:g} s; is it mounted?"
        ) from None


def open_regular(path: Path | str, folder: int | None = None) -> int:
    """Open a regular file for reading, without waiting and without following a link.

    Parameters
    ----------
    path : `pathlib.Path` or `str`
        The file.
    folder : `int`, optional
        Descriptor of the directory that ``path`` is relative to.

    Returns
    -------
    descriptor : `int`
        To be closed by the caller.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    UnsafeFileError
        If it is a link, a pipe, a device, or anything else but a file.
    OSError
        If it cannot be opened for another reason.
    """
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY
    # Checked before opening, because opening a device may have side effects.
    if not stat.S_ISREG(os.stat(path, dir_fd=folder, follow_symlinks=False).st_mode):
        raise UnsafeFileError(f"{path} is not a regular file")
    descriptor = os.open(path, flags, dir_fd=folder)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise UnsafeFileError(f"{path} is not a regular file")
    return descriptor


def open_below(top: Path, relative: str) -> int:
    """Open a regular file below a directory, one path component at a time, following no link.

    Parameters
    ----------
    top : `pathlib.Path`
        The directory; it must not be a link itself.
    relative : `str`
        Path of the file relative to it.

    Returns
    -------
    descriptor : `int`
        To be closed by the caller.

    Raises
    ------
    UnsafeFileError
        If the path leads out, or what is there is not a regular file.
    OSError
        If it cannot be opened.
    """
    parts = PurePosixPath(relative).parts
    if not parts or ".." in parts or parts[0] == "/":
        raise UnsafeFileError(f"{relative!r} is not a path below {top}")
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
    folder = os.open(top, flags)
    try:
        for part in parts[:-1]:
            below = os.open(part, flags, dir_fd=folder)
            os.close(folder)
            folder = below
        return open_regular(parts[-1], folder)
    finally:
        os.close(folder)


def read_json(path: Path, limit: int = MAX_JSON) -> Any:
    """Return the content of a JSON file; `None` if it is missing, not valid, or longer than ``limit``.

    Raises
    ------
    OSError
        If the file exists and cannot be read, for example because no file
        descriptor is free.
    """
    try:
        descriptor = open_regular(path)
    except (FileNotFoundError, NotADirectoryError, UnsafeFileError):
        return None
    with os.fdopen(descriptor, "rb") as file:
        content = file.read(limit + 1)
    if len(content) > limit:
        return None
    try:
        return json.loads(content)
    except (ValueError, RecursionError):
        # Truncated, or nested too deeply to be parsed.
        return None
