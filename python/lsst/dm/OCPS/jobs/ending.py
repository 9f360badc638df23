# SPDX-License-Identifier: GPL-3.0-or-later
"""What happens to live jobs when OCPS ends."""

from __future__ import annotations

__all__ = ["end_jobs"]

import asyncio
from collections.abc import Iterable
from typing import Literal

from .manager import JobManager
from .model import ExecutionPhase, Job


async def end_jobs(manager: JobManager, on_exit: Literal["leave", "wait", "abort"]) -> None:
    """Leave running jobs alone, wait for them, or abort them.

    Parameters
    ----------
    manager : `JobManager`
        The engine, open.
    on_exit : `str`
        ``leave``: jobs continue; ``wait``: wait for all jobs that will end
        without further requests; ``abort``: abort all that are not PENDING.
    """
    if on_exit == "abort":
        live = (job for job in manager.live() if job.phase != ExecutionPhase.PENDING)
        aborts = (manager.abort(job.id, "OCPS ends") for job in live)
        await asyncio.gather(*aborts, return_exceptions=True)
    elif on_exit == "wait":
        ends = (manager.wait(job_id) for job_id in _ending_by_themselves(manager.live()))
        await asyncio.gather(*ends, return_exceptions=True)


def _ending_by_themselves(live: Iterable[Job]) -> set[str]:
    """Return the ids of jobs that will end without further requests.

    A PENDING or HELD job will not, nor one that waits for such a job,
    directly or through others.
    """
    found = {job.id: job for job in live if job.phase not in (ExecutionPhase.PENDING, ExecutionPhase.HELD)}
    everyone = {job.id for job in live}
    while True:
        stuck = {
            job.id
            for job in found.values()
            if not job.dispatched and any(other in everyone - found.keys() for other in job.prerequisites)
        }
        if not stuck:
            return set(found)
        found = {job_id: job for job_id, job in found.items() if job_id not in stuck}
