# SPDX-License-Identifier: GPL-3.0-or-later
"""kill -9 of the CSC: its jobs go on, and their results come once it is ENABLED again."""

from __future__ import annotations

import json

import yaml
from lsst.dm.OCPS.testing import CscProcess, Script
from lsst.ts import salobj

from tests.gates import Gate, gated_definition
from tests.sal.conftest import write_config
from tests.waiting import TIMEOUT, until


async def test_results_of_jobs_that_outlive_the_csc_come_once(bus, pristine_repo, tmp_path):
    (tmp_path / "definitions.yaml").write_text(yaml.safe_dump({"definitions": [gated_definition()]}))
    while_down, later = Gate(tmp_path / "while-down"), Gate(tmp_path / "later")
    config = write_config(
        tmp_path / "config",
        butler=str(pristine_repo),
        work_dir=str(tmp_path / "work"),
        definitions=["sleep", str(tmp_path / "definitions.yaml")],
        max_workers=4,
        environments=[{"name": "default", "preload": False}],
    )
    async with Script.connect(wait=False) as script:
        csc = CscProcess("1", "--configdir", str(config), log=tmp_path / "csc.log")
        await csc.start()
        await script.set_state(salobj.State.ENABLED, "test.yaml")
        before = await script.execute("job:sleep", config="duration=0 text=before")
        await before.done()
        # On Kafka a result can be heard after the final acknowledgement.
        await before.result()
        # One ends while OCPS is down, one fails then, one runs on after.
        down = await script.execute("job:gated", config=f"gate={while_down.path}")
        failing = await script.execute("job:gated", config=f"gate={while_down.path} code=1")
        after = await script.execute("job:gated", config=f"gate={later.path}")
        jobs = tmp_path / "work" / "engine"
        for execution in (down, failing, after):
            await until((jobs / execution.job_id / "group.json").exists)
        await csc.kill()
        while_down.open()
        for execution in (down, failing):
            await until((jobs / execution.job_id / "status.json").exists)
        assert len(script.results) == 1
        script.remote.evt_summaryState.flush()
        async with CscProcess("1", "--configdir", str(config), log=tmp_path / "csc.log"):
            await script.remote.evt_summaryState.next(flush=False, timeout=TIMEOUT)
            await script.set_state(salobj.State.DISABLED, "test.yaml")
            # Nothing goes out before the CSC is ENABLED.
            assert len(script.results) == 1
            await script.set_state(salobj.State.ENABLED)
            codes = {}
            for execution in (down, failing, after):
                if execution is after:
                    later.open()
                data = await script.result(execution.job_id)
                codes[execution.job_id] = data.exit_code
                assert json.loads(data.result)["jobId"] == execution.job_id
            assert list(codes.values()) == [0, 1, 0]
            other = await script.execute("job:sleep", config='{"duration": 0}')
            await other.done()
            await other.result()
        heard = [data.job_id for data in script.results]
        assert sorted(heard) == sorted(
            execution.job_id for execution in (before, down, failing, after, other)
        )
