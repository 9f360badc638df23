# SPDX-License-Identifier: GPL-3.0-or-later
"""``start`` and ``enable`` with slow environments, former configuration files, and the end by SIGTERM."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from pathlib import Path

import pytest
import pytest_asyncio
import yaml
from lsst.dm.OCPS.sal.compat import settings_field
from lsst.dm.OCPS.testing import CscProcess, Script, private_bus
from lsst.ts import salobj

from tests.gates import Gate
from tests.generations import BUS_VARIABLE, ON_KAFKA, write_common_files
from tests.sal.conftest import write_config
from tests.sal.test_process import until_offline
from tests.waiting import TIMEOUT, until

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def slow(pristine_repo: Path, tmp_path_factory):
    """A script connected to an OCPS whose environment is set up when a gate is opened, and counts that."""
    private_bus()
    folder = tmp_path_factory.mktemp("slow")
    gate = Gate(folder / "gate")
    path = f"export PATH={Path(sys.executable).parent}:$PATH"
    setup = f"echo run >> {folder}/runs\n{gate.script}\n{path}"
    config = write_config(
        folder / "config",
        butler=str(pristine_repo),
        input_collection="DemoCam/raw/all",
        work_dir=str(folder / "work"),
        environments=[{"name": "slow", "setup": setup, "preload": False}],
    )
    async with (
        CscProcess("1", "--configdir", str(config), log=folder / "csc.log"),
        Script.connect() as script,
    ):
        script.folder, script.gate = folder, gate
        yield script


async def test_a_slow_environment_is_acknowledged_as_in_progress_and_set_up_once(slow):
    command = slow.remote.cmd_start
    command.set(**{settings_field(): "test.yaml"})
    ack = await command.start(timeout=TIMEOUT, wait_done=False)
    while ack.ack != salobj.SalRetCode.CMD_INPROGRESS:
        ack = await command.next_ackcmd(ack, timeout=TIMEOUT, wait_done=False)
    assert ack.timeout >= 30
    slow.gate.open()
    await command.next_ackcmd(ack, timeout=TIMEOUT)
    await slow.set_state(salobj.State.ENABLED)
    await slow.set_state(salobj.State.STANDBY)
    await slow.set_state(salobj.State.ENABLED, "test.yaml")
    assert (slow.folder / "runs").read_text() == "run\n"


async def test_a_start_that_checks_can_be_ended(slow):
    """SIGTERM while ``start`` waits for an environment: OFFLINE is published, nothing is left."""
    private_bus()
    folder = slow.folder
    setup = f"echo $$ > {folder}/pid\nsleep 1000"
    config = write_config(
        folder / "other", butler="/", environments=[{"name": "slow", "setup": setup, "preload": False}]
    )
    log = folder / "other.log"
    async with CscProcess("1", "--configdir", str(config), log=log) as csc, Script.connect() as script:
        start = asyncio.create_task(script.set_state(salobj.State.DISABLED, "test.yaml"))
        await until(lambda: (folder / "pid").exists() and (folder / "pid").read_text().strip())
        script.remote.evt_summaryState.flush()
        assert await csc.stop(signal.SIGTERM, timeout=TIMEOUT) == 0
        data = await script.remote.evt_summaryState.next(flush=False, timeout=TIMEOUT)
        assert data.summaryState == salobj.State.OFFLINE
        start.cancel()
        with contextlib.suppress(asyncio.CancelledError, Exception):
            await start
    await until(lambda: not Path("/proc", (folder / "pid").read_text().strip()).exists())


FORMER = {
    "instance": "LATISS",
    "url": "http://127.0.0.1:1/api/v1",
    "poll_interval": 2.0,
    "butler": "/repo/LATISS",
    "input_collection": "LATISS/defaults",
    "output_glob": "*",
}


async def test_files_of_the_former_version_load_and_sigterm_in_standby_publishes_offline(tmp_path):
    """The server is asked, and cannot be reached: so the file was read and means what it meant."""
    private_bus()
    folder = tmp_path / "OCPS" / "v3"
    folder.mkdir(parents=True)
    (folder / "latiss.yaml").write_text(yaml.safe_dump(FORMER))
    write_common_files(folder, latiss="latiss.yaml")
    environment = {"DM_CONFIG_OCPS_DIR": str(tmp_path)}
    log = tmp_path / "csc.log"
    async with CscProcess("1", environment=environment, log=log) as csc, Script.connect() as script:
        if ON_KAFKA:
            available = await script.remote.evt_configurationsAvailable.aget(timeout=TIMEOUT)
            assert available.overrides == "latiss.yaml"
        else:
            versions = await script.remote.evt_settingVersions.aget(timeout=TIMEOUT)
            assert versions.recommendedSettingsLabels == "latiss"
        with pytest.raises(salobj.AckError) as caught:
            await script.remote.cmd_start.set_start(**{settings_field(): "latiss.yaml"}, timeout=TIMEOUT)
        assert "127.0.0.1:1" in caught.value.ackcmd.result
        # There is no git here, and nothing is wrong with that.
        assert "WARNING" not in log.read_text()
        # It is still in STANDBY; `test_process` ends one that is ENABLED and has jobs.
        assert await csc.stop(signal.SIGTERM, timeout=TIMEOUT) == 0
        await until_offline(script)
    assert "Traceback" not in log.read_text()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--configdir", "/no/such/folder"], "/no/such/folder"),
        (["7"], "there is no index '7'; expected 1 LATISS, 2 LSSTComCam, 3 LSSTCam, 101 RA"),
    ],
)
async def test_a_start_that_fails_says_why_in_one_line(tmp_path, arguments, words):
    private_bus()
    log = tmp_path / "log"
    csc = CscProcess(*arguments, log=log)
    await csc.start()
    assert await asyncio.wait_for(csc.process.wait(), TIMEOUT)
    (line,) = log.read_text().splitlines()
    assert words in line


async def test_without_the_variable_of_the_bus_the_program_says_what_to_do(tmp_path):
    log = tmp_path / "log"
    csc = CscProcess("1", log=log)
    csc.environment = {name: value for name, value in os.environ.items() if name != BUS_VARIABLE}
    await csc.start()
    assert await asyncio.wait_for(csc.process.wait(), TIMEOUT)
    (line,) = log.read_text().splitlines()
    assert f"{BUS_VARIABLE} is not set or empty" in line
