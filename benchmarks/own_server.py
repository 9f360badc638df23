# SPDX-License-Identifier: GPL-3.0-or-later
"""An OCPS whose jobs only last, behind a proxy: what ``in_flight --dialect ours`` forwards to.

HTTP, engine and store are those of OCPS. Prints its address as JSON;
``/standin`` beside it says what was asked, and when jobs ended.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import random
import tempfile
from collections.abc import Collection
from contextlib import suppress
from pathlib import Path

from aiohttp import web
from lsst.dm.OCPS.config import HttpConfig
from lsst.dm.OCPS.definitions.pipetask import PIPETASK
from lsst.dm.OCPS.http.server import start_server
from lsst.dm.OCPS.jobs.backend import Backend, BackendUpdate
from lsst.dm.OCPS.jobs.definition import JobDefinition
from lsst.dm.OCPS.jobs.limits import Limits
from lsst.dm.OCPS.jobs.manager import JobManager
from lsst.dm.OCPS.jobs.model import ExecutionPhase, Job, JobRequest
from lsst.dm.OCPS.jobs.parts import Parts
from lsst.dm.OCPS.jobs.spec import Spec
from lsst.dm.OCPS.jobs.store import JobQuery, JobStore
from lsst.dm.OCPS.jobs.workspace import Workspaces

from tests.proxy import Proxy


class AnyPipeline(JobDefinition):
    """Accepts whatever is asked for."""

    async def resolve(self, request: JobRequest, job_id: str) -> Spec:
        """Return nothing in particular."""
        return Spec(kind="pause")


class Pause(Backend):
    """Lets each job last a while.

    Parameters
    ----------
    duration, spread : `float`
        How long (s) a job lasts, and by how much more, at random, it may.
    """

    kinds = frozenset({"pause"})

    def __init__(self, duration: float, spread: float) -> None:
        self._duration = duration
        self._spread = spread

    async def open(self) -> None:
        """Do nothing."""

    async def close(self) -> None:
        """Do nothing."""

    async def check(self) -> None:
        """Do nothing."""

    async def submit(self, job: Job) -> None:
        """Start a job."""
        loop = asyncio.get_running_loop()
        loop.call_later(0.2, self.report, job.id, BackendUpdate(phase=ExecutionPhase.EXECUTING))
        end = BackendUpdate(phase=ExecutionPhase.COMPLETED, exit_code=0, results=())
        loop.call_later(self._duration + random.uniform(0, self._spread), self.report, job.id, end)

    async def cancel(self, job: Job) -> None:
        """Stop a job."""
        self.report(job.id, BackendUpdate(phase=ExecutionPhase.ABORTED))

    async def reattach(self, jobs: Collection[Job]) -> None:
        """Start jobs anew."""
        for job in jobs:
            await self.submit(job)


async def serve(options: argparse.Namespace, folder: Path) -> None:
    """Serve until stopped."""
    log = logging.getLogger("own server")
    workspaces = Workspaces(folder)
    workspaces.open()
    store = await JobStore.open(f"sqlite+aiosqlite:///{folder / 'jobs.sqlite3'}")
    manager = JobManager(store, workspaces, log)
    await manager.open()
    limits = Limits(max_workers=100_000, max_queued=100_000)
    backend = Pause(options.duration, options.spread)
    await manager.use("pause", Parts("pause", backend, {PIPETASK: AnyPipeline(PIPETASK)}, limits))
    server = await start_server(manager, HttpConfig(port=0), log)
    proxy = Proxy(f"http://127.0.0.1:{server.port}", delay=options.delay, cut=options.cut)

    async def state(_: web.Request) -> web.Response:
        jobs = await store.find(JobQuery())
        ended = {job.run_id: job.end_time.timestamp() if job.end_time else 0.0 for job in jobs}
        return web.json_response({"requests": dict(proxy.counts), "ended": ended, "streams": proxy.streams})

    proxy.routes.append(web.get("/standin", state))
    await proxy.start()
    print(json.dumps({"url": f"{proxy.url}/api/v1"}), flush=True)
    try:
        await asyncio.Event().wait()
    finally:
        await proxy.stop()


def main() -> None:
    """Run as the command line says."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    for name in ("duration", "spread", "delay", "cut"):
        parser.add_argument(f"--{name}", type=float, default=0.0)
    with tempfile.TemporaryDirectory(prefix="ocps-own-server-") as folder, suppress(KeyboardInterrupt):
        asyncio.run(serve(parser.parse_args(), Path(folder)))


if __name__ == "__main__":
    main()
