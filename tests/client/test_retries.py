# SPDX-License-Identifier: GPL-3.0-or-later
"""What everybody sees of a job that was run again: documents, terminal, Python, logs of each attempt."""

from __future__ import annotations

import asyncio
import logging

import pytest
import yaml
from lsst.dm.OCPS.client import Client
from lsst.dm.OCPS.config import ConfigError, InstanceConfig
from lsst.dm.OCPS.factory import make_parts
from lsst.dm.OCPS.jobs.workspace import Workspaces
from lsst.dm.OCPS.sal.result import result_document

from tests.client.conftest import User
from tests.waiting import TIMEOUT, until_job

RETRIES = {"max": 2, "delay": 0, "log_texts": {"busy": "try again later"}}


def definitions(folder, retries=RETRIES) -> str:
    """Write a definition of a job that succeeds the second time, when it is told to."""
    script = (
        "if [ -e {flag} ]; then echo fine; while [ ! -e {flag}.go ]; do sleep 0.05; done; exit 0; fi; "
        'touch {flag}; echo "server busy, try again later"; exit 3'
    )
    entry = {
        "name": "flaky",
        "kind": "command",
        "argv": ["sh", "-c", script],
        "parameters": {"flag": {}},
        "retries": retries,
    }
    path = folder / "flaky.yaml"
    path.write_text(yaml.safe_dump({"definitions": [entry]}))
    return str(path)


async def test_everybody_is_told_the_attempt_and_can_read_the_log_of_each(start, tmp_path):
    served = await start(definitions=[definitions(tmp_path)])
    user = User(tmp_path, served.root)
    url = await served.create("flaky", run=True, flag=str(tmp_path / "flag"))
    job_id = url.rpartition("/")[2]
    await until_job(served.manager, job_id, lambda job: job.attempt == 2 and job.phase == "EXECUTING")

    # While the second attempt runs.
    _, xml, _ = await served.ask("GET", url)
    assert '<ocps:attempt number="2" of="3">attempt 2 of 3</ocps:attempt>' in xml
    status, text, _ = await served.ask("GET", f"{url}/results/attempt-1-log.txt")
    assert (status, text) == (200, "server busy, try again later\n")
    code, out, _ = await user("log", job_id, "--attempt", "1")
    assert (code, out) == (0, "server busy, try again later\n")
    _, out, _ = await user("list")
    assert "attempt 2 of 3" in out
    follow = asyncio.create_task(user("log", "-f", job_id))

    (tmp_path / "flag.go").touch()
    job = await served.manager.wait(job_id, TIMEOUT)
    code, out, _ = await asyncio.wait_for(follow, TIMEOUT)
    assert (code, out) == (0, "fine\n")
    document = await user.json("show", "--json", job_id)
    assert (document["phase"], document["attempt"], document["max_attempts"]) == ("COMPLETED", 2, 3)
    _, out, _ = await user("show", job_id)
    assert "2 of 3" in out
    assert "it ended with exit code 3: server busy" in out
    code, _, err = await user("log", job_id, "--attempt", "7")
    assert code == 4
    assert "has no attempt 7; it is on attempt 2" in err
    async with Client(served.root) as client:
        found = await client.get(job_id)
        assert (found.attempt, found.max_attempts) == (2, 3)
        assert await client.read_log(found) == b"fine\n"
        assert await client.read_log(found, attempt=1) == b"server busy, try again later\n"
        (former,) = found.info["attempts"]
        assert former["number"] == 1
        (listed,) = await client.jobs()
        assert (listed.attempt, listed.max_attempts) == (2, 3)

    # The result that goes out over SAL.
    info = result_document(job)["jobInfo"]
    assert (info["attempt"], info["maxAttempts"], info["attempts"]) == (2, 3, listed.info["attempts"])
    assert info["attempts"][0].items() >= {"number": 1, "exitCode": 3, "cause": "busy"}.items()

    # All attempts go with the job.
    assert list((tmp_path / "work" / "jobs" / job_id).glob("*~2"))
    await served.manager.destroy(job_id)
    for name in ("jobs", "engine"):
        assert not (tmp_path / "work" / name / job_id).exists()


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"backend": "uws", "url": "http://127.0.0.1:9", "retries": {"max": 1}}, "retries of pipetask"),
        ({"backend": "uws", "url": "http://127.0.0.1:9", "definitions": True}, "retries of flaky"),
    ],
)
def test_forwarded_jobs_are_not_run_again_and_the_configuration_says_so(tmp_path, settings, words):
    if "definitions" in settings:
        settings = {**settings, "definitions": [definitions(tmp_path)]}
    config = InstanceConfig(sal_index=1, **settings)
    with pytest.raises(ConfigError, match=words) as error:
        make_parts(config, Workspaces(tmp_path), logging.getLogger())
    assert "does not run a job a second time" in str(error.value)


@pytest.mark.parametrize(
    ("retries", "words"),
    [
        ({}, "'max' is a required property"),
        ({"max": 21}, "21 is greater than the maximum of 20"),
        ({"max": 1, "exit_codes": [0]}, "exit_codes/0"),
        ({"max": 1, "log_texts": {"a": "x"}}, "log_texts/a"),
        ({"max": 1, "often": True}, "'often' was unexpected"),
    ],
)
def test_a_policy_that_makes_no_sense_is_refused(tmp_path, retries, words):
    config = InstanceConfig(sal_index=1, definitions=[definitions(tmp_path, retries)])
    with pytest.raises(ConfigError, match=words):
        make_parts(config, Workspaces(tmp_path), logging.getLogger())
