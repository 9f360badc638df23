# SPDX-License-Identifier: GPL-3.0-or-later
"""An engine with the local pool, and user code that tells what it was given."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

from lsst.dm.OCPS.config import InstanceConfig
from lsst.dm.OCPS.factory import make_manager
from lsst.dm.OCPS.jobs.manager import JobManager
from lsst.dm.OCPS.jobs.model import Job, JobRequest
from lsst.dm.OCPS.jobs.workspace import Workspace

from tests.waiting import TIMEOUT

BIAS = "exposure.observation_type='bias'"


class Pool:
    """An engine with a local pool.

    Parameters
    ----------
    manager : `JobManager`
        The engine.
    """

    def __init__(self, manager: JobManager) -> None:
        self.manager = manager

    @property
    def backend(self) -> Any:
        return self.manager.lane.backend

    @property
    def zygotes(self) -> Any:
        return self.backend.zygotes

    @property
    def preload(self) -> Any:
        return self.backend.planners["pipetask"].preload(None)

    async def preloaded(self) -> int:
        """Wait until the default environment is preloaded; return the process's id."""
        await asyncio.wait_for(self.zygotes.wait_ready(self.preload), TIMEOUT)
        return int(self.zygotes.pids()[-1])

    async def submit(self, pipeline: str, query: str = "", config: str = "", **other: str) -> Job:
        path = pipeline if "/" in pipeline else f"$DEMOCAM_DIR/pipelines/{pipeline}.yaml"
        config = f"--register-dataset-types {config}"
        parameters = {"pipeline": path, "data_query": query, "config": config, **other}
        return await self.manager.submit(JobRequest("pipetask", parameters))

    async def end(self, job: Job) -> Job:
        """Wait for a job's end and return it."""
        job = await self.manager.wait(job.id, TIMEOUT)
        assert job.terminal, self.log(job)
        return job

    async def run(self, pipeline: str, query: str = "", config: str = "", **other: str) -> Job:
        return await self.end(await self.submit(pipeline, query, config, **other))

    def workspace(self, job: Job) -> Workspace:
        return self.manager.workspaces.of(job.id)

    def log(self, job: Job) -> str:
        log = self.workspace(job).log
        return log.read_text() if log.exists() else ""

    def was_preloaded(self, job: Job) -> bool:
        """Tell whether a job's supervisor came from a preloaded process (while it runs)."""
        claim = self.workspace(job).read_json("supervisor.json")
        return "zygote" in Path(f"/proc/{claim['pid']}/cmdline").read_text()


@contextlib.asynccontextmanager
async def open_pool(folder: Path, repo: Path, **settings: Any) -> AsyncIterator[Pool]:
    """Open an engine with a local pool; ``folder`` is its work directory."""
    config = InstanceConfig(
        sal_index=1,
        butler=str(repo),
        **{
            "input_collection": "DemoCam/raw/all",
            "output_glob": "*Metrics,bias",
            "work_dir": str(folder),
            **settings,
        },
    )
    manager = await make_manager(config, logging.getLogger("pool"))
    try:
        yield Pool(manager)
    finally:
        await manager.close()


PROBE = """
import ctypes, os, resource, sys
import lsst.pipe.base.connectionTypes as cT
from lsst.pipe.base import PipelineTask, PipelineTaskConfig, PipelineTaskConnections, Struct


class ProbeConnections(PipelineTaskConnections, dimensions=("instrument",)):
    found = cT.Output(
        name="probeMetrics", doc=".", storageClass="StructuredDataDict", dimensions=("instrument",)
    )


class ProbeConfig(PipelineTaskConfig, pipelineConnections=ProbeConnections):
    pass


class ProbeTask(PipelineTask):
    ConfigClass = ProbeConfig
    _DefaultName = "probe"

    def run(self):
        kinds = {"memory": "AS", "open_files": "NOFILE", "core": "CORE"}
        limits = {name: resource.getrlimit(getattr(resource, f"RLIMIT_{kind}"))
                  for name, kind in kinds.items()}
        return Struct(found={
            "value": VALUE,
            "environment": dict(os.environ),
            "argv": list(sys.argv),
            "path": list(sys.path),
            "main": sys.modules["__main__"].__file__,
            "cwd": os.getcwd(),
            "limits": {name: list(limit) for name, limit in limits.items()},
            "nice": os.nice(0),
            "session": os.getsid(0),
            "dumpable": ctypes.CDLL(None).prctl(3, 0, 0, 0, 0),
            "descriptors": {name: target for name, target in descriptors().items()},
        })


def descriptors():
    found = {}
    for name in os.listdir("/proc/self/fd"):
        try:
            found[name] = os.readlink(f"/proc/self/fd/{name}")
        except OSError:
            pass
    return found
"""


def make_probe(folder: Path) -> Callable[[str], dict[str, Any]]:
    """Make a folder with a pipeline whose user code tells what it was given.

    Returns a function that writes the code; settings of an environment that
    has it.
    """
    folder.mkdir()
    pipeline = folder / "probe.yaml"
    pipeline.write_text(
        "description: probe\ninstrument: democam.instrument.DemoCam\n"
        "tasks:\n  probe:\n    class: user_probe.ProbeTask\n"
    )

    def write(value: str) -> dict[str, Any]:
        (folder / "user_probe.py").write_text(PROBE.replace("VALUE", repr(value)))
        return {"name": "default", "variables": {"PYTHONPATH": str(folder), "PROBE": str(pipeline)}}

    return write


def probed(job: Job) -> dict[str, Any]:
    """Return what the probe found."""
    assert job.exit_code == 0, job.error
    (metrics,) = job.info["metrics"]
    return dict(metrics["values"])
