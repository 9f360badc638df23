# SPDX-License-Identifier: GPL-3.0-or-later
"""A hostile server behind the uws backend: no document and no event ends the watch, or a job."""

from __future__ import annotations

import asyncio
import json
import logging
import random
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio
from aiohttp import web
from lsst.dm.OCPS.jobs.model import ExecutionPhase

from tests.backends.uws.conftest import Engine, MakeEngine
from tests.backends.uws.standin import StandIn
from tests.loopback import serve
from tests.waiting import TIMEOUT

ROUNDS = 40

NASTY: tuple[Any, ...] = (
    None, True, -1, 10**400, 1e308, [], {}, [[]], [{}], "", "²", "\x1b[2J", "\ud800", "../..", "http://[",
    "0001-01-01T00:00:00+23:59", "x" * 100_000, {"message": {"message": 1}}, [{"id": "²", "uri": "file://["}],
    {"progress": {"done": "²", "failed": None, "total": 1e99}}, {"environment": [{"name": 1}, 2, None]},
)  # fmt: skip


async def test_no_document_ends_the_watch(
    engine: Engine, standin: StandIn, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, logger="ocps.test")
    job = await engine.submit()
    job = await engine.phase(job, "executing")
    good: dict[str, Any] = {
        "jobId": job.handle,
        "runId": job.id,
        "phase": "executing",
        "creationTime": "2026-11-25 00:00:00+00:00",
        "results": [],
        "errorSummary": {"message": ""},
        "parameters": {},
        "jobInfo": {},
    }
    chosen = random.Random(7)
    for _ in range(ROUNDS):
        document = dict(good)
        for name in chosen.sample(sorted(good), chosen.randint(1, 3)):
            document[name] = chosen.choice(NASTY)
        for body in (document, good):
            # Each is asked for; good ones in between keep the pauses short.
            standin.body = json.dumps(body).encode()
            await standin.asked("GET")
    standin.body = b""
    standin.end(job.id)
    assert (await engine.end(job)).phase == ExecutionPhase.COMPLETED
    assert "a task failed" not in caplog.text
    assert "\x1b" not in caplog.text


class FakeOcps:
    """A stand-in for an OCPS whose change stream sends what a test says."""

    def __init__(self) -> None:
        self.run_id = ""
        self.phase = "executing"
        self.lines: asyncio.Queue[bytes] = asyncio.Queue()

    async def start(self) -> FakeOcps:
        app = web.Application()
        app.add_routes(
            [
                web.put("/job", self._put),
                web.get("/job", self._list),
                web.get("/job/{id}", self._get),
                web.get("/events", self._events),
            ]
        )
        self._runner, self.url = await serve(app)
        return self

    async def stop(self) -> None:
        await self._runner.cleanup()

    def document(self, **changes: Any) -> dict[str, Any]:
        found = {"jobId": "x1", "runId": self.run_id, "phase": self.phase, "results": [], "errorSummary": {}}
        return found | {"jobInfo": {"uwsPhase": self.phase.upper()}} | changes

    def _json(self, value: Any) -> web.Response:
        return web.json_response(value, headers={"X-OCPS": "1"})

    async def _put(self, request: web.Request) -> web.Response:
        self.run_id = (await request.json())["run_id"]
        return self._json(self.document())

    async def _list(self, _: web.Request) -> web.Response:
        return self._json([self.document()] if self.run_id else [])

    async def _get(self, _: web.Request) -> web.Response:
        return self._json(self.document())

    async def _events(self, request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream", "X-OCPS": "1"})
        await response.prepare(request)
        await response.write(b": here\n\n")
        while line := await self.lines.get():
            await response.write(line)
        return response


@pytest_asyncio.fixture
async def fake() -> AsyncIterator[FakeOcps]:
    server = await FakeOcps().start()
    yield server
    await server.stop()


async def test_no_event_ends_the_watch(
    fake: FakeOcps, make_engine: MakeEngine, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, logger="ocps.test")
    engine = await make_engine(url=fake.url)
    job = await engine.submit()
    await engine.phase(job, "executing")
    for number, value in enumerate(NASTY):
        for document in (value, fake.document(phase=value), fake.document(jobInfo=value, jobId=value)):
            text = json.dumps(document)
            fake.lines.put_nowait(f"id: {number}\x00\nevent: {value!r:.20}\ndata: {text}\n\n".encode())
            fake.lines.put_nowait(f"event: deleted\ndata: {text}\n\n".encode())
            fake.lines.put_nowait(f"data: {text}\n\n".encode())
    for garbage in (b"\xff\xfe\n\n", b"data: " + b"[" * 100_000 + b"\n\n", b"data: {\n\n", b"\x00\n"):
        fake.lines.put_nowait(garbage)
    # The stream still shows, perhaps opened anew, how the job ends.
    fake.lines.put_nowait(b"")
    fake.phase = "completed"
    async with asyncio.timeout(TIMEOUT):
        assert (await engine.end(job)).phase == ExecutionPhase.COMPLETED
    assert "a task failed" not in caplog.text
    assert "\x1b" not in caplog.text
