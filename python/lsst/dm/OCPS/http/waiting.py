# SPDX-License-Identifier: GPL-3.0-or-later
"""WAIT: an answer that is delayed until a job's phase changes (UWS 1.1, section 2.2.1.1)."""

from __future__ import annotations

__all__ = ["wait_for_change"]

import asyncio
import re

from aiohttp import web

from ..jobs.errors import RequestError
from ..jobs.model import ACTIVE, ExecutionPhase, Job
from .context import Service

FOREVER = 55.0
"""How long (s) WAIT=-1 waits: less than 60 s, a common time-out of proxies."""

LONGEST = 86_400.0
"""Longest wait (s) that can be requested."""

LOOK_INTERVAL = 15.0
"""How often (s) to check whether the client is still connected."""


async def wait_for_change(service: Service, request: web.Request, job: Job) -> Job:
    """Wait as requested by WAIT and PHASE in the query of a request.

    Returns
    -------
    job : `Job`
        The job when its phase has changed, or the time is over; without
        waiting if UWS does not wait in its phase.

    Raises
    ------
    RequestError
        If WAIT or PHASE is not valid.
    """
    query = {name.upper(): value for name, value in request.query.items()}
    phase = query.get("PHASE")
    if phase is not None and phase not in ExecutionPhase.__members__:
        raise RequestError(f"PHASE: {phase[:40]!r} is not one of {', '.join(ExecutionPhase)}")
    if "WAIT" not in query:
        return job
    time = _parse_wait(query["WAIT"])
    if job.phase not in ACTIVE or phase not in (None, job.phase):
        return job
    loop = asyncio.get_running_loop()
    end = loop.time() + time
    first = job.phase
    while job.phase == first and (left := end - loop.time()) > 0:
        if request.transport is None or request.transport.is_closing():
            break
        job = await service.manager.wait(job.id, min(left, LOOK_INTERVAL), ACTIVE)
    return job


def _parse_wait(text: str) -> float:
    if not re.fullmatch(r"-?\d{1,18}", text.strip()):
        raise RequestError(f"WAIT: {text[:40]!r} is not a whole number of seconds")
    time = int(text)
    return FOREVER if time < 0 else min(float(time), LONGEST)
