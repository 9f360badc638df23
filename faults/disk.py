# SPDX-License-Identifier: GPL-3.0-or-later
"""Fill a small disk."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import random
import shutil
from collections.abc import Awaitable, Callable
from pathlib import Path

from .world import MIN_FREE

Hold = Callable[[float], Awaitable[None]]
"""Waits for at most the given time (s)."""


async def fill(folder: Path, hold: Hold, chance: random.Random) -> bool:
    """Fill the disk below OCPS's floor or to the last byte, for a while."""
    path = folder / "filling"
    left = chance.choice((0, MIN_FREE // 2))
    try:
        await asyncio.to_thread(_write, path, left)
        await hold(2)
    finally:
        path.unlink(missing_ok=True)
    return True


def _write(path: Path, left: int) -> None:
    """Write a file that leaves so many bytes."""
    space = os.statvfs(path.parent)
    size = max(0, space.f_bavail * space.f_frsize - left)
    block = bytes(1 << 20)
    with path.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while size > 0 and (done := file.write(block[: min(size, len(block))])):
            size -= done


async def use_up_inodes(folder: Path, hold: Hold) -> bool:
    """Make files until there can be no more, for a while."""
    many = folder / "inodes"
    try:
        await asyncio.to_thread(_make_files, many)
        await hold(1)
    finally:
        await asyncio.to_thread(shutil.rmtree, many, ignore_errors=True)
    return True


def _make_files(folder: Path) -> None:
    folder.mkdir(exist_ok=True)
    try:
        for number in range(1 << 20):
            (folder / str(number)).touch()
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
