# SPDX-License-Identifier: GPL-3.0-or-later
"""A stand-in for uws-api-server: it answers as that does and runs nothing.

Faults come on demand. As a process of its own (benchmarks)::

    python tests/backends/uws/standin.py --duration 5 --delay 5

prints its address as JSON; within a test's process, `StandIn` is told what to
do wrong and can be waited for.
"""

from __future__ import annotations

__all__ = ["Fault", "Kept", "StandIn"]

import argparse
import asyncio
import dataclasses
import json
import random
import socket
import ssl
import time
import uuid
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

from aiohttp import web

PHASES = ("pending", "queued", "executing", "completed", "error", "unknown", "held", "suspended", "aborted")
LIVE = ("pending", "queued", "executing", "unknown")

BEFORE = ("refuse", "500", "401", "hang", "drop", "garbage", "html", "wrong", "redirect")
"""Faults instead of doing what was asked."""

AFTER = ("500 after", "hang after", "drop after", "garbage after")
"""Faults after doing it: only the answer is lost."""


@dataclasses.dataclass
class Fault:
    """One thing to do wrong.

    Parameters
    ----------
    kind : `str`
        One of `BEFORE` and `AFTER`.
    method : `str`
        For which requests; empty for all.
    times : `int`
        How many times; -1 for ever.
    path : `str`
        Only where the path ends so.
    """

    kind: str
    method: str = ""
    times: int = 1
    path: str = ""

    def applies(self, request: web.Request) -> bool:
        """Return whether it is the turn of this fault, and count it."""
        fits = (not self.method or request.method == self.method) and request.path.endswith(self.path)
        if not fits or not self.times:
            return False
        self.times -= 1
        return True


@dataclasses.dataclass
class Kept:
    """A job as the stand-in has it; it moves on by the clock, or when told."""

    id: str
    run_id: str
    body: dict[str, Any]
    created: float
    phase: str = ""
    message: str = ""
    files: list[str] = dataclasses.field(default_factory=list)
    info: dict[str, Any] = dataclasses.field(default_factory=dict)
    ended: float = 0.0
    extra: float = 0.0


class StandIn:
    """A server that forgets nothing when it is stopped and started again.

    Parameters
    ----------
    queued, duration : `float`
        How long (s) a job is queued and executes; a duration of 0 means
        until it is told to end.
    spread : `float`
        By how much more (s), at random, a job may take.
    delay : `float`
        How long (s) each answer takes.
    token : `str`
        What is expected as bearer token, if anything.
    tls : `ssl.SSLContext` or `None`
        To serve https.
    """

    def __init__(
        self,
        queued: float = 0.0,
        duration: float = 0.0,
        spread: float = 0.0,
        delay: float = 0.0,
        token: str = "",
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self.queued = queued
        self.duration = duration
        self.spread = spread
        self.delay = delay
        self.token = token
        self.tls = tls
        self.body = b""
        """What to answer to GET instead of what is true, if anything."""
        self.jobs: dict[str, Kept] = {}
        self.faults: list[Fault] = []
        self.requests: list[str] = []
        self.counts: Counter[str] = Counter()
        self.at_once: Counter[str] = Counter()
        self.most_at_once: Counter[str] = Counter()
        self.port = 0
        self._runner: web.AppRunner | None = None
        self._news = asyncio.Event()
        self._stopping = asyncio.Event()

    # For tests

    async def start(self) -> StandIn:
        """Listen; after the first time at the same port."""
        self._stopping.clear()
        app = web.Application(middlewares=[self._count])
        app.router.add_put("/api/v1/job", self._put)
        app.router.add_get("/api/v1/job", self._list)
        app.router.add_get("/api/v1/job/{id}", self._get)
        app.router.add_delete("/api/v1/job/{id}", self._delete)
        app.router.add_get("/standin", self._state)
        self._runner = web.AppRunner(app, shutdown_timeout=0.1)
        await self._runner.setup()
        # A port in use again at once after a stop, as a service's is.
        listener = socket.create_server(("127.0.0.1", self.port), backlog=512)
        self.port = listener.getsockname()[1]
        await web.SockSite(self._runner, listener, ssl_context=self.tls).start()
        return self

    async def stop(self) -> None:
        """Refuse connections, until started again."""
        self._stopping.set()
        if self._runner:
            await self._runner.cleanup()
            self._runner = None

    @property
    def url(self) -> str:
        """The base address."""
        return f"{'https' if self.tls else 'http'}://127.0.0.1:{self.port}/api/v1"

    def of(self, run_id: str) -> list[Kept]:
        """Return the jobs with a run id."""
        return [job for job in self.jobs.values() if job.run_id == run_id]

    def end(self, run_id: str, phase: str = "completed", **changes: Any) -> None:
        """Let a job end."""
        for job in self.of(run_id):
            job.phase, job.ended = phase, time.time()
            for name, value in changes.items():
                setattr(job, name, value)

    async def until(self, true: Callable[[], Any], timeout: float = 120.0) -> Any:
        """Wait until something is true, looking after every request; return it."""
        async with asyncio.timeout(timeout):
            while not (value := true()):
                self._news.clear()
                await self._news.wait()
        return value

    async def asked(self, method: str, more: int = 1) -> None:
        """Wait until so many more requests of a method have come."""
        goal = self.counts[method] + more
        await self.until(lambda: self.counts[method] >= goal)

    # What it does

    @web.middleware
    async def _count(self, request: web.Request, handler: Any) -> web.StreamResponse:
        if request.path == "/standin":
            return await handler(request)
        method = request.method
        self.counts[method] += 1
        self.at_once[method] += 1
        self.most_at_once[method] = max(self.most_at_once[method], self.at_once[method])
        self.requests.append(f"{method} {request.path_qs}")
        self._news.set()
        try:
            return await self._misbehave(request, handler)
        finally:
            self.at_once[method] -= 1

    async def _misbehave(self, request: web.Request, handler: Any) -> web.StreamResponse:
        if self.token and request.headers.get("Authorization") != f"Bearer {self.token}":
            return web.Response(status=401, text="Authorization required")
        fault = next((fault for fault in self.faults if fault.applies(request)), None)
        if self.delay:
            await asyncio.sleep(self.delay)
        if self.body and request.method == "GET":
            return web.Response(body=self.body, content_type="application/json")
        if fault is None:
            response = await handler(request)
            self._news.set()
            return response
        if fault.kind in AFTER:
            await handler(request)
            self._news.set()
        return await self._fault(request, fault.kind.removesuffix(" after"))

    async def _fault(self, request: web.Request, kind: str) -> web.StreamResponse:
        if kind == "hang":
            await self._stopping.wait()
        if kind in ("hang", "drop"):
            assert request.transport is not None
            request.transport.abort()
            return web.Response()
        if kind == "garbage":
            return web.Response(text="{ this is not", content_type="application/json")
        if kind == "wrong":
            return web.json_response({"jobId": 5, "phase": ["executing"]})
        if kind == "html":
            return web.Response(text="<html>Log in</html>", content_type="text/html")
        if kind == "redirect":
            return web.Response(status=302, headers={"Location": "https://login.example/?from=here"})
        return web.Response(status=int(kind), text="the server is not well")

    async def _put(self, request: web.Request) -> web.Response:
        if request.headers.get("Content-Type") != "application/json":
            return web.Response(status=400, text="command")
        body = await request.json()
        if "command" not in body:
            return web.Response(status=400, text="'command'")
        job = Kept(uuid.uuid4().hex, body.get("run_id") or "", body, time.time())
        job.extra = random.uniform(0, self.spread)
        self.jobs[job.id] = job
        return web.json_response(self._document(job))

    async def _list(self, request: web.Request) -> web.Response:
        phase = request.query.get("phase", "")
        if phase and phase not in PHASES:
            return web.Response(status=400, text=f"Valid job categories are: {list(PHASES)}")
        documents = [self._document(job) for job in self.jobs.values()]
        return web.json_response([one for one in documents if not phase or one["phase"] == phase])

    async def _get(self, request: web.Request) -> web.Response:
        job = self.jobs.get(request.match_info["id"])
        if job is None:
            return web.json_response("", status=404)
        return web.json_response(self._document(job))

    async def _delete(self, request: web.Request) -> web.Response:
        if self.jobs.pop(request.match_info["id"], None) is None:
            return web.Response(status=404, text="(404) not found")
        return web.json_response({"status": "ok", "message": "", "code": 200})

    async def _state(self, request: web.Request) -> web.Response:
        ended = {job.run_id: self._end_time(job) for job in self.jobs.values()}
        return web.json_response({"requests": dict(self.counts), "ended": ended})

    def _end_time(self, job: Kept) -> float:
        if job.ended or not self.duration:
            return job.ended
        due = job.created + self.queued + self.duration + job.extra
        return due if due <= time.time() else 0.0

    def _phase(self, job: Kept) -> str:
        if job.phase:
            return job.phase
        if self._end_time(job):
            return "completed"
        return "executing" if time.time() >= job.created + self.queued else "queued"

    def _document(self, job: Kept) -> dict[str, Any]:
        phase, ended = self._phase(job), self._end_time(job)
        started = job.created + self.queued
        files = job.files or ([f"/uws/jobs/{job.id}/out/ocps.log"] if ended else [])
        return {
            "jobId": job.id,
            "runId": job.run_id or job.id,
            "ownerId": "",
            "phase": phase,
            "creationTime": _text(job.created),
            "startTime": _text(started) if phase not in ("pending", "queued") else None,
            "endTime": _text(ended) if ended else None,
            "executionDuration": ended - started if ended else None,
            "destruction": None,
            "parameters": {
                "command": ["/bin/bash", "-c", job.body["command"]],
                "environment": [{"name": "JOB_ID", "value": job.id}, *job.body.get("environment", ())],
            },
            "results": [{"id": number, "uri": path} for number, path in enumerate(files)],
            "errorSummary": {"message": job.message},
            "jobInfo": job.info,
        }


def _text(when: float) -> str:
    return str(datetime.fromtimestamp(int(when), UTC))


async def _main() -> None:
    parser = argparse.ArgumentParser(description="stand-in for uws-api-server")
    for name in ("queued", "duration", "spread", "delay"):
        parser.add_argument(f"--{name}", type=float, default=0.0)
    standin = await StandIn(**vars(parser.parse_args())).start()
    print(json.dumps({"url": standin.url}), flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    with suppress(KeyboardInterrupt):
        asyncio.run(_main())
