# SPDX-License-Identifier: GPL-3.0-or-later
"""Looking at file systems that may not answer."""

from __future__ import annotations

__all__ = ["FILES_TIMEOUT", "look_at_files"]

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from .errors import RequestError

FILES_TIMEOUT = 5.0
"""How long (s) a file system may take."""

# Threads of their own: those that hang on a network file system must not be
# missing where the engine writes its records.
_threads = ThreadPoolExecutor(4, thread_name_prefix="files")

T = TypeVar("T")


async def look_at_files(look: Callable[..., T], *arguments: object) -> T:
    """Return what ``look(*arguments)`` returns, which may wait for files.

    Raises
    ------
    RequestError
        If that takes too long.
    """
    looking = asyncio.get_running_loop().run_in_executor(_threads, look, *arguments)
    try:
        return await asyncio.wait_for(looking, FILES_TIMEOUT)
    except TimeoutError:
        raise RequestError(
            f"a file system has not answered within {FILES_TIMEOUT:g} s; is it mounted?"
        ) from None
