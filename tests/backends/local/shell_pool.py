# SPDX-License-Identifier: GPL-3.0-or-later
"""An engine on the local pool, for jobs that are small shell scripts.

Also a program, to be killed: ``python -m tests.backends.local.shell_pool FOLDER COUNT``
accepts jobs until there are COUNT, printing the id and the exit code to come
of each, and ends when all have ended.
"""

from __future__ import annotations

import asyncio
import logging
import random
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lsst.dm.OCPS.backends.local.backend import LocalBackend
from lsst.dm.OCPS.backends.local.command import CommandPlanner
from lsst.dm.OCPS.definitions.command import CommandDefinition
from lsst.dm.OCPS.definitions.environments import Environments
from lsst.dm.OCPS.jobs.limits import Limits
from lsst.dm.OCPS.jobs.manager import JobManager
from lsst.dm.OCPS.jobs.model import JobRequest
from lsst.dm.OCPS.jobs.parameters import Parameter
from lsst.dm.OCPS.jobs.parts import Parts
from lsst.dm.OCPS.jobs.retries import RetryPolicy
from lsst.dm.OCPS.jobs.store import JobQuery, JobStore
from lsst.dm.OCPS.jobs.workspace import Workspaces

AGAIN = 75
"""The exit code with which a job is run again."""


async def open_pool(
    folder: Path,
    limits: Mapping[str, Any] | None = None,
    job_limits: Mapping[str, int] | None = None,
    retries: RetryPolicy | None = None,
) -> JobManager:
    """Open an engine whose jobs are shell scripts: ``request(script)``."""
    workspaces = Workspaces(folder)
    workspaces.open()
    store = await JobStore.open(f"sqlite+aiosqlite:///{folder / 'jobs.sqlite3'}")
    manager = JobManager(store, workspaces, logging.getLogger("engine"))
    await manager.open()
    environments = Environments(())
    planner = CommandPlanner(environments, job_limits, kill_grace=1)
    definition = CommandDefinition(
        "shell",
        ["sh", "-c", "{script}"],
        [Parameter(name="script", type="string", description="What to run")],
        retries=retries,
    )
    backend = LocalBackend(workspaces, {"command": planner})
    await manager.use("test", Parts("test", backend, {"shell": definition}, Limits(**(limits or {}))))
    return manager


def request(script: str, **fields: Any) -> JobRequest:
    """Ask for a shell script."""
    return JobRequest("shell", {"script": script}, **fields)


def gone(pid: int) -> bool:
    """Return whether a process has ended, be it buried or not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


async def accept_and_wait(folder: Path, count: int) -> None:
    """Accept jobs until there are ``count``; wait until all have ended."""
    retries = RetryPolicy(max=2, delay=0.2, exit_codes=(AGAIN,))
    manager = await open_pool(folder / "work", {"max_workers": 8}, retries=retries)
    print("open", flush=True)
    there = await manager.find(JobQuery())
    for _ in range(count - len(there)):
        code = random.choice((0, 0, 3, 77, AGAIN))
        runs = f"{folder}/runs/$JOB_ID"
        script = f"echo run >> {runs}; sleep 0.{random.randint(0, 6)}; exit {code}"
        if code == AGAIN:
            # The second attempt completes.
            script = f"[ -e {runs} ] && echo run >> {runs} && exit 0; {script}"
        job = await manager.submit(request(script))
        print(job.id, 0 if code == AGAIN else code, flush=True)
        await asyncio.sleep(0.01)
    for job in await manager.find(JobQuery()):
        await manager.wait(job.id)
    await manager.close()


if __name__ == "__main__":
    asyncio.run(accept_and_wait(Path(sys.argv[1]), int(sys.argv[2])))
