# SPDX-License-Identifier: GPL-3.0-or-later
"""The change stream, as any reader of server-sent events sees it."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from lsst.dm.OCPS.client.sse import ServerEvent, read_events
from lsst.dm.OCPS.http import events
from lsst.dm.OCPS.http.secrets_file import hash_token

from tests.http.conftest import Served, Start
from tests.waiting import TIMEOUT


class Reader:
    """Reads a stream."""

    def __init__(self, response: aiohttp.ClientResponse) -> None:
        self.response = response
        self._events = read_events(response.content.iter_any())

    async def next(self) -> ServerEvent:
        return await asyncio.wait_for(anext(self._events), TIMEOUT)

    async def job(self) -> tuple[str, dict[str, Any]]:
        """Return id and document of the next job."""
        while not (event := await self.next()).data:
            pass
        return event.id, json.loads(event.data)

    async def until(self, job_id: str, phase: str) -> str:
        while True:
            number, job = await self.job()
            if job["jobId"] == job_id and job["phase"] == phase:
                return number


@asynccontextmanager
async def reading(served: Served, query: str = "", **headers: str) -> AsyncIterator[Reader]:
    """Open a stream; what changes from here on is shown."""
    async with served.client.get(f"{served.root}/api/v1/events{query}", headers=headers) as response:
        assert response.status == 200, await response.text()
        assert response.content_type == "text/event-stream"
        reader = Reader(response)
        assert not (await reader.next()).data
        yield reader


def id_of(url: str) -> str:
    return url.rpartition("/")[2]


async def test_each_change_is_an_event_with_a_growing_id(served: Served) -> None:
    async with reading(served) as reader:
        job_id = id_of(await served.create(run=True, duration="0", text="x"))
        seen = []
        while not seen or seen[-1][1] != "completed":
            number, job = await reader.job()
            assert job["jobId"] == job_id
            seen.append((int(number), job["phase"]))
    assert [number for number, _ in seen] == sorted({number for number, _ in seen})
    assert job["jobInfo"]["definition"] == "sleep"
    assert job["jobInfo"]["uwsPhase"] == "COMPLETED"
    assert [result["uri"].rpartition("/")[2] for result in job["results"]] == ["ocps.log", "result.txt"]


async def test_a_reader_that_was_cut_off_gets_what_it_missed(served: Served) -> None:
    async with reading(served) as reader:
        first = id_of(await served.create(run=True, duration="0"))
        last = await reader.until(first, "completed")
    urls = [await served.create(run=True, duration="0") for _ in range(3)]
    for url in urls:
        await served.ended(url)
    async with reading(served, **{"Last-Event-ID": last}) as reader:
        seen = {(await reader.job())[1]["jobId"] for _ in urls}
    assert seen == {id_of(url) for url in urls}


async def test_only_the_lists_that_are_wanted(served: Served) -> None:
    status, body, _ = await served.ask("GET", "/api/v1/events?list=nonsense")
    assert (status, "there are" in body) == (404, True)
    async with reading(served, "?list=sleep") as reader:
        await served.create("echo") if "echo" in served.manager.lane.definitions else None
        job_id = id_of(await served.create())
        assert (await reader.job())[1]["jobId"] == job_id


async def test_only_ones_own_jobs(start: Start, tmp_path: Path) -> None:
    secrets = tmp_path / "secrets.yaml"
    lines = [f"  {name}: {{token: {hash_token(name * 20)}}}" for name in ("alice", "bob", "olga")]
    secrets.write_text("users:\n" + "\n".join(lines) + "\n")
    secrets.chmod(0o600)
    auth = {"method": "secrets", "file": str(secrets), "operators": ["olga"]}
    served = await start(http={"auth": auth})
    tokens = {name: {"Authorization": f"Bearer {name * 20}"} for name in ("alice", "bob", "olga")}
    status, *_ = await served.ask("GET", "/api/v1/events")
    assert status == 401
    async with reading(served, **tokens["bob"]) as bob, reading(served, **tokens["olga"]) as olga:
        for name in ("alice", "bob"):
            await served.ask("POST", served.url(), headers=tokens[name], data={"duration": "0"})
        assert (await bob.job())[1]["ownerId"] == "bob"
        assert [(await olga.job())[1]["ownerId"] for _ in range(2)] == ["alice", "bob"]


@pytest.mark.parametrize("text", ["-1", "x", "1.5", "9" * 30, "١"])
async def test_an_id_that_is_none_is_refused(served: Served, text: str) -> None:
    status, body, _ = await served.ask("GET", f"/api/v1/events?last_event_id={text}")
    assert (status, "Last-Event-ID" in body) == (400, True)


async def test_a_reader_hears_that_the_server_is_there(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(events, "HEARTBEAT", 0.05)
    async with reading(served) as reader:
        for _ in range(3):
            assert not (await reader.next()).data


async def test_a_removed_job_is_shown_as_deleted(served: Served) -> None:
    url = await served.create()
    async with reading(served) as reader:
        await served.ask("DELETE", url)
        while (event := await reader.next()).type != "deleted":
            pass
    assert json.loads(event.data) == {"jobId": id_of(url)}


async def test_the_end_of_the_server_ends_streams_at_once(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Not when a stream writes the next time anyway.
    monkeypatch.setattr(events, "HEARTBEAT", 3600)
    async with reading(served) as reader:
        async with asyncio.timeout(TIMEOUT):
            await served.server.close()
            with pytest.raises((StopAsyncIteration, aiohttp.ClientError)):
                while True:
                    await reader.next()


async def test_two_hundred_readers_all_see_the_end(served: Served) -> None:
    async def read(ready: asyncio.Semaphore) -> None:
        async with reading(served) as reader:
            ready.release()
            await reader.until(await created, "completed")

    created: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    ready = asyncio.Semaphore(0)
    readers = [asyncio.create_task(read(ready)) for _ in range(200)]
    async with asyncio.timeout(TIMEOUT):
        for _ in readers:
            await ready.acquire()
        created.set_result(id_of(await served.create(run=True, duration="0")))
        await asyncio.gather(*readers)


async def test_a_reader_that_takes_nothing_costs_one_record_a_job(served: Served) -> None:
    url = await served.create(run=True, duration="3600")
    await served.executing(url)
    job_id = id_of(url)
    with socket.socket() as slow:
        slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        slow.setblocking(False)
        loop = asyncio.get_running_loop()
        await loop.sock_connect(slow, ("127.0.0.1", served.server.port))
        await loop.sock_sendall(slow, b"GET /api/v1/events HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
        text = await loop.sock_recv(slow, 1000)
        # More than the buffers in between hold.
        changes = 200
        for number in range(changes):
            await served.manager.record_progress(job_id, None, f"{number} " + "x" * 100_000)
        await served.manager.record_progress(job_id, None, "the last")
        async with asyncio.timeout(TIMEOUT):
            while b'"message":"the last"' not in text:
                text += await loop.sock_recv(slow, 1 << 20)
        assert text.count(b"\nevent: ") == 0
        assert text.count(b'"jobId"') < changes


async def test_parts_of_events_are_put_together() -> None:
    async def parts() -> AsyncIterator[bytes]:
        for part in (
            b": hello\r\n",
            b"id: 7\n",
            b"data: a\nda",
            b"ta:b\n",
            b"\n",
            b"event: x\ndata: c\n\ndata: cut",
        ):
            yield part

    found = [event async for event in read_events(parts())]
    assert found == [ServerEvent("7", "message", "a\nb"), ServerEvent("7", "x", "c")]
