# SPDX-License-Identifier: GPL-3.0-or-later
"""The Python client, against our server, ours behind a bad network, and a stand-in for another."""

from __future__ import annotations

import asyncio
import logging
import socket
from pathlib import Path
from typing import Any

import pytest
from lsst.dm.OCPS.client import (
    BlockingClient,
    Client,
    ClientError,
    RefusedError,
    RemoteJob,
    RemoteResult,
    UnknownError,
    UnreachableError,
)
from lsst.dm.OCPS.client.errors import DocumentError
from lsst.dm.OCPS.client.uws_xml import parse_job, parse_list
from lsst.dm.OCPS.config import AuthConfig, HttpConfig
from lsst.dm.OCPS.http.server import start_server

from tests.client.conftest import ocps
from tests.http.conftest import Served, Start
from tests.proxy import Proxy
from tests.uws11 import Uws11
from tests.waiting import TIMEOUT, until


async def test_a_job_from_its_submission_to_its_results(client: Client, tmp_path: Path) -> None:
    job = await client.submit("sleep", {"duration": 0, "text": "grüß"}, run_id="mine")
    job = await client.wait(job, TIMEOUT)
    assert (job.phase, job.run_id, job.definition) == ("COMPLETED", "mine", "sleep")
    assert job.parameters["text"] == "grüß"
    assert [result.id for result in job.results] == ["ocps.log", "result.txt"]
    path = await client.download((await client.results(job))[1], tmp_path / "results")
    assert path.read_text() == "grüß"
    assert [entry.name for entry in path.parent.iterdir()] == ["result.txt"]
    log = await client.read_log(job)
    assert log.startswith(b"sleeping")
    assert await client.read_log(job, 9) == log[9:]
    assert await client.read_log(job, len(log)) == b""
    assert (await client.get(job.id)).url == job.url
    assert (await client.jobs("sleep"))[0].url == job.url
    assert (await client.jobs(last=1, phases=["completed"]))[0].id == job.id


async def test_a_job_that_fails_says_why(client: Client) -> None:
    job = await client.wait(await client.submit("sleep", {"duration": 0, "fail": True}), TIMEOUT)
    assert job.phase == "ERROR"
    assert "failing, as asked for" in job.error


async def test_a_pending_job_is_held_released_and_aborted(client: Client) -> None:
    job = await client.submit("sleep", {"duration": 3600}, run=False)
    assert job.phase == "PENDING"
    assert (await client.hold(job)).phase == "HELD"
    assert (await client.run(job)).phase in ("QUEUED", "EXECUTING")
    assert (await client.abort(job)).phase == "ABORTED"
    await client.delete(job)
    with pytest.raises(UnknownError, match="No such job"):
        await client.get(job)


async def test_what_is_refused_is_said_in_the_words_of_the_server(client: Client) -> None:
    with pytest.raises(RefusedError, match="duration: 'x' is not a number"):
        await client.submit("sleep", {"duration": "x"})
    with pytest.raises(UnknownError, match="No job list 'nap'; there are"):
        await client.submit("nap")
    for name in ("0" * 32, "", "../..", "a/b"):
        with pytest.raises(UnknownError):
            await client.get(name)


async def test_definitions_say_what_may_be_given(client: Client) -> None:
    (sleep,) = [entry for entry in await client.definitions() if entry["name"] == "sleep"]
    assert [parameter["name"] for parameter in sleep["parameters"]] == ["duration", "text", "fail"]


async def test_jobs_of_a_phase_or_after_a_time(client: Client) -> None:
    failed = await client.wait(await client.submit("sleep", {"duration": 0, "fail": True}), TIMEOUT)
    other = await client.wait(await client.submit("sleep", {"duration": 0}), TIMEOUT)
    assert failed.creation_time is not None
    for definition in ("", "sleep"):
        assert [job.id for job in await client.jobs(definition, phases="error")] == [failed.id]
        assert [job.id for job in await client.jobs(definition, after=failed.creation_time)] == [other.id]
        with pytest.raises(ValueError, match="'NAP' is not one of"):
            await client.jobs(definition, phases=["nap"])
        with pytest.raises(ValueError, match="above 0"):
            await client.jobs(definition, last=0)
        with pytest.raises(ValueError, match=r"after: expected a datetime\.datetime, .* not 'yesterday'"):
            await client.jobs(definition, after="yesterday")  # type: ignore[arg-type]
        (found,) = await client.jobs(definition, search="Failing error", last=5, brief=True)
        assert (found.id, found.error, found.whole) == (failed.id, failed.error, False)
        found = (await client.statistics())["sleep"]
        assert (found.ended, found.completed, found.failed, found.p50) == (2, 1, 1, None)
        (found,) = await client.jobs(definition, search="failing", phases=["ERROR", "PENDING"])
        assert (found.url, found.parameters) == (failed.url, failed.parameters)


async def test_jobs_wait_for_others_and_go_before_others(client: Client, served: Served) -> None:
    first = await client.submit("sleep", {"duration": 3600})
    second = await client.submit("sleep", {"duration": 0}, prerequisites=[first], priority=3)
    found = await served.manager.get(second.id)
    assert (found.prerequisites, found.priority, found.phase) == ((first.id,), 3, "QUEUED")
    await client.abort(first)
    assert (await client.wait(second, TIMEOUT)).phase == "COMPLETED"


async def test_waiting_outlives_a_restart_of_the_server(start: Start) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    told: list[str] = []
    served = await start(http={"port": port})
    async with Client(served.root, away=told.append) as client:
        job = await client.submit("sleep", {"duration": 3600})
        waiting = asyncio.create_task(client.wait(job))
        everything = asyncio.create_task(client.wait_all([job]))
        await until(lambda: served.waits)
        await served.server.close()
        await until(lambda: told)
        await served.manager.abort(job.id)
        config = HttpConfig(port=port, auth=AuthConfig(open=True))
        served.server = await start_server(served.manager, config, logging.getLogger("tests"))
        assert (await asyncio.wait_for(waiting, TIMEOUT)).phase == "ABORTED"
        assert (await asyncio.wait_for(everything, TIMEOUT))[0].phase == "ABORTED"
    assert "" in told


async def test_waiting_ends_when_the_server_is_away_for_too_long(proxy: Proxy) -> None:
    told: list[str] = []
    async with Client(proxy.url, patience=0.0, away=told.append) as client:
        job = await client.submit("sleep", {"duration": 3600})
        waiting = asyncio.create_task(client.wait(job))
        await until(lambda: any("WAIT=" in request for request in proxy.requests))
        proxy.away = True
        proxy.cut_all()
        with pytest.raises(UnreachableError):
            await asyncio.wait_for(waiting, TIMEOUT)
        assert told
        assert told[0]


async def test_waiting_has_an_end(client: Client) -> None:
    job = await client.submit("sleep", {"duration": 3600})
    with pytest.raises(TimeoutError):
        await client.wait(job, 0.2)
    with pytest.raises(TimeoutError):
        await client.wait_all([job], 0.2)


async def test_many_jobs_are_waited_for_with_one_stream(proxy: Proxy) -> None:
    async with Client(proxy.url) as client:
        jobs = [await client.submit("sleep", {"duration": 0.3}) for _ in range(20)]
        ended = await client.wait_all(jobs, TIMEOUT)
    assert {job.phase for job in ended} == {"COMPLETED"}
    assert proxy.streams == 1


async def test_a_server_that_is_not_there(tmp_path: Path) -> None:
    async with Client("http://127.0.0.1:1") as client:
        with pytest.raises(UnreachableError, match="cannot be reached"):
            await client.jobs()
    with pytest.raises(ClientError, match="Expected the address"):
        Client("ftp://user:secret@host")


async def test_no_job_runs_twice_when_answers_are_lost(served: Served, proxy: Proxy) -> None:
    async with Client(proxy.url) as client:
        await client.server()
        proxy.lose_answers = 1
        first = await client.submit("sleep", {"duration": 0})
        # The creation's answer comes, that of RUN does not.
        job = await client.submit("sleep", {"duration": 0}, run=False)
        proxy.lose_answers = 1
        second = await client.run(job)
        await client.wait_all([first, second], TIMEOUT)
        jobs = await client.jobs()
    assert sorted(job.phase for job in jobs) == ["COMPLETED", "COMPLETED", "PENDING"]


async def test_no_change_is_missed_through_cuts(served: Served, proxy: Proxy) -> None:
    ended: set[str] = set()
    async with Client(proxy.url) as client:

        async def read() -> None:
            async for job in client.changes(["sleep"]):
                if job and job.ended:
                    ended.add(job.id)

        reader = asyncio.create_task(read())
        await proxy.opened(1)
        jobs = set()
        for number in range(6):
            jobs.add((await served.create(run=True, duration="0")).rpartition("/")[2])
            proxy.cut_all()
            await proxy.opened(number + 2)
        await until(lambda: ended == jobs)
        reader.cancel()


async def test_changes_go_on_when_the_server_was_away(served: Served, proxy: Proxy) -> None:
    async with Client(proxy.url) as client:
        changes = client.changes()
        assert await anext(changes) is None
        proxy.away = True
        proxy.cut_all()
        before = proxy.counts["GET"]
        await_next = asyncio.ensure_future(anext(changes))
        await until(lambda: proxy.counts["GET"] > before)
        url = await served.create()
        proxy.away = False
        # It looks anew, and the change that it missed comes too.
        assert await asyncio.wait_for(await_next, TIMEOUT) is None
        job = await asyncio.wait_for(anext(changes), TIMEOUT)
        assert job is not None
        assert url.endswith(job.id)
        await changes.aclose()


async def test_the_blocking_client_does_the_same(served: Served, tmp_path: Path) -> None:
    def use() -> None:
        with BlockingClient(served.root) as client:
            changes = client.changes()
            jobs = [client.submit("sleep", {"duration": 0, "text": "x"}) for _ in range(2)]
            assert [job.phase for job in client.wait_all(jobs, TIMEOUT)] == ["COMPLETED", "COMPLETED"]
            assert client.wait(jobs[0]).ended
            assert client.download(client.results(jobs[0])[1], tmp_path).read_text() == "x"
            assert {job.id for job in client.jobs()} == {job.id for job in jobs}
            assert client.definitions()
            later = client.submit("sleep", run=False)
            client.hold(later)
            client.run(later)
            client.abort(later)
            client.delete(later)
            changes.close()
            with pytest.raises(UnknownError):
                client.get(later)

    await asyncio.to_thread(use)


async def test_the_blocking_client_gives_changes(served: Served, proxy: Proxy) -> None:
    def use() -> list[str]:
        with BlockingClient(proxy.url) as client:
            seen = []
            changes = client.changes(["sleep"])
            for job in changes:
                seen.append(job.phase)
                if job.ended:
                    changes.close()
            return seen

    reading = asyncio.create_task(asyncio.to_thread(use))
    await proxy.opened(1)
    await served.create(run=True, duration="0")
    assert (await asyncio.wait_for(reading, TIMEOUT))[-1] == "COMPLETED"


async def test_a_server_at_a_unix_socket(start: Start, tmp_path: Path) -> None:
    path = tmp_path / "s"
    await start(http={"host": "", "socket": str(path)})
    url = f"unix://{path}"
    async with Client(url) as client:
        job = await client.wait(await client.submit("sleep", {"duration": 0, "text": "x"}), TIMEOUT)
        assert (await client.download(job.results[-1], tmp_path / "saved")).read_text() == "x"
        assert job.owner
        with pytest.raises(UnreachableError, match="is at a socket"):
            await client.download(RemoteResult("a", "http://elsewhere.example/a"), tmp_path)
    async with Client(f"unix://{tmp_path}/none") as client:
        with pytest.raises(UnreachableError, match=r"unix://.*/none cannot be reached: No such file"):
            await client.jobs()
    code, out, err = await ocps(tmp_path, "list", "--url", url)
    assert (code, job.id[:12] in out) == (0, True), err


# Another server


async def test_another_server_is_used_by_what_uws_says(other: Uws11, tmp_path: Path) -> None:
    async with Client(other.url, poll_interval=0.05) as client:
        assert not (await client.server()).ours
        job = await client.submit("", {"QUERY": "x"}, run_id="mine")
        assert other.jobs[job.id].form == {"QUERY": "x", "RUNID": "mine"}
        waiting = asyncio.create_task(client.wait(job, TIMEOUT))
        await until(lambda: other.counts["wait"])
        other.change("COMPLETED")
        job = await waiting
        assert (job.phase, job.run_id) == ("COMPLETED", "mine")
        path = await client.download(job.results[0], tmp_path)
        assert path.read_text() == "a table"
        assert (await client.jobs())[0].url == job.url
        assert await client.definitions() == []


async def test_a_server_that_does_not_wait_is_asked_again(other: Uws11) -> None:
    other.waits = False
    async with Client(other.url, poll_interval=0.05) as client:
        job = await client.submit()
        waiting = asyncio.create_task(client.wait(job, TIMEOUT))
        await until(lambda: other.counts["get"] >= 4)
        other.change("ERROR")
        assert (await waiting).error == "it broke"


async def test_changes_of_another_server(other: Uws11) -> None:
    async with Client(other.url, poll_interval=0.02) as client:
        changes = client.changes()
        assert await anext(changes) is None
        job = await client.submit()
        seen = await asyncio.wait_for(anext(changes), TIMEOUT)
        assert seen is not None
        assert seen.id == job.id
        other.change("COMPLETED")
        while not (seen and seen.ended):
            seen = await asyncio.wait_for(anext(changes), TIMEOUT)
        assert seen.results
        await changes.aclose()


# Secrets and documents


async def test_the_token_goes_to_no_other_server(served: Served, other: Uws11, tmp_path: Path) -> None:
    seen: list[dict[str, str]] = []
    original = other._result

    async def result(request: Any) -> Any:
        seen.append(dict(request.headers))
        return await original(request)

    other.change("COMPLETED", other.jobs.setdefault("x", _kept()))
    await other._runner.cleanup()
    other._result = result  # type: ignore[method-assign]
    await other.start()
    async with Client(served.root, token="very-secret") as client:
        await client.download(RemoteResult("a", f"{other.url}/x/results/a"), tmp_path)
        assert "very-secret" not in repr(vars(client))
    assert seen
    assert not any("very-secret" in value for headers in seen for value in headers.values())


def _kept() -> Any:
    from tests.uws11 import Kept

    return Kept("x", {})


@pytest.mark.parametrize("name", ["../x", "/etc/x", "a/../../x", "", "a\\..\\x"])
async def test_no_result_is_saved_outside_its_folder(client: Client, tmp_path: Path, name: str) -> None:
    with pytest.raises(ClientError, match="cannot be saved"):
        await client.download(RemoteResult(name, "http://127.0.0.1:1/"), tmp_path)


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"<html>Log in</html>",
        b'<!DOCTYPE x [<!ENTITY a "b">]><job><jobId>1</jobId></job>',
        b"<job><phase>EXECUTING</phase></job>",
        b"{}",
    ],
)
def test_what_is_no_job_is_said_so(text: bytes) -> None:
    with pytest.raises(DocumentError, match="it answered with"):
        parse_job(text, "http://host/async/1")


def test_lists_are_read_with_and_without_namespaces_and_addresses() -> None:
    plain = b'<jobs><jobref id="a"><phase>queued</phase></jobref></jobs>'
    assert parse_list(plain, "http://host/async?LAST=1") == [
        RemoteJob("a", "http://host/async/a", "QUEUED", definition="async")
    ]


def test_nothing_heavy_is_imported() -> None:
    import subprocess
    import sys

    code = "import lsst.dm.OCPS.client, lsst.dm.OCPS.cli, sys; print(*{m.split('.')[0] for m in sys.modules})"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    heavy = {"pydantic", "sqlalchemy", "yaml", "jsonschema", "cyclonedds", "vo_models"}
    assert not heavy & set(found.split())


async def test_an_answer_comes_when_the_job_ends(served: Served) -> None:
    """And not at the next look of a client that asks now and then."""
    async with Client(served.root, poll_interval=3600) as client:
        job = await client.wait(await client.submit("sleep", {"duration": 0.2}), TIMEOUT)
    assert job.end_time is not None
