# SPDX-License-Identifier: GPL-3.0-or-later
"""Tell a job to run, stop or wait, also where an answer is lost."""

from __future__ import annotations

__all__ = ["tell"]

from collections.abc import Awaitable, Callable

from .documents import RemoteJob
from .errors import RefusedError, UnreachableError
from .job_lists import JobLists

TIMEOUT = 60.0
"""How long (s) the answer may take: an abortion is answered when nothing runs any more."""


async def tell(
    lists: JobLists,
    url: str,
    phase: str,
    get: Callable[[], Awaitable[RemoteJob]],
    done: Callable[[RemoteJob], bool],
) -> RemoteJob:
    """Tell a job to change its phase; return it as it is then.

    Parameters
    ----------
    lists : `JobLists`
        Sends the request.
    url : `str`
        The job.
    phase : `str`
        RUN, ABORT or HOLD.
    get : `~collections.abc.Callable`
        Returns the job as it is now.
    done : `~collections.abc.Callable`
        Tells whether a job has heard it.
    """
    lost = False
    for _ in range(2):
        try:
            await lists.set_phase(url, phase, timeout=TIMEOUT)
            return await get()
        except RefusedError:
            # The first time it may have been heard, and only the answer been lost.
            if lost and done(found := await get()):
                return found
            raise
        except UnreachableError:
            if lost or done(found := await get()):
                if lost:
                    raise
                return found
            lost = True
    raise AssertionError("not reached")
