# SPDX-License-Identifier: GPL-3.0-or-later
"""What salobj tests of every CSC, and the spelling of pipelines that scripts send."""

from __future__ import annotations

import os
import sys
import unittest
from pathlib import Path

import jsonschema
import lsst.dm.OCPS
import pytest
import yaml
from lsst.dm.OCPS import OcpsCsc
from lsst.dm.OCPS.testing import CscProcess, Script
from lsst.ts import salobj

from tests.conftest import ROOT
from tests.sal.conftest import write_config
from tests.waiting import TIMEOUT

PROGRAMS = str(Path(sys.executable).parent)


class TestStandard(salobj.BaseCscTestCase, salobj.BaseConfigTestCase, unittest.IsolatedAsyncioTestCase):
    """The checks that salobj has for a configurable CSC."""

    def basic_make_csc(self, initial_state, config_dir, simulation_mode, **kwargs):
        return OcpsCsc(
            1,
            config_dir=config_dir,
            initial_state=initial_state,
            simulation_mode=simulation_mode,
            simulation_duration=0,
            **kwargs,
        )

    async def test_standard_state_transitions(self):
        # salobj 8 wants the initial state to be named.
        async with self.make_csc(initial_state=salobj.State.STANDBY, simulation_mode=1):
            await self.check_standard_state_transitions(
                enabled_commands=("execute", "abort_job"), timeout=TIMEOUT
            )

    async def test_programs(self):
        path = os.pathsep.join([PROGRAMS, str(ROOT / "bin"), os.environ.get("PATH", os.defpath)])
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("PATH", path)
            for program in ("run_ocps", "run_OCPS.py", "run_ocps.py"):
                with self.subTest(program):
                    await self.check_bin_script(
                        "OCPS", 1, program, cmdline_args=["--simulate"], timeout=TIMEOUT
                    )

    def test_standard_config_files(self):
        for root in (ROOT / "config", ROOT / "python" / "lsst" / "dm" / "OCPS" / "config_package"):
            self.check_standard_config_files(
                sal_name="OCPS",
                module_name="lsst.dm.OCPS",
                schema_name="CONFIG_SCHEMA",
                config_dir=root / "OCPS" / "v4",
            )


def test_files_that_salobj_8_takes_for_those_of_a_site_have_settings_only():
    for root in (ROOT / "config", ROOT / "python" / "lsst" / "dm" / "OCPS" / "config_package"):
        files = sorted((root / "OCPS" / "v4").glob("_*.yaml"))
        assert files
        for path in files:
            jsonschema.validate(yaml.safe_load(path.read_text()) or {}, lsst.dm.OCPS.CONFIG_SCHEMA)


def test_public_names_are_there_when_they_are_used():
    assert lsst.dm.OCPS.CONFIG_SCHEMA["title"] == "OCPS v4"
    assert lsst.dm.OCPS.OcpsCsc is OcpsCsc
    with pytest.raises(AttributeError, match="no attribute 'Nothing'"):
        _ = lsst.dm.OCPS.Nothing


async def test_each_spelling_of_an_allowed_pipeline_is_accepted(bus, pristine_repo, tmp_path):
    """Standard scripts write ${X_DIR}; all of these name the same file."""
    folder = str(ROOT / "demo")
    instance = {
        "butler": str(pristine_repo),
        "input_collection": "DemoCam/raw/all",
        "work_dir": str(tmp_path / "work"),
        "environments": [{"name": "default", "preload": False}],
    }
    config = write_config(tmp_path / "config", **instance, allowed_pipelines=["$DEMOCAM_DIR/pipelines/*"])
    other = write_config(tmp_path / "other", **instance, allowed_pipelines=[f"{folder}/pipelines/*"])
    (other / "test.yaml").rename(config / "other.yaml")
    log = tmp_path / "csc.log"
    async with CscProcess("1", "--configdir", str(config), log=log) as csc, Script.connect() as script:
        for settings in ("test.yaml", "other.yaml"):
            await script.set_state(salobj.State.ENABLED, settings)
            for spelling in ("${DEMOCAM_DIR}", "$DEMOCAM_DIR", folder):
                execution = await script.execute(f"{spelling}/pipelines/oneQuantum.yaml", timeout=TIMEOUT)
                await script.remote.cmd_abort_job.set_start(job_id=execution.job_id, timeout=TIMEOUT)
            with pytest.raises(salobj.AckError) as caught:
                await script.execute("${DEMOCAM_DIR}/pipelines/../repo.yaml", timeout=TIMEOUT)
            assert caught.value.ackcmd.result
            await script.set_state(salobj.State.STANDBY)
        await csc.stop(timeout=TIMEOUT)


def test_the_configuration_of_the_demo_says_that_its_accounts_are_trusted():
    text = (ROOT / "config" / "OCPS" / "v4" / "demo.yaml").read_text()
    for instance in yaml.safe_load(text)["instances"]:
        if "http" in instance:
            assert instance["http"]["auth"]["open"] is True
