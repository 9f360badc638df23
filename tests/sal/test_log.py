# SPDX-License-Identifier: GPL-3.0-or-later
"""What the CSC writes to standard error."""

from __future__ import annotations

import json
import re

from lsst.dm.OCPS.testing import CscProcess, Script, private_bus
from lsst.ts import salobj

LINE = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}\+00:00 (DEBUG|INFO|WARNING|ERROR) OCPS: .+")


async def run(tmp_path, *arguments: str) -> tuple[str, str]:
    """Run a simulated job; return its id and what was logged."""
    private_bus()
    log = tmp_path / "csc.log"
    command = ("1", "--simulate", "--simulation-duration", "0", *arguments)
    async with CscProcess(*command, log=log), Script.connect() as script:
        await script.set_state(salobj.State.ENABLED)
        execution = await script.execute("true.yaml")
        await execution.result()
    return execution.job_id, log.read_text()


async def test_each_change_of_phase_is_a_line_with_its_time_in_utc(tmp_path):
    job_id, text = await run(tmp_path)
    lines = text.splitlines()
    assert [line for line in lines if not LINE.fullmatch(line)] == []
    assert [line.rpartition(" ")[2] for line in lines if job_id in line] == [
        "QUEUED",
        "EXECUTING",
        "COMPLETED",
    ]


async def test_for_programs_each_line_is_an_object_with_job_and_owner(tmp_path):
    job_id, text = await run(tmp_path, "--log-json", "--loglevel", "info")
    records = [json.loads(line) for line in text.splitlines()]
    assert all({"time", "level", "logger", "message"} <= record.keys() for record in records)
    mine = [record for record in records if record.get("job_id") == job_id]
    assert len(mine) == 3
    assert {record["owner"] for record in mine} == {"sal"}


async def test_a_level_keeps_the_rest_out(tmp_path):
    _, text = await run(tmp_path, "--loglevel", "error")
    assert text == ""
