# SPDX-License-Identifier: GPL-3.0-or-later
"""``ocps watch`` in a terminal, and the table by itself."""

from __future__ import annotations

import asyncio
import fcntl
import io
import os
import pty
import re
import signal
import struct
import termios
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from aiohttp import web
from lsst.dm.OCPS.cli.table import JobsTable, Throughput, jobs_table
from lsst.dm.OCPS.client import Progress, RemoteJob
from lsst.dm.OCPS.client.statistics import Statistics
from lsst.dm.OCPS.jobs.model import Progress as Quanta
from rich.console import Console

from tests.client.conftest import OCPS, environment
from tests.http.conftest import Served
from tests.proxy import Proxy
from tests.waiting import TIMEOUT

_ESCAPE = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


class Terminal:
    """A pseudo-terminal with a program in it."""

    def __init__(self) -> None:
        self.text = ""
        self.raw = b""
        self._news = asyncio.Event()

    async def run(self, *command: str, env: dict[str, str], columns: int = 140) -> Terminal:
        self._master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 30, columns, 0, 0))
        self.process = await asyncio.create_subprocess_exec(
            *command, env={**env, "TERM": "xterm-256color"}, stdin=slave, stdout=slave, stderr=slave
        )
        os.close(slave)
        asyncio.get_running_loop().add_reader(self._master, self._read)
        return self

    def _read(self) -> None:
        try:
            part = os.read(self._master, 65536)
        except OSError:
            part = b""
        if not part:
            asyncio.get_running_loop().remove_reader(self._master)
        self.raw += part
        self.text += _ESCAPE.sub("", part.decode(errors="replace"))
        self._news.set()

    async def shows(self, wanted: str | Callable[[str], bool]) -> None:
        """Wait until something is on the screen, or has been."""
        true = wanted if callable(wanted) else lambda text: wanted in text
        try:
            async with asyncio.timeout(TIMEOUT):
                while not true(self.text):
                    self._news.clear()
                    await self._news.wait()
        except TimeoutError:
            raise AssertionError(self.text[-3000:]) from None

    async def end(self) -> int:
        code = await asyncio.wait_for(self.process.wait(), TIMEOUT)
        asyncio.get_running_loop().remove_reader(self._master)
        os.close(self._master)
        return code


async def test_watch_shows_a_live_table_with_bars(served: Served, tmp_path: Path) -> None:
    url = await served.create(run=True, duration="3600")
    await served.executing(url)
    job_id = url.rpartition("/")[2]
    variables = environment(tmp_path, OCPS_URL=served.root)
    terminal = await Terminal().run(OCPS, "watch", job_id, env=variables)
    await terminal.shows(job_id[:12])
    await terminal.shows("1 executing; 0 jobs/min")
    await served.manager.record_progress(job_id, Quanta(3, 0, 9), "third of nine")
    await terminal.shows("3/9")
    await terminal.shows("━")
    await terminal.shows("third of nine")
    await served.manager.abort(job_id)
    assert await terminal.end() == 5
    assert "ABORTED" in terminal.text


async def test_watch_stays_readable_in_80_columns(served: Served, tmp_path: Path) -> None:
    url = await served.create(run=True, duration="3600", RUNID="a-name-that-is-rather-long-for-a-name")
    await served.executing(url)
    job_id = url.rpartition("/")[2]
    words = "third of nine, which takes " + "long " * 30
    await served.manager.record_progress(job_id, Quanta(3, 0, 9), words)
    terminal = await Terminal().run(
        OCPS, "watch", job_id, env=environment(tmp_path, OCPS_URL=served.root), columns=80
    )
    await terminal.shows(lambda text: re.search(r"3/9.*third.*\n", text) is not None)
    (line, *_) = (line for line in re.split(r"[\r\n]+", terminal.text) if "third" in line)
    assert job_id[:12] in line
    assert "EXECUTING" in line
    assert all(len(line) <= 80 for line in re.split(r"[\r\n]+", terminal.text))
    await served.manager.abort(job_id)
    assert await terminal.end() == 5


async def test_watch_of_everything_ends_with_an_interrupt(served: Served, tmp_path: Path) -> None:
    terminal = await Terminal().run(OCPS, "watch", env=environment(tmp_path, OCPS_URL=served.root))
    await terminal.shows("no jobs")
    url = await served.create(run=True, duration="0")
    await terminal.shows("COMPLETED")
    await terminal.shows("1 jobs/min")
    await served.ask("DELETE", url)
    await terminal.shows(lambda text: "no jobs" in text.rpartition("COMPLETED")[2])
    terminal.process.send_signal(signal.SIGINT)
    assert await terminal.end() == 130
    assert "Traceback" not in terminal.text


async def test_watch_says_when_the_server_is_away(served: Served, proxy: Proxy, tmp_path: Path) -> None:
    url = await served.create(run=True, duration="3600")
    await served.executing(url)
    terminal = await Terminal().run(OCPS, "watch", env=environment(tmp_path, OCPS_URL=proxy.url))
    await terminal.shows("1 executing")
    proxy.away = True
    proxy.cut_all()
    await terminal.shows("not up to date: ")
    await served.manager.abort(url.rpartition("/")[2])
    proxy.away = False
    await terminal.shows("ABORTED")
    terminal.process.send_signal(signal.SIGINT)
    assert await terminal.end() == 130


@pytest.mark.parametrize("status", [200, 403])
async def test_watch_does_without_statistics(served: Served, tmp_path: Path, status: int) -> None:
    shown = asyncio.Event()

    async def without(request: web.Request) -> web.Response:
        await shown.wait()
        return web.Response(status=status, text="no statistics for you")

    proxy = Proxy(served.root)
    proxy.routes = [web.get("/api/v1/statistics", without)]
    await proxy.start()
    try:
        url = await served.create(run=True, duration="3600")
        await served.executing(url)
        job_id = url.rpartition("/")[2]
        terminal = await Terminal().run(OCPS, "watch", job_id, env=environment(tmp_path, OCPS_URL=proxy.url))
        await terminal.shows("1 executing")
        shown.set()
        await served.manager.abort(job_id)
        assert await terminal.end() == 5
        assert "ABORTED" in terminal.text
    finally:
        await proxy.stop()


def shown(table: object) -> str:
    console = Console(width=140)
    with console.capture() as capture:
        console.print(table)
    return capture.get()


def test_a_table_of_documents() -> None:
    document = {
        "jobId": "abcdef0123456789",
        "runId": "abcdef0123456789",
        "ownerId": "",
        "phase": "error",
        "creationTime": "2026-11-22 05:00:00+00:00",
        "startTime": "2026-11-22 05:00:00+00:00",
        "endTime": "2026-11-22 06:01:02+00:00",
        "destruction": None,
        "parameters": {"command": "", "environment": []},
        "results": [],
        "errorSummary": {"message": "two\nlines"},
        "jobInfo": {"definition": "pipetask", "progress": {"done": 3, "failed": 1, "total": 8}},
    }
    text = shown(jobs_table([document, RemoteJob("b" * 32, "http://h/uws/x/b", "QUEUED")]))
    assert "abcdef012345  pipetask" in text
    assert "4/8" in text
    assert "1:01:02" in text
    assert "two lines" in text
    assert "QUEUED" in text


def test_what_was_done_is_counted() -> None:
    throughput = Throughput()
    job = RemoteJob("a", "http://h/x/a", "EXECUTING", progress=Progress(1, 0, 9))
    throughput.count(job, None)
    later = RemoteJob("a", "http://h/x/a", "COMPLETED", progress=Progress(8, 1, 9))
    throughput.count(later, job)
    throughput.count(later, later)
    assert throughput.words() == "1 jobs/min, 8 quanta/min"


def test_usual_run_times_stand_beside_those_of_live_jobs() -> None:
    start = datetime.now(UTC) - timedelta(hours=2)
    common = {"url": "", "start_time": start, "end_time": start + timedelta(minutes=3)}
    jobs = [
        RemoteJob("live", phase="EXECUTING", definition="isr", **common | {"end_time": None}),
        RemoteJob("other", phase="EXECUTING", definition="new", **common | {"end_time": None}),
        RemoteJob("over", phase="COMPLETED", definition="isr", **common),
    ]
    console = Console(width=140, record=True, file=io.StringIO())
    console.print(JobsTable(jobs, statistics={"isr": Statistics("isr", 3, 3, p50=75.4, p90=80)}))
    _, live, other, over = console.export_text().splitlines()
    assert " / 0:01:15" in live
    assert "/" not in other
    assert "0:03:00" in over
    assert "/" not in over
