# SPDX-License-Identifier: GPL-3.0-or-later
"""A stand-in for somebody else's UWS 1.1 server: XML, one job list, jobs end when they are told to."""

from __future__ import annotations

__all__ = ["Uws11", "other"]

import asyncio
import uuid
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from datetime import UTC, datetime

import pytest_asyncio
from aiohttp import web

from tests.loopback import serve

_NAMES = 'xmlns="http://www.ivoa.net/xml/UWS/v1.0" xmlns:xlink="http://www.w3.org/1999/xlink" version="1.1"'


@dataclass
class Kept:
    """A job of the stand-in."""

    id: str
    form: dict[str, str]
    phase: str = "PENDING"
    ended: str = ""
    changed: asyncio.Event = field(default_factory=asyncio.Event)


class Uws11:
    """The stand-in; without ``waits`` it is one that does not know WAIT."""

    def __init__(self, waits: bool = True) -> None:
        self.waits = waits
        self.jobs: dict[str, Kept] = {}
        self.counts: Counter[str] = Counter()

    async def start(self) -> Uws11:
        """Listen at a free port."""
        app = web.Application()
        app.add_routes(
            [
                web.get("/async", self._list),
                web.post("/async", self._create),
                web.get("/async/{id}", self._get),
                web.delete("/async/{id}", self._delete),
                web.post("/async/{id}/phase", self._set_phase),
                web.get("/async/{id}/results/{name}", self._result),
            ]
        )
        self._runner, root = await serve(app)
        self.url = f"{root}/async"
        return self

    async def stop(self) -> None:
        """Listen no more."""
        await self._runner.cleanup()

    def change(self, phase: str, *jobs: Kept) -> None:
        """Let jobs, by default all, be in a phase."""
        for job in jobs or tuple(self.jobs.values()):
            job.phase = phase
            if phase in ("COMPLETED", "ERROR", "ABORTED"):
                job.ended = datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
            job.changed.set()
            job.changed = asyncio.Event()

    def _job(self, request: web.Request) -> Kept:
        job = self.jobs.get(request.match_info["id"])
        if job is None:
            raise web.HTTPNotFound(text="no such job")
        return job

    async def _create(self, request: web.Request) -> web.Response:
        form = {name: str(value) for name, value in (await request.post()).items()}
        job = self.jobs.setdefault(name := uuid.uuid4().hex[:8], Kept(name, form))
        if form.get("PHASE") == "RUN":
            job.phase = "EXECUTING"
        # Relative, as the standard allows.
        return web.Response(status=303, headers={"Location": f"/async/{job.id}"})

    async def _set_phase(self, request: web.Request) -> web.Response:
        job, asked = self._job(request), (await request.post())["PHASE"]
        self.change({"RUN": "EXECUTING", "ABORT": "ABORTED"}[str(asked)], job)
        return web.Response(status=303, headers={"Location": f"/async/{job.id}"})

    async def _delete(self, request: web.Request) -> web.Response:
        del self.jobs[self._job(request).id]
        return web.Response(status=303, headers={"Location": "/async"})

    async def _list(self, request: web.Request) -> web.Response:
        self.counts["list"] += 1
        wanted = request.query.getall("PHASE", [])
        entries = [
            f'<jobref id="{job.id}" xlink:href="{request.url.origin()}/async/{job.id}">'
            f"<phase>{job.phase}</phase></jobref>"
            for job in self.jobs.values()
            if not wanted or job.phase in wanted
        ]
        return _xml(f"<jobs {_NAMES}>{''.join(entries)}</jobs>")

    async def _get(self, request: web.Request) -> web.Response:
        job = self._job(request)
        self.counts["get"] += 1
        if self.waits and "WAIT" in request.query and job.phase == request.query.get("PHASE", job.phase):
            self.counts["wait"] += 1
            try:
                await asyncio.wait_for(job.changed.wait(), float(request.query["WAIT"]))
            except TimeoutError:
                pass
        end = f"<endTime>{job.ended}</endTime>" if job.ended else ""
        result = '<result id="table" xlink:href="results/table" mime-type="text/plain"/>' if job.ended else ""
        error = "<errorSummary><message>it broke</message></errorSummary>" if job.phase == "ERROR" else ""
        return _xml(
            f"<job {_NAMES}><jobId>{job.id}</jobId><runId>{job.form.get('RUNID', '')}</runId>"
            f"<phase>{job.phase}</phase>{end}<results>{result}</results>{error}</job>"
        )

    async def _result(self, request: web.Request) -> web.Response:
        self._job(request)
        return web.Response(text="a table")


def _xml(text: str) -> web.Response:
    return web.Response(text=text, content_type="application/xml")


@pytest_asyncio.fixture
async def other() -> AsyncIterator[Uws11]:
    """A stand-in for another UWS server."""
    server = await Uws11().start()
    yield server
    await server.stop()
