# SPDX-License-Identifier: GPL-3.0-or-later
"""Servers over real sockets, with an engine and the local pool behind them."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import pytest_asyncio
from lsst.dm.OCPS.config import InstanceConfig
from lsst.dm.OCPS.factory import make_manager
from lsst.dm.OCPS.http.server import HttpServer, start_server
from lsst.dm.OCPS.jobs.manager import JobManager

from tests.waiting import TIMEOUT, until_job

DATA = Path(__file__).parent / "data"


@dataclass
class Served:
    """A server with its engine."""

    manager: JobManager
    server: HttpServer
    client: aiohttp.ClientSession
    waits: int = 0
    """How many requests wait for the phase of a job to change."""

    @property
    def root(self) -> str:
        return f"http://127.0.0.1:{self.server.port}"

    def url(self, name: str = "sleep") -> str:
        return f"{self.root}/uws/{name}"

    async def ask(self, method: str, url: str, **options: Any) -> tuple[int, str, aiohttp.ClientResponse]:
        """Send a request, follow nothing; return status, body and answer."""
        url = url if url.startswith("http") else self.root + url
        options.setdefault("allow_redirects", False)
        async with self.client.request(method, url, **options) as answer:
            return answer.status, await answer.text(errors="replace"), answer

    async def create(self, name: str = "sleep", run: bool = False, **parameters: str) -> str:
        """Make a job; return its address."""
        form = parameters | ({"PHASE": "RUN"} if run else {})
        status, body, answer = await self.ask("POST", self.url(name), data=form)
        assert status == 303, body
        return answer.headers["Location"]

    async def ended(self, url: str) -> str:
        """Wait until a job has ended; return its phase."""
        job = await self.manager.wait(url.rpartition("/")[2], TIMEOUT)
        return str(job.phase)

    async def executing(self, url: str) -> None:
        """Wait until a job runs."""
        await until_job(self.manager, url.rpartition("/")[2], lambda job: job.phase != "QUEUED")


def count_waits(served: Served) -> None:
    """Count in ``waits`` who is waiting for a job."""
    wait = served.manager.wait

    async def counted(*arguments: Any, **options: Any) -> Any:
        served.waits += 1
        try:
            return await wait(*arguments, **options)
        finally:
            served.waits -= 1

    served.manager.wait = counted  # type: ignore[method-assign]


Start = Callable[..., Awaitable[Served]]


@contextlib.asynccontextmanager
async def serving(folder: Path) -> AsyncIterator[Start]:
    """Start servers that work in a directory; at the end, stop them and abort their jobs."""
    opened: list[Served] = []

    async def make(http: dict[str, Any] | None = None, **options: Any) -> Served:
        log = logging.getLogger("tests.http")
        document = {
            "sal_index": 1,
            "butler": "nowhere",
            "work_dir": str(folder / "work"),
            "definitions": ["sleep", str(DATA / "definitions.yaml")],
            "environments": [{"name": "default", "preload": False}],
            "max_workers": 4,
            "http": {"port": 0, **(http or {}), "auth": {"open": True, **(http or {}).get("auth", {})}},
            **options,
        }
        config = InstanceConfig.model_validate(document)
        manager = await make_manager(config, log)
        assert config.http
        try:
            server = await start_server(manager, config.http, log)
        except BaseException:
            await manager.close()
            raise
        # Each request a connection of its own would hide what happens on one that stays open.
        client = aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0))
        served = Served(manager, server, client)
        opened.append(served)
        count_waits(served)
        return served

    try:
        yield make
    finally:
        for served in reversed(opened):
            await served.client.close()
            await served.server.close()
            live = [job.id for job in served.manager.live()]
            await asyncio.gather(*(served.manager.abort(job_id) for job_id in live), return_exceptions=True)
            await served.manager.close()


@pytest_asyncio.fixture
async def start(tmp_path: Path) -> AsyncIterator[Start]:
    """Starts servers: ``await start(max_workers=1, http={"max_body": 2048})``."""
    async with serving(tmp_path) as make:
        yield make


@pytest_asyncio.fixture
async def served(start: Start) -> Served:
    """A server as it is by default."""
    return await start()
