# SPDX-License-Identifier: GPL-3.0-or-later
"""The program: its names, its command line, and how it ends."""

from __future__ import annotations

import asyncio
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from lsst.dm.OCPS.testing import CscProcess, Script
from lsst.ts import salobj

from tests.waiting import TIMEOUT, until

BIN = Path(sys.executable).parent
ROOT = Path(__file__).resolve().parents[2]


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(arguments, capture_output=True, text=True, timeout=TIMEOUT, check=False)


@pytest.mark.parametrize("name", ["run_OCPS.py", "run_ocps.py", "run_ocps"])
def test_all_three_program_names_exist(name, bus):
    answer = run(str(BIN / name), "--help")
    assert answer.returncode == 0, answer.stderr
    assert "--simulate" in answer.stdout
    assert "101" in answer.stdout


@pytest.mark.parametrize("index", ["0", "4", "x"])
def test_an_unknown_index_is_refused(index, bus):
    answer = run(str(BIN / "run_OCPS.py"), index, "--simulate")
    assert answer.returncode == 2
    assert "index" in answer.stderr.splitlines()[-1]
    assert "Traceback" not in answer.stderr


def test_a_configuration_directory_that_is_not_there_is_refused_in_one_line(bus):
    answer = run(str(BIN / "run_OCPS.py"), "1", "--configdir", "/nowhere")
    assert answer.returncode == 1
    assert "/nowhere" in answer.stderr
    assert "Traceback" not in answer.stderr


async def test_no_index_means_latiss_and_state_can_be_given(bus):
    async with CscProcess("--simulate", "--state", "enabled"), Script.connect(index=1) as script:
        while await script.wait_for_csc() != salobj.State.ENABLED:
            await script.remote.evt_summaryState.next(flush=False, timeout=TIMEOUT)


@pytest.mark.parametrize("way", ["SIGTERM", "exitControl"])
async def test_ending_answers_open_commands(bus, way):
    async with (
        CscProcess("2", "--simulate", "--simulation-duration", "3600") as csc,
        Script.connect(index=2) as script,
    ):
        await script.set_state(salobj.State.ENABLED)
        executions = [await script.execute("true.yaml") for _ in range(3)]
        if way == "SIGTERM":
            assert csc.process is not None
            csc.process.send_signal(signal.SIGTERM)
        else:
            await script.set_state(salobj.State.STANDBY)
            await script.remote.cmd_exitControl.start(timeout=TIMEOUT)
        for execution in executions:
            final = await execution.done()
            assert final.ack == salobj.SalRetCode.CMD_FAILED
            assert "going offline" in final.result
            assert f"job {execution.job_id} is not simulated any further" in final.result
        assert csc.process is not None
        assert await asyncio.wait_for(csc.process.wait(), TIMEOUT) == 0


async def test_heartbeat_goes_on_while_jobs_run(bus):
    async with (
        CscProcess("1", "--simulate", "--simulation-duration", "3600") as _,
        Script.connect(index=1) as script,
    ):
        await script.set_state(salobj.State.ENABLED)
        executions = [await script.execute("true.yaml") for _ in range(10)]
        script.remote.evt_heartbeat.flush()
        for _ in range(2):
            await script.remote.evt_heartbeat.next(flush=False, timeout=TIMEOUT)
        assert all(execution.acks[-1].ack == salobj.SalRetCode.CMD_INPROGRESS for execution in executions)


async def test_sigterm_ends_it_before_it_is_on_the_bus(bus):
    """The signal comes as soon as the program catches it, which is before it has joined the bus."""
    csc = CscProcess("1", "--simulate")
    await csc.start()

    def catches_it() -> bool:
        status = Path(f"/proc/{csc.pid}/status").read_text()
        caught = int(re.search(r"^SigCgt:\s*(\w+)", status, re.MULTILINE)[1], 16)
        return bool(caught >> (signal.SIGTERM - 1) & 1)

    try:
        await until(catches_it)
        csc.process.send_signal(signal.SIGTERM)
        assert await asyncio.wait_for(csc.process.wait(), TIMEOUT) == 0
    finally:
        await csc.kill()
