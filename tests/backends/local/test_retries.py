# SPDX-License-Identifier: GPL-3.0-or-later
"""A pipeline that is run again goes on where the first attempt was killed."""

from __future__ import annotations

import signal

import pytest

from tests.backends.local.harness import BIAS, open_pool

TASK = """
import os, pathlib, signal
import lsst.pipe.base.connectionTypes as cT
from lsst.pipe.base import PipelineTask, PipelineTaskConfig, PipelineTaskConnections, Struct


class LastConnections(PipelineTaskConnections, dimensions=("instrument", "detector")):
    metrics = cT.Input(
        name="biasMetrics", doc=".", storageClass="StructuredDataDict", dimensions=("instrument", "detector")
    )
    found = cT.Output(
        name="lastMetrics", doc=".", storageClass="StructuredDataDict", dimensions=("instrument", "detector")
    )


class LastConfig(PipelineTaskConfig, pipelineConnections=LastConnections):
    pass


class LastTask(PipelineTask):
    ConfigClass = LastConfig
    _DefaultName = "last"

    def run(self, metrics):
        flag = pathlib.Path(os.environ["FLAG"])
        if not flag.exists():
            flag.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return Struct(found={"done": True})
"""

PIPELINE = """
description: the bias, and a task that is killed the first time
instrument: democam.instrument.DemoCam
imports:
  - location: $DEMOCAM_DIR/pipelines/bias.yaml
tasks:
  last:
    class: last_task.LastTask
"""


@pytest.mark.parametrize(
    ("moment", "preload"), [("in the middle", True), ("before the output run exists", False)]
)
async def test_a_pipeline_that_was_killed_is_completed_by_the_next_attempt(
    own_repo, tmp_path, moment, preload
):
    code = tmp_path / "code"
    code.mkdir()
    (code / "last_task.py").write_text(TASK)
    pipeline = code / "last.yaml"
    pipeline.write_text(PIPELINE)
    if moment == "before the output run exists":
        # While the pipeline is read.
        with (code / "last_task.py").open("a") as file:
            file.write(
                "\nif not os.path.exists(os.environ['FLAG']):\n"
                "    pathlib.Path(os.environ['FLAG']).touch()\n"
                "    os.kill(os.getpid(), signal.SIGKILL)\n"
            )
    environment = {
        "name": "default",
        "preload": preload,
        "variables": {"PYTHONPATH": str(code), "FLAG": str(tmp_path / "flag")},
    }
    settings = {"environments": [environment], "retries": {"max": 1, "delay": 0}}
    async with open_pool(tmp_path / "work", own_repo, **settings) as pool:
        if preload:
            await pool.preloaded()
        job = await pool.run(str(pipeline), BIAS)
        workspace = pool.manager.workspaces.of(job.id, job.attempt)
        assert (job.phase, job.attempt) == ("COMPLETED", 2), (job.error, workspace.log.read_text())
        (former,) = job.attempts
        assert former.exit_code == -signal.SIGKILL
        names = sorted({metric["datasetType"] for metric in job.info["metrics"]})
        assert names == ["biasMetrics", "lastMetrics"]
        assert len(job.info["metrics"]) == 4
        assert "attempt-1-log.txt" in {result.id for result in job.results}
        assert job.progress.failed == 0
