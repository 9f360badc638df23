# SPDX-License-Identifier: GPL-3.0-or-later
"""Dry runs over HTTP, from the terminal and from Python."""

from __future__ import annotations

import json
from pathlib import Path
from unittest.mock import AsyncMock

import pytest
from lsst.dm.OCPS import audit
from lsst.dm.OCPS.client import BlockingClient, Client, RefusedError
from lsst.dm.OCPS.client.follow import Server
from lsst.dm.OCPS.jobs.store import JobQuery

from tests.client.conftest import User
from tests.http.conftest import Served
from tests.uws11 import Uws11, other

__all__ = ["other"]


async def jobs(served: Served) -> int:
    return len(await served.manager.find(JobQuery()))


@pytest.mark.parametrize("value", ["?dryrun", "?dryrun=true", "?DRYRUN=1"])
async def test_a_job_list_says_what_a_job_would_run(served: Served, value: str) -> None:
    form = {"number": "3", "PHASE": "RUN"}
    status, body, _ = await served.ask("POST", served.url("typed") + value, data=form)
    assert status == 200, body
    found = json.loads(body)
    assert found["argv"] == ["printf", "%s\\n", "3", "--real=0.5", "false", "red", ""]
    assert (found["definition"], found["quanta"], found["tasks"]) == ("typed", None, None)
    assert found["message"].startswith("would run: printf '%s\\n' 3 --real=0.5")
    assert await jobs(served) == 0


async def test_a_file_that_came_along_is_not_kept(served: Served) -> None:
    import aiohttp

    form = aiohttp.FormData()
    form.add_field("table", b"data", filename="table.dat")
    status, body, _ = await served.ask("POST", served.url("copy") + "?dryrun", data=form)
    assert status == 200, body
    assert json.loads(body)["argv"] == ["cp", "{table}", "{output_dir}/copied.dat"]
    work = served.manager.workspaces.work_dir
    assert not [*(work / "jobs").iterdir(), *(work / "engine").iterdir(), *work.glob("upload-*")]


async def test_the_json_dialect_says_it_too(served: Served) -> None:
    body = {"type": "typed", "env": {"number": 3}}
    status, text, _ = await served.ask("POST", "/api/v1/job?dryrun", json=body)
    assert (status, json.loads(text)["argv"][2]) == (200, "3")
    assert await jobs(served) == 0
    # No is no.
    status, text, _ = await served.ask("POST", "/api/v1/job?dryrun=false", json=body)
    assert (status, "jobId" in json.loads(text)) == (200, True)
    status, text, _ = await served.ask("POST", "/api/v1/job?dryrun=maybe", json=body)
    assert (status, text) == (400, "dryrun: expected true or false, not 'maybe'\n")


@pytest.mark.parametrize(
    ("name", "form"),
    [
        ("typed", {"number": "11"}),
        ("typed", {}),
        ("typed", {"number": "1", "colour": "blue", "nosuch": "1"}),
        ("typed", {"number": "1", "EXECUTIONDURATION": "x"}),
        ("typed", {"number": "1", "PREREQ_JOBS": "nosuch"}),
        ("private", {}),
        ("copy", {"table": "ftp://elsewhere/x"}),
        ("nosuch", {}),
    ],
)
async def test_refusals_are_those_of_a_submission(served: Served, name: str, form: dict[str, str]) -> None:
    form |= {"PHASE": "RUN"}
    tried = await served.ask("POST", served.url(name) + "?dryrun", data=form)
    submitted = await served.ask("POST", served.url(name), data=form)
    assert tried[:2] == submitted[:2]
    assert tried[0] >= 400
    assert await jobs(served) == 0


async def test_a_job_that_is_there_cannot_be_tried(served: Served) -> None:
    url = await served.create("sleep", duration="1")
    status, body, _ = await served.ask("POST", url, data={"DRYRUN": "1", "PHASE": "RUN"})
    assert (status, body) == (400, "DRYRUN: only the creation of a job can be tried, at its job list\n")
    assert (await served.manager.get(url.rpartition("/")[2])).phase == "PENDING"


async def test_the_audit_log_has_it(served: Served) -> None:
    await served.ask("POST", served.url("sleep") + "?dryrun", data={"duration": "1"})
    audit.flush()
    text = (served.manager.workspaces.work_dir / audit.FILE_NAME).read_text()
    (entry,) = (json.loads(line) for line in text.splitlines())
    assert (entry["action"], entry["definition"], entry["outcome"]) == ("dry run", "sleep", "HTTP 200")


async def test_the_terminal_shows_it(served: Served, tmp_path: Path) -> None:
    user = User(tmp_path, served.root)
    code, out, err = await user("submit", "typed", "number=3", "text=my words", "--dry-run")
    assert (code, err) == (0, "")
    assert out == "would run: printf '%s\\n' 3 --real=0.5 false red 'my words'\n"
    found = await user.json("submit", "typed", "number=3", "--dry-run")
    assert found["argv"][2] == "3"
    code, out, err = await user("submit", "typed", "number=30", "--dry-run")
    assert (code, out) == (4, "")
    assert "number" in err
    assert await jobs(served) == 0


async def test_a_job_can_be_tried_again_with_other_values(served: Served, tmp_path: Path) -> None:
    old = (await served.create("typed", number="3", text="x")).rpartition("/")[2]
    user = User(tmp_path, served.root)
    code, out, err = await user("rerun", old, "number=4", "--dry-run")
    assert (code, err) == (0, "")
    assert out == "would run: printf '%s\\n' 4 --real=0.5 false red x\n"
    assert (await user.json("rerun", old, "--dry-run"))["argv"][2] == "3"
    code, out, err = await user("rerun", old, "number=30", "--dry-run")
    assert (code, out) == (4, "")
    assert "number" in err
    async with Client(served.root) as client:
        request = await client.request(old, {"number": 5})
        assert (await client.dry_run(**request)).argv[2] == "5"
    assert await jobs(served) == 1


async def test_the_clients_return_it(served: Served) -> None:
    import asyncio

    async with Client(served.root) as client:
        found = await client.dry_run("typed", {"number": 3, "flag": True}, run_id="mine", priority=0)
        assert (found.argv[2], found.argv[4], found.quanta) == ("3", "true", None)
        with pytest.raises(RefusedError, match="number"):
            await client.dry_run("typed", {"number": 30})

    def block() -> str:
        with BlockingClient(served.root) as client:
            return client.dry_run("sleep", {"duration": 2}).message

    assert "sleep.py" in await asyncio.to_thread(block)


async def test_a_server_without_dry_runs_is_not_asked_to_create_a_job(
    other: Uws11, served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with Client(other.url) as client:
        with pytest.raises(RefusedError, match="has no dry runs"):
            await client.dry_run("", {})
    async with Client(served.root) as client:
        # An older OCPS does not say in its document that it has them.
        server = await client.server()
        older = Server(server.uws, server.api)
        monkeypatch.setattr(client, "server", AsyncMock(return_value=older))
        with pytest.raises(RefusedError, match="has no dry runs"):
            await client.dry_run("sleep", {"duration": 1})
    assert await jobs(served) == 0
