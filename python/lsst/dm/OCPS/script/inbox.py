# SPDX-License-Identifier: GPL-3.0-or-later
"""Results of jobs as they arrive over SAL, and who waits for them."""

from __future__ import annotations

__all__ = ["Inbox"]

import asyncio
from collections import OrderedDict
from typing import Any

from .errors import OcpsError
from .result import JobResult

REMEMBERED = 1000
"""How many results of unknown jobs to keep, because a result can arrive before the job's id."""


class Inbox:
    """Passes each result to whoever waits for it, in whichever order id and result arrive."""

    def __init__(self) -> None:
        self._waiting: dict[str, asyncio.Future[JobResult]] = {}
        self._unclaimed: OrderedDict[str, Any] = OrderedDict()

    def expect(self, job_id: str) -> asyncio.Future[JobResult]:
        """Return the future of a job's result, even if the result has arrived already."""
        future: asyncio.Future[JobResult] = asyncio.get_running_loop().create_future()
        if (data := self._unclaimed.pop(job_id, None)) is not None:
            _resolve(future, data)
        else:
            self._waiting[job_id] = future
        return future

    async def hear(self, data: Any) -> None:
        """Take a result that has arrived: a callback of ``job_result``."""
        if future := self._waiting.pop(data.job_id, None):
            _resolve(future, data)
            return
        self._unclaimed[data.job_id] = data
        while len(self._unclaimed) > REMEMBERED:
            self._unclaimed.popitem(last=False)


def _resolve(future: asyncio.Future[JobResult], data: Any) -> None:
    if not future.done():
        try:
            future.set_result(JobResult.from_event(data))
        except ValueError as error:
            future.set_exception(OcpsError(str(error)))
