# SPDX-License-Identifier: GPL-3.0-or-later
"""The differences between salobj 6 and salobj 8."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import signal
import subprocess
import sys
import time
import types
from unittest.mock import AsyncMock, Mock

import pytest
from lsst.dm.OCPS import testing
from lsst.dm.OCPS.config import ConfigError
from lsst.dm.OCPS.jobs.errors import UnknownJobError
from lsst.dm.OCPS.sal import compat as salobj_compat
from lsst.dm.OCPS.sal.csc import OcpsCsc
from lsst.dm.OCPS.sal.executions import Executions
from lsst.ts import salobj

from tests.generations import only_on_dds
from tests.sal import salobj8
from tests.waiting import TIMEOUT


@only_on_dds
async def test_acknowledgements_from_two_threads_do_not_mix(bus, monkeypatch):
    """salobj sends CMD_ACK from its reading thread, the others from the event loop."""
    async with OcpsCsc(1, simulation_mode=1) as csc:
        writer, written = csc.salinfo._ackcmd_writer, []

        def slow_put(data=None) -> None:
            data = writer.data
            before = (data.private_seqNum, data.ack, data.result)
            time.sleep(0.0002)
            written.append((before, (data.private_seqNum, data.ack, data.result)))

        monkeypatch.setattr(writer, "put", slow_put)
        command = csc.cmd_execute.DataType()

        def send(number: int, kind: salobj.SalRetCode) -> None:
            command.private_seqNum = number
            words = f"{number} {int(kind)}"
            ack = csc.salinfo.make_ackcmd(private_seqNum=number, ack=kind, result=words)
            csc.cmd_execute.ack(csc.cmd_execute.DataType(private_seqNum=number), ack)

        def send_many() -> None:
            for number in range(1000, 1300):
                send(number, salobj.SalRetCode.CMD_ACK)

        reading = asyncio.create_task(asyncio.to_thread(send_many))
        for number in range(2000, 2300):
            send(number, salobj.SalRetCode.CMD_INPROGRESS)
            await asyncio.sleep(0)
        await reading
    assert len(written) == 600
    for before, after in written:
        assert before == after
        assert after[2] == f"{after[0]} {int(after[1])}"


@pytest.fixture
def newer(monkeypatch):
    """Let the code believe that it runs on salobj 8."""
    monkeypatch.setattr(salobj_compat, "SALOBJ_MAJOR", 8)


async def test_many_writes_of_one_event_at_once_all_arrive(newer):
    reader = salobj8.Reader()
    event = salobj8.Event(reader, "job_id", "result")
    await asyncio.gather(*(salobj_compat.put(event, job_id=str(number)) for number in range(60)))
    assert reader.ignored == 0
    assert [data.job_id for data in reader.received] == [str(number) for number in range(60)]


async def test_the_stand_in_loses_events_written_without_a_lock():
    """Else the test above would prove nothing."""
    reader = salobj8.Reader()
    event = salobj8.Event(reader, "job_id")
    await asyncio.gather(*(event.set_write(job_id=str(number)) for number in range(60)))
    assert reader.ignored > 0


async def test_equal_events_are_all_written(newer):
    """Two jobs can have equal results; without forced output the second would not be written."""
    reader = salobj8.Reader()
    event = salobj8.Event(reader, "result")
    for _ in range(3):
        await salobj_compat.put(event, result="same")
    assert len(reader.received) == 3
    assert not (await event.set_write(result="same")).was_written


async def test_put_returns_only_after_the_event_is_out(newer):
    reader = salobj8.Reader()
    await salobj_compat.put(salobj8.Event(reader, "job_id"), job_id="a")
    assert [data.job_id for data in reader.received] == ["a"]


async def test_a_write_that_fails_does_not_hold_up_the_next(newer):
    reader = salobj8.Reader()
    event = salobj8.Event(reader, "job_id")
    with pytest.raises(AttributeError, match="nosuch"):
        await salobj_compat.put(event, nosuch="a")
    await asyncio.wait_for(salobj_compat.put(event, job_id="b"), TIMEOUT)
    assert [data.job_id for data in reader.received] == ["b"]


async def test_an_event_of_a_csc_that_has_ended_is_an_error_and_not_lost(newer):
    """The publisher marks a result as published after this call has returned."""
    event = salobj8.Event(salobj8.Reader(), "job_id")
    event.running = False
    with pytest.raises(RuntimeError):
        await salobj_compat.put(event, job_id="a")


async def test_acknowledgements_and_faults_are_made_as_salobj_8_wants_them(newer):
    command, csc = salobj8.Command(), salobj8.Csc(1)
    await salobj_compat.ack_in_progress(command, "data", 3, "{}")
    assert command.acks == [("data", 3, "{}")]
    data = types.SimpleNamespace(private_seqNum=5)
    ack = salobj_compat.make_ackcmd(csc, data, 7, 1, "x" * 1000)
    assert (ack.private_seqNum, ack.ack, ack.error, len(ack.result)) == (5, 7, 1, 1000)
    await salobj_compat.enter_fault(csc, 2, "why")
    assert csc.faults == [(2, "why")]


async def test_final_acknowledgements_of_executions_are_sent_on_salobj_8(newer):
    csc = salobj8.Csc(1)
    manager, jobs = Mock(get=AsyncMock(side_effect=UnknownJobError("gone"))), {}

    async def final_ack(execution, job):
        return salobj_compat.make_ackcmd(csc, execution, salobj.SalRetCode.CMD_COMPLETE, 0, job.id)

    executions = Executions(csc, final_ack)
    for number in (1, 2, 3):
        data = types.SimpleNamespace(private_seqNum=number, private_identity="Script:1", private_origin=7)
        jobs[number] = await executions.begin(manager, f"job{number}", data)
    assert jobs[2].ack == salobj.SalRetCode.CMD_INPROGRESS
    assert json.loads(jobs[2].result) == {"job_id": "job2"}
    executions.finish(Mock(id="job2"))
    # A second end of the same job, or that of a job without a command, sends nothing.
    executions.finish(Mock(id="job2"))
    executions.finish(Mock(id="other"))
    await executions.fail_all(lambda job_id: f"{job_id} goes on")
    assert len(executions) == 0
    assert sorted((number, ack.ack, ack.result) for number, ack in csc.cmd_execute.sent) == [
        (1, salobj.SalRetCode.CMD_FAILED, "Failed: job1 goes on"),
        (2, salobj.SalRetCode.CMD_COMPLETE, "job2"),
        (3, salobj.SalRetCode.CMD_FAILED, "Failed: job3 goes on"),
    ]


async def test_a_bus_that_accepts_nothing_does_not_keep_open_commands_from_being_given_up(newer, monkeypatch):
    monkeypatch.setattr("lsst.dm.OCPS.sal.executions.CLOSE_TIMEOUT", 0.01)
    csc, away = salobj8.Csc(1), asyncio.Event()
    monkeypatch.setattr(csc.cmd_execute, "ack", lambda *words: away.wait())
    executions = Executions(csc, AsyncMock())
    data = types.SimpleNamespace(private_seqNum=1, private_identity="Script:1", private_origin=7)
    await executions.begin(Mock(get=AsyncMock(side_effect=UnknownJobError("gone"))), "job1", data)
    await asyncio.wait_for(executions.fail_all(lambda job_id: "over"), TIMEOUT)
    assert len(executions) == 0
    away.set()
    await executions.fail_all(lambda job_id: "over")


def test_the_stand_in_refuses_what_only_salobj_6_takes():
    """Else the test above would prove nothing."""
    with pytest.raises(TypeError, match="truncate_result"):
        salobj8.SalInfo().make_ackcmd(private_seqNum=1, ack=7, truncate_result=True)
    with pytest.raises(TypeError, match="settings_to_apply"):
        salobj8.make_configurable("OCPS", 1, {}, settings_to_apply="x.yaml")


def test_variables_without_which_salobj_8_does_not_start_are_named(newer, monkeypatch):
    for name in ("LSST_TOPIC_SUBNAME", "LSST_SITE"):
        monkeypatch.setenv(name, "test")
    monkeypatch.delenv("LSST_DDS_PARTITION_PREFIX", raising=False)
    salobj_compat.check_environment()
    for name in ("LSST_TOPIC_SUBNAME", "LSST_SITE"):
        with monkeypatch.context() as patch:
            patch.setenv(name, " ")
            with pytest.raises(ConfigError, match=f"{name} is not set or empty; export the name of your"):
                salobj_compat.check_environment()


def test_tests_on_salobj_8_name_the_broker(newer, monkeypatch):
    monkeypatch.setattr(testing, "SALOBJ_MAJOR", 8)
    monkeypatch.delenv("LSST_KAFKA_BROKER_ADDR", raising=False)
    with pytest.raises(RuntimeError, match="LSST_KAFKA_BROKER_ADDR"):
        testing.private_bus({})
    monkeypatch.setenv("LSST_KAFKA_BROKER_ADDR", "localhost:9092")
    variables = {}
    testing.private_bus(variables)
    assert variables["LSST_SITE"] == "test"
    assert variables["LSST_TOPIC_SUBNAME"].isidentifier()


async def test_after_signals_a_csc_of_salobj_8_is_closed(newer, capsys):
    csc = salobj_compat.make_csc(salobj8.Csc, 1)
    assert csc.duplicates_refused
    running = asyncio.create_task(salobj_compat.run_csc(csc))
    await asyncio.sleep(0)
    # salobj's own handler prints, and fails at the second signal.
    errors = []
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: errors.append(context))
    os.kill(os.getpid(), signal.SIGTERM)
    os.kill(os.getpid(), signal.SIGINT)
    await asyncio.wait_for(running, TIMEOUT)
    assert csc.closed
    assert errors == []
    assert capsys.readouterr().out == ""


async def test_a_broker_that_does_not_answer_does_not_hold_up_the_end(newer, monkeypatch):
    monkeypatch.setattr(salobj_compat, "CLOSE_TIMEOUT", 0.1)
    csc = salobj_compat.make_csc(salobj8.Csc, 1)
    csc.close, csc.log = asyncio.Event().wait, logging.getLogger("test")
    csc.signal_handler()
    await asyncio.wait_for(salobj_compat.run_csc(csc), TIMEOUT)


def test_the_program_ends_though_threads_wait_for_a_broker():
    code = """
import threading
from lsst.dm.OCPS import testing
from lsst.dm.OCPS.config import ConfigError
from lsst.dm.OCPS.sal import compat
compat.SALOBJ_MAJOR = 8
threading.Thread(target=threading.Event().wait).start()
print("last words")
compat.leave_process(3)
"""
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=TIMEOUT)
    assert answer.returncode == 3
    assert answer.stdout == "last words\n"


def test_configurations_are_named_as_salobj_8_names_them(newer):
    assert salobj_compat.csc_arguments("x.yaml") == {"override": "x.yaml"}
    data = types.SimpleNamespace(configurationOverride="x.yaml")
    assert salobj_compat.settings_of(data) == "x.yaml"
    # There is no reading thread to help with.
    salobj_compat.make_acks_atomic(None)


async def test_the_csc_takes_the_arguments_of_both_command_lines(bus):
    for arguments in ({"settings_to_apply": "x.yaml"}, {"override": "x.yaml"}):
        async with OcpsCsc(1, simulation_mode=1, **arguments) as csc:
            assert "x.yaml" in vars(csc).values()


@only_on_dds
async def test_the_constructor_passes_on_what_salobj_8_takes(newer, bus, monkeypatch):
    made, init = {}, salobj.ConfigurableCsc.__init__

    def init8(csc, *arguments, **named):
        made.update(salobj8.make_configurable(*arguments, **named))
        monkeypatch.setattr(salobj_compat, "SALOBJ_MAJOR", 6)
        init(csc, **made)

    monkeypatch.setattr(salobj.ConfigurableCsc, "__init__", init8)
    async with OcpsCsc(index=1, simulation_mode=1, override="x.yaml"):
        assert (made["index"], made["settings_to_apply"], made["simulation_mode"]) == (1, "x.yaml", 1)


@pytest.mark.parametrize("name", ["_get_settings_version", "_get_configs_version"])
async def test_no_git_program_is_no_error(bus, monkeypatch, name):
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.setattr(
        salobj.ConfigurableCsc, name, lambda csc: subprocess.check_output(["git"]), raising=False
    )
    async with OcpsCsc(1, simulation_mode=1) as csc:
        assert getattr(csc, name)() == ""


def test_fields_that_an_older_interface_lacks_are_empty():
    assert salobj_compat.field(types.SimpleNamespace(pipeline=" a "), "pipeline") == "a"
    assert salobj_compat.field(types.SimpleNamespace(pipeline="a"), "prereq_jobs") == ""
