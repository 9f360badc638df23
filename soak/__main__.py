# SPDX-License-Identifier: GPL-3.0-or-later
"""Run the soak: ``make soak [MINUTES=]``."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import dataclasses
import shutil
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from datetime import timedelta
from pathlib import Path
from typing import Any

import aiohttp
import psutil
import yaml
from lsst.dm.OCPS.jobs.query import JobQuery
from lsst.dm.OCPS.jobs.store import JobStore
from lsst.dm.OCPS.testing import CscProcess, Script, private_bus

from tests.ports import free_port

from .figures import Samples
from .work import COMMANDS, SIMULATED, Work

JOBS, READERS, RECORDS = 20_000, 10_000, 100_000
RESTART = 2.0
"""How much processor time (s) the server may take, with all records, from its start to its first answer.

The same time beyond that of an empty store is allowed to the CSC, whose start is mostly that of DDS.
"""
START_TIMEOUT = 240.0
PERIOD = 2.0
"""Time (s) between two samples of the process."""


@dataclasses.dataclass(frozen=True)
class Start:
    """How long a process took from its start to its first answer over HTTP.

    Parameters
    ----------
    seconds : `float`
        By the clock; other programs on the machine make it longer.
    cpu : `float`
        Processor time (s) of the process.
    """

    seconds: float
    cpu: float

    def __str__(self) -> str:
        return f"{self.seconds:.2f} s ({self.cpu:.2f} s of processor time)"


class Soak:
    """A CSC with a store of many records, a server that runs commands, and the load on both.

    The CSC simulates its jobs, so that their number is limited by OCPS alone.

    Parameters
    ----------
    folder : `pathlib.Path`
        For all files.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.ports = free_port(), free_port()
        self.url, self.server_url = (f"http://127.0.0.1:{port}" for port in self.ports)
        self.store = folder / "work" / "jobs.sqlite3"
        self.samples = Samples()
        self.faults: list[str] = []
        self.late: list[str] = []
        """Starts that took too long."""
        self.lines: list[str] = []

    def configure(self, records: int) -> None:
        """Write the configuration: the CSC is instance 1, the server instance 2."""
        definition = {"name": COMMANDS, "kind": "command", "argv": ["sh", "-c", "echo done > answer"]}
        (self.folder / "tick.yaml").write_text(yaml.safe_dump({"definitions": [definition]}))
        csc = {
            "sal_index": 1,
            "backend": "simulation",
            "simulation_duration": 0.1,
            "work_dir": str(self.folder / "work"),
            # With each job that ends, the oldest record goes.
            "keep_jobs": max(1, records),
            "keep_records": 0,
            "http": {"port": self.ports[0], "auth": {"open": True}},
        }
        server = {
            "sal_index": 2,
            "work_dir": str(self.folder / "server"),
            "max_workers": 4,
            "keep_jobs": 100,
            "keep_records": 0,
            "definitions": [str(self.folder / "tick.yaml")],
            "http": {"port": self.ports[1], "auth": {"open": True}},
        }
        (self.folder / "config").mkdir()
        (self.folder / "config" / "soak.yaml").write_text(yaml.safe_dump({"instances": [csc, server]}))
        (self.folder / "config" / "_labels.yaml").write_text("soak: soak.yaml\n")

    @contextlib.asynccontextmanager
    async def csc(self) -> AsyncIterator[CscProcess]:
        """Run the CSC."""
        arguments = ("--configdir", str(self.folder / "config"), "--state", "enabled", "--settings", "soak")
        csc = CscProcess("1", *arguments, log=self.folder / "csc.log")
        async with csc:
            assert csc.process
            await self._answers(csc.process, f"{self.url}/uws/{SIMULATED}?LAST=1")
            yield csc

    @contextlib.asynccontextmanager
    async def server(self, index: int = 2) -> AsyncIterator[asyncio.subprocess.Process]:
        """Run the server of an instance; that of the CSC's has the CSC's store."""
        config = str(self.folder / "config" / "soak.yaml")
        command = [sys.executable, "-m", "faults.server", "--config", config, "--index", str(index)]
        url = f"{self.server_url}/uws/{COMMANDS}" if index == 2 else f"{self.url}/uws/{SIMULATED}"
        with (self.folder / "server.log").open("ab") as log:
            process = await asyncio.create_subprocess_exec(*command, stdout=log, stderr=log)
        try:
            await self._answers(process, f"{url}?LAST=1")
            yield process
        finally:
            if process.returncode is None:
                process.terminate()
            await process.wait()

    async def _answers(self, process: asyncio.subprocess.Process, url: str) -> None:
        """Wait until a process answers."""
        async with (
            aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(5)) as session,
            asyncio.timeout(START_TIMEOUT),
        ):
            while True:
                if process.returncode is not None:
                    raise RuntimeError(f"OCPS ended by itself; its log is in {self.folder}")
                with contextlib.suppress(aiohttp.ClientError, TimeoutError):
                    async with session.get(url) as answer:
                        if answer.status == 200:
                            return
                await asyncio.sleep(0.02)

    async def start(self, starts: int, run: Callable[[], AbstractAsyncContextManager[Any]]) -> Start:
        """Return the start that took least processor time, of several starts of a process."""
        found = []
        for _ in range(starts):
            begun = time.monotonic()
            async with run() as process:
                times = psutil.Process(process.pid).cpu_times()
                found.append(Start(time.monotonic() - begun, times.user + times.system))
        return min(found, key=lambda start: start.cpu)

    async def fill(self, count: int) -> None:
        """Write records of jobs that have ended, copies of one that was run, to the store."""
        store = await JobStore.open(f"sqlite+aiosqlite:///{self.store}")
        try:
            model = (await store.find(JobQuery(last=1)))[0]
            sequence = await store.last_sequence()
            for start in range(0, count, 1000):
                await asyncio.gather(
                    *(
                        store.insert(
                            dataclasses.replace(
                                model,
                                id=f"record-{number:06d}",
                                sequence=sequence + 1 + number,
                                creation_time=model.creation_time - timedelta(seconds=count - number),
                            )
                        )
                        for number in range(start, min(start + 1000, count))
                    )
                )
        finally:
            await store.close()

    async def run(
        self, jobs: int, readers: int, records: int, minutes: float | None = None, starts: int = 3
    ) -> None:
        """Fill the store, run the load, restart; record what was found."""
        private_bus()
        self.configure(records)
        async with self.csc(), Script.connect() as script:
            execution = await script.execute("true.yaml", START_TIMEOUT)
            await execution.result(START_TIMEOUT)
        empty = await self.start(starts, self.csc)
        await self.fill(records)
        async with self.csc() as csc, self.server() as server, Script.connect() as script:
            urls = self.url, self.server_url
            # Modules are loaded and caches are filled before anything is measured.
            await Work(urls, script, Samples()).run(min(1000, jobs), min(200, readers), minutes)
            self.samples = Samples()
            work = Work(urls, script, self.samples)
            sampling = asyncio.create_task(self._sample(csc.pid, server.pid))
            try:
                await work.run(jobs, readers, minutes)
            finally:
                sampling.cancel()
                await asyncio.gather(sampling, return_exceptions=True)
            self.faults += work.faults
        took = time.monotonic() - self.samples.begin
        full = await self.start(starts, self.csc)
        alone = await self.start(starts, lambda: self.server(1))
        counts = work.counts
        self.lines.append(
            f"{counts['jobs']} jobs ({counts['over SAL']} over SAL, {counts['commands']} commands),"
            f" {counts['readers']} stream readers, {records} records, {took / 60:.1f} min"
        )
        self.lines.append(f"start of the server with {records} records until its first answer: {alone}")
        self.lines.append(f"start of the CSC with {records} records: {full}; with an empty store: {empty}")
        self.judge_starts(alone, full, empty, records)

    def judge_starts(self, alone: Start, full: Start, empty: Start, records: int) -> None:
        """Find fault with starts that take too much processor time."""
        if alone.cpu > RESTART:
            self.late.append(f"with {records} records the server takes {alone.cpu:.2f} s to start")
        if full.cpu - empty.cpu > RESTART:
            more = full.cpu - empty.cpu
            self.late.append(f"with {records} records the start of the CSC takes {more:.2f} s longer")

    async def _sample(self, csc: int, server: int) -> None:
        while True:
            self.samples.take(csc, "", self.store)
            self.samples.take(server, " (server)")
            await asyncio.sleep(PERIOD)


def main() -> int:
    """Run from the command line; return 1 if a figure did not stay flat."""
    parser = argparse.ArgumentParser(
        description="Run OCPS under load for long, and check that its costs stay flat."
    )
    parser.add_argument("--minutes", type=float, help="start no job after this time (default: no limit)")
    parser.add_argument("--jobs", type=int, default=JOBS, help=f"default: {JOBS}")
    parser.add_argument(
        "--readers", type=int, default=READERS, help=f"of the change stream; default: {READERS}"
    )
    parser.add_argument("--records", type=int, default=RECORDS, help=f"in the store; default: {RECORDS}")
    parser.add_argument("--picture", type=Path, help="where to draw the figures")
    options = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="ocps-soak-"))
    soak = Soak(folder)
    asyncio.run(soak.run(options.jobs, options.readers, options.records, options.minutes))
    table, not_flat = soak.samples.judge()
    faults = soak.faults + soak.late + not_flat
    print("\n".join([table, "", *soak.lines]))
    if options.picture:
        soak.samples.plot(options.picture, soak.lines[0])
        print(f"drawn to {options.picture}")
    for fault in faults[:20]:
        print(f"FAULT: {fault}")
    print(f"{len(faults)} faults; files: {folder}" if faults else "every figure stayed flat")
    if not faults:
        shutil.rmtree(folder, ignore_errors=True)
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
