# SPDX-License-Identifier: GPL-3.0-or-later
"""The conversation of ``execute`` and ``abort_job``, with simulated pipelines."""

from __future__ import annotations

import asyncio
import json

import pytest
from lsst.dm.OCPS.sal.csc import OcpsCsc
from lsst.dm.OCPS.testing import Script
from lsst.ts import salobj

from tests.generations import ON_KAFKA
from tests.waiting import TIMEOUT, until

pytestmark = pytest.mark.asyncio(loop_scope="module")

Ack = salobj.SalRetCode

MEMBERS = {
    "jobId",
    "job_id",
    "runId",
    "ownerId",
    "phase",
    "creationTime",
    "startTime",
    "endTime",
    "executionDuration",
    "destruction",
    "parameters",
    "results",
    "errorSummary",
    "jobInfo",
}


async def test_execute_is_acknowledged_with_its_id_and_then_completed(simulated):
    execution = await simulated.execute("true.yaml")
    final = await execution.done()
    # salobj 6 itself sends CMD_ACK; salobj 8 does not.
    first = [] if ON_KAFKA else [Ack.CMD_ACK]
    assert [ack.ack for ack in execution.acks] == [*first, Ack.CMD_INPROGRESS, Ack.CMD_COMPLETE]
    assert json.loads(execution.acks[-2].result) == {"job_id": execution.job_id}
    assert final.ack == Ack.CMD_COMPLETE
    result = await execution.result()
    assert execution.job_id.startswith("true.yaml")
    assert result["exit_code"] == 0
    assert result["result"] is True
    assert result["phase"] == "completed"
    assert result.keys() >= MEMBERS
    assert result["jobId"] == result["job_id"] == execution.job_id
    names = {item["name"] for item in result["parameters"]["environment"]}
    assert names == {"PIPELINE_URL", "BUTLER_REPO", "DATA_QUERY", "RUN_OPTIONS", "OUTPUT_GLOB"}


async def test_the_id_goes_out_as_event_with_the_commands_number(simulated):
    execution = await simulated.execute("true.yaml")
    await execution.done()
    # On Kafka it may be heard after the acknowledgements.
    await until(lambda: execution.job_id in {event.job_id for event in simulated.job_ids})
    (event,) = [event for event in simulated.job_ids if event.job_id == execution.job_id]
    assert event.event_name == "cmd_execute"
    assert event.seq_num == execution.acks[0].private_seqNum


async def test_the_result_comes_once_and_before_the_final_acknowledgement(simulated):
    execution = await simulated.execute("true.yaml")
    await execution.done()
    # The event was written before the acknowledgement, so it has been read or is about to be.
    await execution.result()
    other = await simulated.execute("true.yaml")
    await other.done()
    await other.result()
    assert [event.job_id for event in simulated.results].count(execution.job_id) == 1


async def test_a_pipeline_with_result_false_completes(simulated):
    execution = await simulated.execute("false.yaml")
    assert (await execution.done()).ack == Ack.CMD_COMPLETE
    result = await execution.result()
    assert (result["exit_code"], result["result"], result["phase"]) == (0, False, "completed")


async def test_equal_results_are_both_written(simulated):
    """Without forced output the second of two equal events would not be."""
    executions = [await simulated.execute("true.yaml") for _ in range(3)]
    for execution in executions:
        await execution.done()
        await execution.result()


async def test_other_parameters_are_ignored(simulated):
    execution = await simulated.execute("true.yaml", version="no such", config="--pdb", data_query="x")
    assert (await execution.done()).ack == Ack.CMD_COMPLETE


@pytest.mark.parametrize("pipeline", ["", "other.yaml", "$X/true.yaml"])
async def test_an_unknown_pipeline_is_refused(simulated, pipeline):
    with pytest.raises(salobj.AckError) as caught:
        await simulated.execute(pipeline)
    assert caught.value.ackcmd.ack == Ack.CMD_FAILED
    assert "true.yaml, false.yaml, fault.yaml" in caught.value.ackcmd.result
    assert "\n" not in caught.value.ackcmd.result


async def test_a_refusal_can_be_read_by_a_script_that_does_not_wait(simulated):
    """A remote forgets a command at its final acknowledgement, so that must not come at once."""
    command = simulated.remote.cmd_execute
    for _ in range(15):
        command.set(pipeline="other.yaml")
        with pytest.raises(salobj.AckError):
            ack = await command.start(timeout=TIMEOUT, wait_done=False)
            while True:
                ack = await command.next_ackcmd(ack, timeout=TIMEOUT, wait_done=False)


async def test_three_at_once_end_each_with_its_own_result(simulated):
    executions = await asyncio.gather(
        *(simulated.execute(name) for name in ("true.yaml", "false.yaml", "true.yaml"))
    )
    assert len({execution.job_id for execution in executions}) == 3
    for execution in executions:
        assert (await execution.done()).ack == Ack.CMD_COMPLETE
        result = await execution.result()
        assert result["jobId"] == execution.job_id
        assert result["result"] is execution.job_id.startswith("true")


async def test_abort_job_ends_a_running_job(bus):
    async with OcpsCsc(2, simulation_mode=1, simulation_duration=3600), Script.connect(2) as script:
        await script.set_state(salobj.State.ENABLED)
        execution = await script.execute("true.yaml")
        await script.remote.cmd_abort_job.set_start(job_id=execution.job_id, timeout=TIMEOUT)
        assert (await execution.done()).ack == Ack.CMD_ABORTED
        result = await execution.result()
        assert (result["exit_code"], result["phase"]) == (255, "aborted")


@pytest.mark.parametrize("job_id", ["", "nobody", "../../etc/passwd", "x" * 300])
async def test_abort_of_an_unknown_job_is_refused(simulated, job_id):
    with pytest.raises(salobj.AckError) as caught:
        await simulated.remote.cmd_abort_job.set_start(job_id=job_id, timeout=TIMEOUT)
    assert "No such job" in caught.value.ackcmd.result


async def test_abort_of_a_job_that_has_ended_is_refused(simulated):
    execution = await simulated.execute("true.yaml")
    await execution.done()
    with pytest.raises(salobj.AckError) as caught:
        await simulated.remote.cmd_abort_job.set_start(job_id=execution.job_id, timeout=TIMEOUT)
    assert "already completed" in caught.value.ackcmd.result


async def test_commands_are_refused_unless_enabled(simulated):
    await simulated.set_state(salobj.State.DISABLED)
    try:
        for command in (simulated.remote.cmd_execute, simulated.remote.cmd_abort_job):
            with pytest.raises(salobj.AckError) as caught:
                await command.start(timeout=TIMEOUT)
            assert caught.value.ackcmd.ack == Ack.CMD_FAILED
    finally:
        await simulated.set_state(salobj.State.ENABLED)


async def test_a_job_goes_on_when_enabled_is_left_and_its_result_comes(simulated):
    execution = await simulated.execute("true.yaml")
    await simulated.set_state(salobj.State.STANDBY)
    try:
        result = await execution.result()
        assert result["exit_code"] == 0
        assert (await execution.done()).ack == Ack.CMD_COMPLETE
    finally:
        await simulated.set_state(salobj.State.ENABLED)


async def test_simulation_mode_and_version_are_published(simulated):
    mode = await simulated.remote.evt_simulationMode.aget(timeout=TIMEOUT)
    versions = await simulated.remote.evt_softwareVersions.aget(timeout=TIMEOUT)
    assert mode.mode == 1
    assert versions.cscVersion not in ("", "?")


async def test_fault_comes_with_its_code_and_the_csc_recovers(simulated):
    execution = await simulated.execute("fault.yaml")
    final = await execution.done()
    assert final.ack == Ack.CMD_FAILED
    assert (await execution.result())["exit_code"] == 1
    # On Kafka events of different topics may be heard in another order than they were written.
    await until(lambda: simulated.remote.evt_errorCode.get().errorCode == 2)
    await until(lambda: simulated.remote.evt_summaryState.get().summaryState == salobj.State.FAULT)
    await simulated.set_state(salobj.State.STANDBY)
    await simulated.set_state(salobj.State.ENABLED)
    assert (await (await simulated.execute("true.yaml")).done()).ack == Ack.CMD_COMPLETE
