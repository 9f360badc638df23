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
from lsst.dm.OCPS.sal.main import main
from lsst.dm.OCPS.testing import CscProcess, Script
from lsst.ts import salobj

from tests.generations import BUS_VARIABLE
from tests.waiting import TIMEOUT, until

BIN = Path(sys.executable).parent
ROOT = Path(__file__).resolve().parents[2]


async def until_offline(script: Script) -> None:
    """Read states until the CSC is heard to be OFFLINE."""
    event = script.remote.evt_summaryState
    while (await event.next(flush=False, timeout=TIMEOUT)).summaryState != salobj.State.OFFLINE:
        pass


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(arguments, capture_output=True, text=True, timeout=TIMEOUT, check=False)


# That all three names of the program exist is shown by `test_standard.TestStandard.test_programs`.
def test_help_names_the_arguments(bus):
    answer = run(str(BIN / "run_OCPS.py"), "--help")
    assert answer.returncode == 0, answer.stderr
    assert "--simulate" in answer.stdout
    assert "101" in answer.stdout


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["0", "--simulate"], "index"),
        (["4", "--simulate"], "index"),
        (["x", "--simulate"], "index"),
        (["--simulate", "--simulation-duration", "-1"], "is not a time in seconds"),
        (["--simulate", "--simulation-duration", "nan"], "is not a time in seconds"),
        (["--loglevel", "chatty"], "is not a log level"),
    ],
)
def test_a_wrong_command_line_is_refused_in_words(monkeypatch, capsys, bus, arguments, words):
    # The main function in this process, for its imports take long; `test_start` sees a process refuse.
    monkeypatch.setattr(sys, "argv", ["run_ocps", *arguments])
    with pytest.raises(SystemExit) as caught:
        main()
    if isinstance(caught.value.code, str):
        assert words in caught.value.code
    else:
        assert caught.value.code == 2
        assert words in capsys.readouterr().err.splitlines()[-1]


def test_a_variable_of_the_bus_that_is_empty_is_named(monkeypatch, bus):
    monkeypatch.setenv(BUS_VARIABLE, "")
    monkeypatch.setattr(sys, "argv", ["run_ocps", "1"])
    with pytest.raises(SystemExit, match=f"{BUS_VARIABLE} is not set or empty; export"):
        main()


@pytest.mark.parametrize("way", ["SIGTERM", "exitControl"])
async def test_ending_publishes_offline_and_answers_open_commands(bus, tmp_path, way):
    log = tmp_path / "csc.log"
    async with (
        CscProcess("2", "--simulate", "--simulation-duration", "3600", log=log) as csc,
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
            assert "continues" not in final.result
        assert csc.process is not None
        assert await asyncio.wait_for(csc.process.wait(), TIMEOUT) == 0
        await until_offline(script)
    assert "Traceback" not in log.read_text()


async def test_no_index_means_latiss_state_can_be_given_and_heartbeat_goes_on_while_jobs_run(bus):
    async with (
        CscProcess("--simulate", "--state", "enabled", "--simulation-duration", "3600") as _,
        Script.connect(index=1) as script,
    ):
        while await script.wait_for_csc() != salobj.State.ENABLED:
            await script.remote.evt_summaryState.next(flush=False, timeout=TIMEOUT)
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
