# SPDX-License-Identifier: GPL-3.0-or-later
"""An engine on the uws backend as a process of its own, to be killed.

``python engine_process.py CONFIG COUNT`` submits COUNT jobs, prints the id of
each and, as they come, ``EXECUTING <id>``.
"""

from __future__ import annotations

import asyncio
import logging
import sys

from lsst.dm.OCPS.config import InstanceConfig
from lsst.dm.OCPS.factory import make_manager
from lsst.dm.OCPS.jobs.model import ACTIVE, ExecutionPhase, JobRequest


async def main(config: str, count: int) -> None:
    """Submit jobs and wait to be killed."""
    manager = await make_manager(InstanceConfig.model_validate_json(config), logging.getLogger())

    async def run() -> None:
        job = await manager.submit(JobRequest("pipetask", {"pipeline": "a.yaml"}))
        print(job.id, flush=True)
        while job.phase != ExecutionPhase.EXECUTING:
            job = await manager.wait(job.id, phases=ACTIVE)
        print("EXECUTING", job.id, flush=True)

    await asyncio.gather(*(run() for _ in range(count)))
    await asyncio.Event().wait()


asyncio.run(main(sys.argv[1], int(sys.argv[2])))
