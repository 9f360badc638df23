# SPDX-License-Identifier: GPL-3.0-or-later
"""Acknowledgements of long commands, with a CSC in this process so that time can be short."""

from __future__ import annotations

import json

import yaml
from lsst.dm.OCPS.jobs.model import Progress
from lsst.dm.OCPS.sal import executions
from lsst.dm.OCPS.sal.csc import OcpsCsc
from lsst.dm.OCPS.testing import Script
from lsst.ts import salobj

from tests.gates import Gate, gated_definition
from tests.generations import write_common_files
from tests.waiting import TIMEOUT, until


async def test_progress_comes_with_renewed_acknowledgements(bus, monkeypatch):
    monkeypatch.setattr(executions, "ACK_INTERVAL", 0.4)
    async with (
        OcpsCsc(1, simulation_mode=1, simulation_duration=3600) as csc,
        Script.connect() as script,
    ):
        await script.set_state(salobj.State.ENABLED)
        execution = await script.execute("true.yaml")
        await csc.host.manager.record_progress(execution.job_id, Progress(3, 1, 9), None)
        await until(lambda: '"done"' in execution.acks[-1].result)
        await script.remote.cmd_abort_job.set_start(job_id=execution.job_id, timeout=TIMEOUT)
        assert (await execution.done()).ack == salobj.SalRetCode.CMD_ABORTED
        renewed = [ack for ack in execution.acks[:-1] if '"done"' in ack.result]
        assert renewed
        for ack in renewed:
            assert ack.ack == salobj.SalRetCode.CMD_INPROGRESS
            assert ack.timeout > 0.4
            assert json.loads(ack.result) == {
                "job_id": execution.job_id,
                "done": 3,
                "failed": 1,
                "total": 9,
            }


async def test_an_open_command_keeps_no_task_until_its_job_ends(bus):
    async with (
        OcpsCsc(1, simulation_mode=1, simulation_duration=3600) as csc,
        Script.connect() as script,
    ):
        await script.set_state(salobj.State.ENABLED)
        several = [await script.execute("true.yaml") for _ in range(3)]
        await until(lambda: not csc._open_commands)
        assert len(csc.executions) == 3
        await script.remote.cmd_abort_job.set_start(job_id=several[1].job_id, timeout=TIMEOUT)
        assert (await several[1].done()).ack == salobj.SalRetCode.CMD_ABORTED
        assert len(csc.executions) == 2
        assert several[0].acks[-1].ack == salobj.SalRetCode.CMD_INPROGRESS


def test_an_acknowledgement_holds_longer_than_it_takes_to_the_next():
    assert executions.ACK_INTERVAL < executions.ACK_TIMEOUT
    # A remote's queue holds four and drops the oldest: not more often than every few minutes.
    assert executions.ACK_INTERVAL >= 120


async def test_a_job_keeps_its_configuration_when_another_is_started(bus, pristine_repo, tmp_path):
    (tmp_path / "definitions.yaml").write_text(yaml.safe_dump({"definitions": [gated_definition()]}))
    gate = Gate(tmp_path / "gate")
    for name, workers in (("one", 1), ("two", 2)):
        instance = {
            "sal_index": 1,
            "butler": str(pristine_repo),
            "work_dir": str(tmp_path / "work"),
            "definitions": ["sleep", str(tmp_path / "definitions.yaml")],
            "max_workers": workers,
            "environments": [{"name": "default", "preload": False}],
        }
        (tmp_path / f"{name}.yaml").write_text(yaml.safe_dump({"instances": [instance]}))
    write_common_files(tmp_path)
    async with OcpsCsc(1, config_dir=str(tmp_path)) as csc, Script.connect() as script:
        await script.set_state(salobj.State.ENABLED, "one.yaml")
        running = await script.execute("job:gated", config=f"gate={gate.path}")
        waiting = await script.execute("job:sleep", config="duration=0 text=waits")
        await script.set_state(salobj.State.STANDBY)
        await script.set_state(salobj.State.ENABLED, "two.yaml")
        other = await script.execute("job:sleep", config="duration=0 text=two")
        assert (await other.result())["exit_code"] == 0
        gate.open()
        one, waited = await running.result(), await waiting.result()
        assert [one["exit_code"], waited["exit_code"]] == [0, 0]
        # With one worker, as when it was accepted, it had to wait for the first.
        assert waited["startTime"] >= one["endTime"]
        assert len(csc.host.manager.lanes) == 2
