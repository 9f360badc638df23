# SPDX-License-Identifier: GPL-3.0-or-later
"""The HTTP face beside the CSC, and job definitions over SAL."""

from __future__ import annotations

import json
import re

import aiohttp
import pytest
import yaml
from lsst.dm.OCPS.testing import CscProcess, Script
from lsst.ts import salobj

from tests.generations import write_common_files
from tests.http.test_operation import expressions, named
from tests.ports import free_port
from tests.waiting import TIMEOUT


async def refusal(script: Script, **fields: str) -> str:
    with pytest.raises(salobj.AckError) as caught:
        await script.execute(**fields)
    return str(caught.value.ackcmd.result)


async def test_one_engine_is_seen_over_sal_and_over_http(bus, repo, tmp_path):
    port = free_port()
    instance = {
        "sal_index": 1,
        "butler": str(repo),
        "input_collection": "DemoCam/raw/all",
        "work_dir": str(tmp_path / "work"),
        "definitions": ["sleep", "democam"],
        "environments": [{"name": "default", "preload": False}],
        "http": {"port": port, "auth": {"open": True}},
    }
    config = tmp_path / "config"
    config.mkdir()
    (config / "test.yaml").write_text(yaml.safe_dump({"instances": [instance]}))
    write_common_files(config)
    url = f"http://127.0.0.1:{port}"
    async with (
        CscProcess("1", "--configdir", str(config), log=tmp_path / "csc.log"),
        Script.connect() as script,
        aiohttp.ClientSession(raise_for_status=True) as client,
    ):
        await script.set_state(salobj.State.ENABLED, settings="test.yaml")

        # Words and JSON both name the parameters of a definition.
        execution = await script.execute("job:sleep", config="duration=0.1 text='from a script'")
        assert (await execution.result())["exit_code"] == 0
        async with client.get(f"{url}/uws/sleep/{execution.job_id}/results/result.txt") as answer:
            assert await answer.text() == "from a script"
        execution = await script.execute("job:sleep", config='{"duration": 0.1, "fail": true}')
        result = await execution.result()
        assert (result["exit_code"], result["phase"]) == (1, "error")

        text = await refusal(script, pipeline="job:sleep", config="duration=long speed=9")
        assert "duration: " in text
        assert "speed: " in text
        assert "sleep" in await refusal(script, pipeline="job:nosuch")
        assert "data_query" in await refusal(script, pipeline="job:sleep", data_query="x=1")

        # Every figure of SAL that the board and the alarm rules name is there.
        async with client.get(f"{url}/metrics") as answer:
            text = await answer.text()
        wanted = {name for found in expressions().values() for text_ in found for name in named(text_)}
        wanted = {name for name in wanted if not name.startswith("ocps_notifications_")}
        assert {name for name in wanted if not re.search(rf"^{name}[ {{]", text, re.MULTILINE)} == set()
        assert re.search("^ocps_sal_summary_state 2", text, re.MULTILINE)

        # The dashboard shows the CSC.
        async with client.get(f"{url}/api/v1/status") as answer:
            csc = (await answer.json())["csc"]
        assert (csc["name"], csc["index"], csc["state"]) == ("OCPS", 1, "ENABLED")
        assert csc["versions"]["cscVersion"]

        # A job of HTTP is no business of scripts; abort_job reaches it all the same.
        async with client.post(f"{url}/uws/sleep", data={"duration": "3600", "PHASE": "RUN"}) as answer:
            job = str(answer.url)
        await script.remote.cmd_abort_job.set_start(job_id=job.rpartition("/")[2], timeout=TIMEOUT)
        async with client.get(f"{job}/phase") as answer:
            assert await answer.text() == "ABORTED"
        assert job.rpartition("/")[2] not in {data.job_id for data in script.results}

        # DELETE of a job that a script waits for: its result goes out all the same.
        execution = await script.execute("job:sleep", config="duration=3600")
        async with client.delete(f"{url}/api/v1/job/{execution.job_id}") as answer:
            assert (await answer.json())["status"] == "ok"
        assert (await execution.result())["exit_code"] == 255
        gone = await client.get(f"{url}/api/v1/job/{execution.job_id}", raise_for_status=False)
        assert gone.status == 404

    # Who commanded what, over SAL and over HTTP, is in one log.
    lines = [json.loads(line) for line in (tmp_path / "work" / "audit.jsonl").read_text().splitlines()]
    shown = [(line["origin"], line["action"], line["outcome"]) for line in lines]
    assert shown[:2] == [("sal", "execute", "ok")] * 2
    assert shown[2][:2] == ("sal", "execute")
    assert "duration: " in shown[2][2]
    assert ("http", "create", "HTTP 303") in shown
    assert ("sal", "abort_job", "ok") in shown
    assert (lines[-1]["action"], lines[-1]["job_id"]) == ("delete", execution.job_id)
