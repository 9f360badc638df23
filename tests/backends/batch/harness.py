# SPDX-License-Identifier: GPL-3.0-or-later
"""An engine on a batch system, for jobs that are small shell scripts.

Also a program, to be killed: ``python -m tests.backends.batch.harness CONFIG SCRIPT``
submits a job, prints its id, then its phases as they come, and waits.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, Protocol

import yaml
from lsst.dm.OCPS.config import InstanceConfig, load_instance
from lsst.dm.OCPS.factory import make_manager
from lsst.dm.OCPS.jobs.manager import JobManager
from lsst.dm.OCPS.jobs.model import Job, JobRequest

from tests.waiting import TIMEOUT

LOG = logging.getLogger("batch")

DEFINITION = {
    "name": "shell",
    "kind": "command",
    "argv": ["sh", "-c", "{script}"],
    "parameters": {"script": {}},
}

AGAIN = {**DEFINITION, "name": "again", "retries": {"max": 1, "delay": 0, "exit_codes": [75]}}


class Cluster(Protocol):
    """A batch system, started; see `slurm_cluster.SlurmCluster`."""

    backend: str
    name: str

    def settings(self) -> dict[str, Any]: ...
    def held(self) -> dict[str, Any]: ...
    def kill_controller(self) -> None: ...
    def start_controller(self) -> None: ...
    def lose_jobs(self) -> None: ...
    def fail_node(self) -> None: ...
    def mend_node(self) -> None: ...
    def submit(self, script: str, *options: str) -> str: ...
    def state(self, number: str) -> str: ...
    def cancel(self, number: str) -> None: ...
    def numbers(self, job_id: str) -> list[str]: ...


def configure(cluster: Cluster, folder: Path, **fields: Any) -> InstanceConfig:
    """Return the configuration of an engine on a cluster."""
    definitions = folder / "definitions.yaml"
    definitions.write_text(yaml.safe_dump({"definitions": [DEFINITION, AGAIN]}))
    entry = {
        "sal_index": 1,
        "backend": cluster.backend,
        "backend_settings": cluster.settings(),
        "work_dir": str(folder / "work"),
        "durable": False,
        "poll_interval": 0.2,
        "abort_grace": TIMEOUT,
        "definitions": [str(definitions)],
        **fields,
    }
    return load_instance({"instances": [entry]}, 1)


class Engine:
    """An engine in this process.

    Parameters
    ----------
    manager : `JobManager`
        The engine.
    """

    def __init__(self, manager: JobManager) -> None:
        self.manager = manager

    async def submit(self, script: str, definition: str = "shell", **fields: Any) -> Job:
        return await self.manager.submit(JobRequest(definition, {"script": script}, **fields))

    async def end(self, job_id: str) -> Job:
        """Wait for a job's end and return it."""
        job = await self.manager.wait(job_id, TIMEOUT)
        assert job.terminal, (job.phase, job.message)
        return job

    async def run(self, script: str, definition: str = "shell", **fields: Any) -> Job:
        return await self.end((await self.submit(script, definition, **fields)).id)


@contextlib.asynccontextmanager
async def open_engine(config: InstanceConfig) -> AsyncIterator[Engine]:
    manager = await make_manager(config, LOG)
    try:
        yield Engine(manager)
    finally:
        await manager.close()


async def main(config: str, script: str) -> None:
    """Submit a job and wait to be killed."""
    async with (
        open_engine(InstanceConfig.model_validate_json(config)) as engine,
        engine.manager.subscribe(lambda job: True) as changes,
    ):
        job = await engine.submit(script)
        print(job.id, flush=True)
        async for seen in changes:
            print(seen.phase, seen.handle, flush=True)


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
