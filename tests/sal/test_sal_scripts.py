# SPDX-License-Identifier: GPL-3.0-or-later
"""The SAL scripts, each as a process, commanded as the ScriptQueue does."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from lsst.ts import salobj

from tests.generations import ScriptState
from tests.waiting import TIMEOUT, until

pytestmark = pytest.mark.asyncio(loop_scope="module")

SCRIPTS = Path(__file__).resolve().parents[2] / "scripts"
PIPELINES = "$DEMOCAM_DIR/pipelines"
REGISTER = "--register-dataset-types"

_indices = itertools.count(1000)


def observations(kind: str) -> str:
    return f"instrument='DemoCam' AND exposure.observation_type='{kind}'"


class SalScript:
    """A running script and a remote that commands it."""

    def __init__(self, remote, process) -> None:
        self.remote = remote
        self.process = process
        self.states = []
        self.messages = []

    async def hear(self, data) -> None:
        self.states.append(data)

    async def hear_message(self, data) -> None:
        self.messages.append(data.message)

    async def command(self, name: str, **fields: object) -> None:
        await getattr(self.remote, f"cmd_{name}").set_start(**fields, timeout=TIMEOUT)

    async def configure(self, **config: object) -> None:
        await self.command("configure", config=yaml.safe_dump(config))
        await self.command("setGroupId", groupId="a group")

    async def run(self) -> None:
        """Let it run; the command itself is answered when that is over."""
        with contextlib.suppress(salobj.AckError):
            await self.remote.cmd_run.start(timeout=TIMEOUT, wait_done=False)

    async def end(self) -> tuple[ScriptState, str]:
        """Wait for its end; return its last state and the reason."""
        ends = {ScriptState.DONE, ScriptState.FAILED, ScriptState.STOPPED}
        await until(lambda: self.states and self.states[-1].state in ends, TIMEOUT)
        await asyncio.wait_for(self.process.wait(), TIMEOUT)
        return ScriptState(self.states[-1].state), self.states[-1].reason


@contextlib.asynccontextmanager
async def script(name: str):
    """Start a script and wait until it can be configured."""
    index = next(_indices)
    async with salobj.Domain() as domain, salobj.Remote(domain, "Script", index) as remote:
        process = await asyncio.create_subprocess_exec(
            sys.executable, SCRIPTS / f"{name}.py", str(index), stdin=asyncio.subprocess.DEVNULL
        )
        running = SalScript(remote, process)
        remote.evt_state.callback = running.hear
        remote.evt_logMessage.callback = running.hear_message
        try:
            await until(lambda: running.states and running.states[-1].state == ScriptState.UNCONFIGURED)
            yield running
        finally:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()


@pytest.mark.parametrize("name", ["run_pipeline", "make_calibrations", "focus_sweep"])
async def test_a_script_can_be_executed_and_tells_its_schema(name, bus):
    path = SCRIPTS / f"{name}.py"
    assert os.access(path, os.X_OK)
    # As the ScriptQueue asks for it.
    answer = subprocess.run(
        [sys.executable, path, "0", "--schema"], capture_output=True, text=True, check=True, timeout=TIMEOUT
    )
    schema = yaml.safe_load(answer.stdout[answer.stdout.index("$schema") :])
    assert schema["properties"]["ocps_index"]["default"] == 1
    assert schema["additionalProperties"] is False


async def test_run_pipeline_runs_it_and_passes_its_checkpoints(local):
    async with script("run_pipeline") as running:
        await running.configure(
            pipeline=f"{PIPELINES}/bias.yaml", data_query=observations("bias"), config=REGISTER
        )
        metadata = await running.remote.evt_metadata.aget(timeout=TIMEOUT)
        assert metadata.totalCheckpoints == 2
        await running.run()
        assert await running.end() == (ScriptState.DONE, "")
        await until(
            lambda: any("biasMetrics" in message and "n_exposures" in message for message in running.messages)
        )
    checkpoints = [data.lastCheckpoint for data in running.states]
    assert list(dict.fromkeys(filter(None, checkpoints))) == ["submit", "completed"]


async def test_a_job_that_fails_fails_the_script_with_its_reason(local):
    async with script("run_pipeline") as running:
        await running.configure(pipeline=f"{PIPELINES}/bias.yaml", data_query="nonsense = 1")
        await running.run()
        state, reason = await running.end()
    assert state == ScriptState.FAILED
    assert "the data query is wrong" in reason
    assert running.process.returncode == 1


async def test_a_refused_job_and_a_wrong_configuration_are_told(local):
    async with script("run_pipeline") as running:
        with pytest.raises(salobj.AckError) as caught:
            await running.command("configure", config=yaml.safe_dump({"pipelin": "x"}))
        assert "pipelin" in caught.value.ackcmd.result
    async with script("run_pipeline") as running:
        await running.configure(pipeline=f"{PIPELINES}/bias.yaml", config="--output-run x")
        await running.run()
        state, reason = await running.end()
    assert state == ScriptState.FAILED
    assert "--output-run" in reason


async def test_a_stopped_script_aborts_its_job(local):
    before = len(local.results)
    async with script("run_pipeline") as running:
        await running.configure(
            pipeline=f"{PIPELINES}/slow.yaml",
            data_query=observations("bias"),
            config=f"{REGISTER} -c slow:duration=600",
        )
        ids = len(local.job_ids)
        await running.run()
        await until(lambda: len(local.job_ids) > ids)
        job_id = local.job_ids[-1].job_id
        await running.command("stop")
        state, _ = await running.end()
    assert state == ScriptState.STOPPED
    data = await local.result(job_id)
    assert data.exit_code == 255
    assert len(local.results) == before + 1


async def test_focus_sweep_tells_the_best_focus(local):
    async with script("focus_sweep") as running:
        await running.configure(
            pipeline=f"{PIPELINES}/focusSweep.yaml", data_query=observations("focus"), config=REGISTER
        )
        await running.run()
        assert await running.end() == (ScriptState.DONE, "")
        await until(lambda: any(message.startswith("Best focus: ") for message in running.messages))
    async with script("focus_sweep") as running:
        await running.configure(
            pipeline=f"{PIPELINES}/focusSweep.yaml",
            data_query=observations("focus"),
            config=REGISTER,
            max_error=1e-9,
        )
        await running.run()
        state, reason = await running.end()
    assert state == ScriptState.FAILED
    assert "is uncertain by" in reason


async def test_make_calibrations_makes_products_in_order_and_verifies_them(local):
    bias = {
        "name": "bias",
        "pipeline": f"{PIPELINES}/bias.yaml",
        "data_query": observations("bias"),
        "config": REGISTER,
    }
    ids = len(local.job_ids)
    async with script("make_calibrations") as running:
        verify = {name: value for name, value in bias.items() if name != "name"}
        verify["limits"] = {"biasMetrics.n_exposures": 10}
        await running.configure(products=[bias | {"verify": verify}, bias | {"name": "again"}])
        metadata = await running.remote.evt_metadata.aget(timeout=TIMEOUT)
        assert metadata.totalCheckpoints == 3
        await running.run()
        assert await running.end() == (ScriptState.DONE, "")
    checkpoints = [data.lastCheckpoint for data in running.states]
    assert list(dict.fromkeys(filter(None, checkpoints))) == ["bias", "verify bias", "again"]
    # On Kafka an event may be heard later than one of another topic that was written after it.
    await until(lambda: len(local.job_ids) - ids >= 3)
    jobs = [data.job_id for data in local.job_ids[ids:]]
    results = [json.loads((await local.result(job)).result) for job in jobs]
    assert len(results) == 3
    for earlier, later in itertools.pairwise(results):
        assert earlier["endTime"] <= later["startTime"]


async def test_a_product_that_does_not_pass_fails_the_script(local):
    bias = {
        "name": "bias",
        "pipeline": f"{PIPELINES}/bias.yaml",
        "data_query": observations("bias"),
        "config": REGISTER,
        "limits": {"biasMetrics.n_exposures": 1, "noSuchMetrics.value": 1},
    }
    async with script("make_calibrations") as running:
        await running.configure(products=[bias])
        await running.run()
        state, reason = await running.end()
    assert state == ScriptState.FAILED
    assert "bias does not pass: biasMetrics.n_exposures is 4" in reason
    assert "no metric noSuchMetrics.value" in reason
