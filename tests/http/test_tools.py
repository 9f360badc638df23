# SPDX-License-Identifier: GPL-3.0-or-later
"""The server in the hands of tools that nobody here wrote, and as a program of its own."""

from __future__ import annotations

import asyncio
import io
import os
import re
import signal
import sys
from pathlib import Path

import pytest
import requests
from lsst.dm.OCPS import run_uws
from lxml import etree
from pyvo.dal.tap import AsyncTAPJob
from pyvo.io.uws import parse_job, parse_job_list

from tests.waiting import TIMEOUT

ROOT = Path(__file__).resolve().parents[2]


async def test_pyvo_follows_runs_waits_for_fetches_and_deletes_a_job(served):
    job_url = await served.create(duration="0.3", text="for pyvo")

    def use() -> None:
        job = AsyncTAPJob(job_url)
        assert job.phase == "PENDING"
        assert job.job_id == job_url.rpartition("/")[2]
        job.execution_duration = 60
        assert job.execution_duration.value == 60
        job.run().wait(timeout=TIMEOUT)
        assert job.phase == "COMPLETED"
        job.raise_if_error()
        uris = [result.href for result in job.results]
        assert any(requests.get(uri, timeout=TIMEOUT).text == "for pyvo" for uri in uris)
        job.delete()
        assert requests.get(job_url, timeout=TIMEOUT).status_code == 404

    await asyncio.to_thread(use)


async def test_pyvo_aborts_a_job_and_sees_errors(served):
    running = await served.create(run=True, duration="3600")
    failed = await served.create(run=True, duration="0", fail="true")
    await served.ended(failed)

    def use() -> None:
        from pyvo.dal.exceptions import DALQueryError

        job = AsyncTAPJob(running)
        job.abort()
        assert job.phase == "ABORTED"
        with pytest.raises(DALQueryError, match="failing, as asked for"):
            AsyncTAPJob(failed).raise_if_error()

    await asyncio.to_thread(use)


async def test_pyvo_reads_job_lists(served):
    made = {(await served.create(RUNID="r")).rpartition("/")[2] for _ in range(3)}
    body = (await served.ask("GET", served.url()))[1]
    path = served.manager.workspaces.work_dir / "jobs.xml"
    path.write_text(body)
    jobs = list(parse_job_list(str(path)))
    assert {job.jobid for job in jobs} == made
    assert {job.phase for job in jobs} == {"PENDING"}
    path.write_text((await served.ask("GET", f"{served.url()}/{made.pop()}"))[1])
    assert parse_job(str(path)).runid == "r"


async def test_schemathesis_finds_nothing_that_the_openapi_document_does_not_say(served, tmp_path):
    for duration in ("0", "60"):
        await served.create(run=True, duration=duration)
    command = [str(Path(sys.executable).parent / "schemathesis"), "run", f"{served.root}/api/v1/openapi.json"]
    command += ["--checks", "all", "--max-examples", "25", "--seed", "1", "--no-color"]
    # Without a secret anybody is served on this machine; and not every text is the name of a definition.
    command += ["--exclude-checks", "ignored_auth,positive_data_acceptance"]
    process = await asyncio.create_subprocess_exec(
        *command, cwd=tmp_path, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    output, _ = await process.communicate()
    assert process.returncode == 0, output.decode()[-6000:]


# run_uws.py


async def first_line(process: asyncio.subprocess.Process, pattern: str) -> str:
    assert process.stderr
    seen = ""
    async with asyncio.timeout(TIMEOUT):
        while line := (await process.stderr.readline()).decode():
            seen += line
            if found := re.search(pattern, line):
                return found[1]
    raise AssertionError(seen)


async def test_the_demo_serves_democam_with_a_butler_of_its_own(tmp_path):
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith(("API_", "DEMOCAM"))
    }
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        str(ROOT / "bin" / "run_uws.py"),
        *("--demo", "--port", "0", "--work-dir", str(tmp_path / "demo")),
        stderr=asyncio.subprocess.PIPE,
        env=environment,
    )
    try:
        url = await first_line(process, r"Serving UWS at (\S+)")

        def use() -> None:
            made = requests.post(f"{url}/bias", data={"PHASE": "RUN"}, timeout=TIMEOUT)
            job = made.url
            while requests.get(f"{job}/phase?WAIT=60", timeout=TIMEOUT).text in ("QUEUED", "EXECUTING"):
                pass
            root = etree.fromstring(requests.get(job, timeout=TIMEOUT).content)
            text = etree.tostring(root).decode()
            assert "COMPLETED" in text, requests.get(f"{job}/results/ocps.log", timeout=TIMEOUT).text[-2000:]
            assert "biasMetrics" in text
            for name in ("pipetask", "focusSweep", "sleep"):
                assert requests.get(f"{url}/{name}", timeout=TIMEOUT).status_code == 200

        await asyncio.to_thread(use)
        process.send_signal(signal.SIGTERM)
        assert await asyncio.wait_for(process.wait(), TIMEOUT) == 0
    finally:
        if process.returncode is None:
            process.kill()


@pytest.mark.parametrize(("kind", "start"), [("token", "sha256$"), ("password", "scrypt$")])
def test_secrets_are_hashed_from_standard_input(monkeypatch, capsys, kind, start):
    monkeypatch.setattr(sys, "stdin", io.StringIO("x\n"))
    assert run_uws.main(["--hash", kind]) == 0
    assert capsys.readouterr().out.startswith(start)


@pytest.mark.parametrize(
    ("arguments", "environment", "words"),
    [
        (["--config", "/nowhere.yaml"], {}, "/nowhere.yaml"),
        (["--config", "CONFIG", "--index", "3"], {}, "sal_index 3"),
        (["--config", "CONFIG"], {"API_PORT": "many"}, "API_PORT"),
        (["--config", "CONFIG"], {}, "butler"),
    ],
)
def test_what_keeps_it_from_serving_is_said_in_one_line(
    tmp_path, monkeypatch, capsys, arguments, environment, words
):
    config = tmp_path / "config.yaml"
    http = "{auth: {open: true}}"
    config.write_text(
        f"instances: [{{sal_index: 1, butler: /nowhere, work_dir: {tmp_path}/work, http: {http}}}]"
    )
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    # Logging of this process stays as it is.
    monkeypatch.setattr(run_uws, "log_to_stderr", lambda **_: None)
    assert run_uws.main([str(config) if word == "CONFIG" else word for word in arguments]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("run_uws: ")
    assert words in line
