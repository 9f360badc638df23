# SPDX-License-Identifier: GPL-3.0-or-later
"""Waiting for what happens outside a test, however slow the machine is.

A time-out here only bounds a hang: no test may pass or fail by how long
something took.
"""

from __future__ import annotations

__all__ = ["TIMEOUT", "until", "until_blocking", "until_job"]

import asyncio
import inspect
import time
from collections.abc import Callable
from typing import Any

from lsst.dm.OCPS.jobs.manager import JobManager
from lsst.dm.OCPS.jobs.model import Job

TIMEOUT = 120.0
"""How long (s) a test waits before it calls something a hang."""

INTERVAL = 0.02
"""How long (s) between two looks at a condition."""


async def until(condition: Callable[[], Any], timeout: float = TIMEOUT) -> Any:
    """Wait until a condition holds that sends no event; return its value.

    Parameters
    ----------
    condition : `~collections.abc.Callable`
        A function or coroutine function; true when the wait is over.
    timeout : `float`
        Time (s) after which this is a hang.

    Returns
    -------
    value
        What the condition returned at last.

    Raises
    ------
    TimeoutError
        If the condition did not hold in time.
    """
    async with asyncio.timeout(timeout):
        while True:
            value = condition()
            if inspect.isawaitable(value):
                value = await value
            if value:
                return value
            await asyncio.sleep(INTERVAL)


def until_blocking(condition: Callable[[], Any], timeout: float = TIMEOUT) -> Any:
    """Wait as `until` does, in a test without an event loop."""
    deadline = time.monotonic() + timeout
    while not (value := condition()):
        if time.monotonic() > deadline:
            raise TimeoutError(f"not within {timeout:.0f} s")
        time.sleep(INTERVAL)
    return value


async def until_job(
    manager: JobManager, job_id: str, condition: Callable[[Job], Any], timeout: float = TIMEOUT
) -> Job:
    """Wait until a job's record meets a condition, if only for a moment; return such a record."""

    def wanted(job: Job) -> bool:
        # Asked at each change, while the reader sees the last of those that follow each other closely.
        return job.id == job_id and bool(condition(job))

    async with asyncio.timeout(timeout), manager.subscribe(wanted) as changes:
        job = await manager.get(job_id)
        return job if condition(job) else await anext(aiter(changes))
