# SPDX-License-Identifier: GPL-3.0-or-later
"""The UWS server beside a bare aiohttp handler, both on this machine in one run.

Each server is a process; this process asks over 16 connections that stay
open. Jobs end as soon as they start, so that the engine and its store (on
disk) are measured, not the jobs.

``polls_per_s`` and ``poll_ratio`` are of ``GET …/phase``, in turns with the
bare handler; ``document_ratio`` is of the whole job document. A job is
created by a POST that leaves it PENDING; ``run_per_s`` is with PHASE=RUN.
``json_list_10000_s`` is for 10,000 short entries of the JSON list, page after
page, compressed; ``json_page_gz_kb`` is the largest page of whole documents.
``rss_kb_per_job`` is what 10,000 jobs that have ended add to the process.
"""

from __future__ import annotations

import argparse
import asyncio
import gzip
import logging
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import psutil
from aiohttp import web
from lsst.dm.OCPS.config import HttpConfig
from lsst.dm.OCPS.http.server import start_server
from lsst.dm.OCPS.jobs.backend import Backend, BackendUpdate
from lsst.dm.OCPS.jobs.definition import JobDefinition
from lsst.dm.OCPS.jobs.limits import Limits
from lsst.dm.OCPS.jobs.manager import JobManager
from lsst.dm.OCPS.jobs.model import ExecutionPhase, Job, JobRequest
from lsst.dm.OCPS.jobs.parameters import Parameter
from lsst.dm.OCPS.jobs.parts import Parts
from lsst.dm.OCPS.jobs.spec import Spec
from lsst.dm.OCPS.jobs.store import JobStore
from lsst.dm.OCPS.jobs.workspace import Workspaces

from .common import parser, report

CONNECTIONS = 16
JOBS = 10_000
CREATED = 2_000
ROUNDS = 5
ROUND_TIME = 1.0


# The servers


class InstantSpec(Spec):
    """A spec of the size of an ordinary one."""

    kind: Literal["instant"] = "instant"
    pipeline: str
    options: tuple[str, ...]


class Instant(Backend):
    """Ends each job as soon as it is started."""

    kinds = frozenset({"instant"})

    async def open(self) -> None:
        pass

    async def close(self) -> None:
        pass

    async def check(self) -> None:
        pass

    async def submit(self, job: Job) -> None:
        self.report(job.id, BackendUpdate(phase=ExecutionPhase.COMPLETED, exit_code=0))

    async def cancel(self, job: Job) -> None:
        self.report(job.id, BackendUpdate(phase=ExecutionPhase.ABORTED))

    async def reattach(self, jobs: Collection[Job]) -> None:
        pass


class InstantDefinition(JobDefinition):
    """A job with the parameters of an ordinary one."""

    async def resolve(self, request: JobRequest, job_id: str) -> InstantSpec:
        return InstantSpec(pipeline="$X_DIR/pipelines/a.yaml", options=("-c", "a:b=1"))


async def serve_ours(work_dir: Path) -> None:
    """Serve the engine, its store on disk, until killed."""
    workspaces = Workspaces(work_dir)
    workspaces.open()
    store = await JobStore.open(f"sqlite+aiosqlite:///{work_dir}/jobs.sqlite3")
    log = logging.getLogger("benchmark")
    manager = JobManager(store, workspaces, log)
    await manager.open()
    definition = InstantDefinition("instant", [Parameter("data_query"), Parameter("config", default="")])
    limits = Limits(max_workers=100, max_queued=JOBS)
    await manager.use("instant", Parts("instant", Instant(), {"instant": definition}, limits))
    server = await start_server(manager, HttpConfig(port=0), log)
    print(server.port, flush=True)
    await asyncio.Event().wait()


async def serve_bare() -> None:
    """Serve a handler that does nothing, until killed."""

    async def phase(request: web.Request) -> web.Response:
        return web.Response(text="PENDING")

    app = web.Application()
    app.router.add_get("/uws/{list}/{job_id}/phase", phase)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    print(runner.addresses[0][1], flush=True)
    await asyncio.Event().wait()


@contextmanager
def server(kind: str, work_dir: Path) -> Iterator[tuple[int, int]]:
    """Run a server; give its port and process id."""
    command = [
        sys.executable,
        "-m",
        "benchmarks.uws_throughput",
        "--serve",
        kind,
        "--work-dir",
        str(work_dir),
    ]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout
        yield int(process.stdout.readline()), process.pid
    finally:
        process.kill()
        process.wait()


# The client


class Connection:
    """One connection; as little work as can be, as it shares the machine with the server."""

    async def open(self, port: int) -> None:
        """Connect."""
        self.reader, self.writer = await asyncio.open_connection("127.0.0.1", port)

    async def ask(
        self, method: str, path: str, body: bytes = b"", *, encoding: bytes = b"identity"
    ) -> tuple[int, bytes, bytes]:
        """Send a request; return status, head and body of the answer."""
        kind = b"Content-Type: application/x-www-form-urlencoded\r\n" if body else b""
        head = f"{method} {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n".encode()
        head += b"Accept-Encoding: " + encoding + b"\r\n"
        self.writer.write(head + kind + b"\r\n" + body)
        answer = await self.reader.readuntil(b"\r\n\r\n")
        lower = answer.lower()
        if b"chunked" in lower:
            content = b""
            while size := int(await self.reader.readline(), 16):
                content += (await self.reader.readexactly(size + 2))[:-2]
            await self.reader.readline()
        else:
            start = lower.index(b"content-length:") + 15
            content = await self.reader.readexactly(int(lower[start : lower.index(b"\r", start)]))
        return int(answer[9:12]), answer, content

    def close(self) -> None:
        """Disconnect."""
        self.writer.close()


async def connect(port: int) -> list[Connection]:
    """Open all connections to a server."""
    connections = [Connection() for _ in range(CONNECTIONS)]
    for connection in connections:
        await connection.open(port)
    return connections


async def create(connections: list[Connection], count: int, body: bytes) -> tuple[float, list[str]]:
    """Create jobs; return how many a second, and their paths."""
    paths: list[str] = []
    left = iter(range(count))

    async def work(connection: Connection) -> None:
        for number in left:
            query = f"data_query=exposure%3D{number}&".encode()
            status, head, _ = await connection.ask("POST", "/uws/instant", query + body)
            assert status == 303, head
            location = next(line for line in head.split(b"\r\n") if line.startswith(b"Location:"))
            paths.append("/uws" + location.decode().partition("/uws")[2])

    start = time.perf_counter()
    await asyncio.gather(*map(work, connections))
    return count / (time.perf_counter() - start), paths


async def poll(connections: list[Connection], paths: list[str]) -> float:
    """Poll for a while; return how many times a second."""
    end = time.perf_counter() + ROUND_TIME
    count = 0

    async def work(connection: Connection, path: str) -> None:
        nonlocal count
        while time.perf_counter() < end:
            status, _, _ = await connection.ask("GET", path)
            assert status == 200
            count += 1

    start = time.perf_counter()
    await asyncio.gather(*map(work, connections, paths))
    return count / (time.perf_counter() - start)


async def timed(connection: Connection, path: str, entries: int) -> float:
    """Return the best time (s) of five for a list of so many jobs."""
    times = []
    for _ in range(5):
        start = time.perf_counter()
        status, _, body = await connection.ask("GET", path)
        times.append(time.perf_counter() - start)
        assert status == 200
        assert body.count(b"<uws:jobref ") == entries
    return min(times)


async def list_pages(connection: Connection, view: str) -> tuple[float, float]:
    """Read the JSON list of 10,000 jobs in pages; return the best time (s) and the largest page (kB)."""
    times, largest = [], 0
    for _ in range(3):
        start, entries = time.perf_counter(), 0
        path = f"/api/v1/job?last={JOBS}&limit=1000&view={view}"
        while path:
            status, head, body = await connection.ask("GET", path, encoding=b"gzip")
            assert status == 200
            largest = max(largest, len(body))
            entries += gzip.decompress(body).count(b'"jobId"')
            link = re.search(rb"Link: <http://[^/]+([^>]+)>", head)
            path = link[1].decode() if link else ""
        times.append(time.perf_counter() - start)
        assert entries == JOBS
    return min(times), largest / 1000


async def settle(connection: Connection, count: int) -> None:
    """Wait until all jobs have ended."""
    while True:
        _, _, body = await connection.ask("GET", f"/uws/instant?PHASE=COMPLETED&LAST={count}")
        if body.count(b"<uws:jobref ") == count:
            return
        await asyncio.sleep(0.2)


def rss(pid: int) -> float:
    """Return the memory of a process (kB)."""
    return psutil.Process(pid).memory_info().rss / 1024


async def measure(work_dir: Path) -> dict[str, Any]:
    """Return all figures."""
    with server("ours", work_dir) as (port, pid), server("bare", work_dir) as (bare_port, _):
        ours = await connect(port)
        # A first thousand, so that what is loaded once is not counted for each job.
        await create(ours, 1000, b"PHASE=RUN")
        await settle(ours[0], 1000)
        before = rss(pid)
        run_per_s, _ = await create(ours, JOBS, b"PHASE=RUN")
        await settle(ours[0], JOBS)
        rss_kb_per_job = (rss(pid) - before) / JOBS
        list_10000 = await timed(ours[0], f"/uws/instant?PHASE=COMPLETED&LAST={JOBS}", JOBS)
        list_last_100 = await timed(ours[0], "/uws/instant?LAST=100", 100)
        json_list_10000, _ = await list_pages(ours[0], "short")
        _, json_page_gz = await list_pages(ours[0], "whole")
        # A server closes connections that have not been used for a while.
        ours, bare = await connect(port), await connect(bare_port)
        create_per_s, paths = await create(ours, CREATED, b"config=")
        rates: dict[str, list[float]] = {"ours": [], "bare": [], "document": []}
        phases = [f"{path}/phase" for path in paths[:CONNECTIONS]]
        for _ in range(ROUNDS):
            rates["ours"].append(await poll(ours, phases))
            rates["bare"].append(await poll(bare, phases))
            rates["document"].append(await poll(ours, paths[:CONNECTIONS]))
        ratios = [ours / bare for ours, bare in zip(rates["ours"], rates["bare"], strict=True)]
        documents = [ours / bare for ours, bare in zip(rates["document"], rates["bare"], strict=True)]
        for connection in ours + bare:
            connection.close()
    return {
        "poll_ratio": round(statistics.median(ratios), 3),
        "polls_per_s": round(statistics.median(rates["ours"])),
        "create_per_s": round(create_per_s),
        "list_10000_s": round(list_10000, 3),
        "list_last_100_s": round(list_last_100, 4),
        "json_list_10000_s": round(json_list_10000, 3),
        "json_page_gz_kb": round(json_page_gz, 1),
        "rss_kb_per_job": round(rss_kb_per_job, 2),
        "run_per_s": round(run_per_s),
        "document_ratio": round(statistics.median(documents), 3),
    }


def main() -> None:
    """Run from the command line."""
    arguments = parser(__doc__)
    arguments.add_argument("--serve", choices=("ours", "bare"), help=argparse.SUPPRESS)
    # Not /tmp, which is memory on many machines: the store is to be on disk.
    arguments.add_argument(
        "--work-dir", type=Path, default=Path.cwd(), help="where to put the job store (default: here)"
    )
    parsed = arguments.parse_args()
    if parsed.serve:
        asyncio.run(serve_ours(parsed.work_dir) if parsed.serve == "ours" else serve_bare())
        return
    with tempfile.TemporaryDirectory(prefix=".uws-throughput-", dir=parsed.work_dir) as folder:
        report(asyncio.run(measure(Path(folder))), as_json=parsed.json)
    os._exit(0)


if __name__ == "__main__":
    main()
