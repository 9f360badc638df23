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
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import aiohttp
import yaml
from lsst.dm.OCPS.jobs.query import JobQuery
from lsst.dm.OCPS.jobs.store import JobStore
from lsst.dm.OCPS.testing import CscProcess, Script, private_bus

from tests.ports import free_port

from .figures import Samples
from .work import LIST, Work

JOBS, READERS, RECORDS = 20_000, 10_000, 100_000
RESTART = 2.0
"""How long (s) OCPS may take to answer again, beyond what it takes with an empty store."""
START_TIMEOUT = 240.0
PERIOD = 2.0
"""Time (s) between two samples of the process."""


class Soak:
    """An OCPS with a store of many records, and what it is given to do.

    Parameters
    ----------
    folder : `pathlib.Path`
        For all files.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.store = folder / "work" / "jobs.sqlite3"
        self.samples = Samples()
        self.faults: list[str] = []
        self.lines: list[str] = []

    def configure(self, records: int) -> None:
        """Write the configuration: quick commands in the local pool, SAL and HTTP."""
        definition = {"name": LIST, "kind": "command", "argv": ["true"]}
        (self.folder / "tick.yaml").write_text(yaml.safe_dump({"definitions": [definition]}))
        instance = {
            "sal_index": 1,
            "work_dir": str(self.folder / "work"),
            "max_workers": 4,
            # With each job that ends, the oldest record goes.
            "keep_jobs": max(1, records),
            "definitions": [str(self.folder / "tick.yaml")],
            "commands": [{"command": "true"}],
            "http": {"port": self.port, "auth": {"open": True}},
        }
        (self.folder / "config").mkdir()
        (self.folder / "config" / "soak.yaml").write_text(yaml.safe_dump({"instances": [instance]}))
        (self.folder / "config" / "_labels.yaml").write_text("soak: soak.yaml\n")

    @contextlib.asynccontextmanager
    async def csc(self) -> AsyncIterator[tuple[CscProcess, float]]:
        """Run the CSC; give how long (s) it took until it answered over HTTP."""
        arguments = ("--configdir", str(self.folder / "config"), "--state", "enabled", "--settings", "soak")
        csc = CscProcess("1", *arguments, log=self.folder / "csc.log")
        begun = time.monotonic()
        async with csc, aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(5)) as session:
            async with asyncio.timeout(START_TIMEOUT):
                while True:
                    assert csc.process
                    if csc.process.returncode is not None:
                        raise RuntimeError(f"OCPS ended by itself: {self.folder / 'csc.log'}")
                    with contextlib.suppress(aiohttp.ClientError, TimeoutError):
                        async with session.get(f"{self.url}/uws/{LIST}?LAST=1") as answer:
                            if answer.status == 200:
                                break
                    await asyncio.sleep(0.02)
            yield csc, time.monotonic() - begun

    async def restart_time(self, starts: int) -> float:
        """Return the best time (s) of so many from the start of the process to its first answer."""
        times = []
        for _ in range(starts):
            async with self.csc() as (_, took):
                times.append(took)
        return min(times)

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
        """Fill the store, work, start again; write down what was found."""
        private_bus()
        self.configure(records)
        async with self.csc(), Script.connect() as script:
            await Work(self.url, script, Samples()).run(1, 0, None)
        empty = await self.restart_time(starts)
        await self.fill(records)
        async with self.csc() as (csc, _), Script.connect() as script:
            # What is loaded and filled once, is.
            await Work(self.url, script, Samples()).run(min(200, jobs), min(50, readers), minutes)
            self.samples = Samples()
            work = Work(self.url, script, self.samples)
            sampling = asyncio.create_task(self._sample(csc.pid))
            try:
                await work.run(jobs, readers, minutes)
            finally:
                sampling.cancel()
                await asyncio.gather(sampling, return_exceptions=True)
            self.faults += work.faults
        full = await self.restart_time(starts)
        took = time.monotonic() - self.samples.begin
        self.lines.append(
            f"{work.counts['jobs']} jobs ({work.counts['over SAL']} over SAL), {work.counts['readers']}"
            f" stream readers, {records} records, {took / 60:.1f} min"
        )
        self.lines.append(f"start until the first answer: {full:.2f} s; with an empty store {empty:.2f} s")
        if full - empty > RESTART:
            self.faults.append(f"with {records} records the start takes {full - empty:.2f} s longer")

    async def _sample(self, pid: int) -> None:
        while True:
            self.samples.take(pid, self.store)
            await asyncio.sleep(PERIOD)


def main() -> int:
    """Run from the command line; return 1 if a figure did not stay flat."""
    parser = argparse.ArgumentParser(description="Work OCPS for long, and see whether its costs stay flat.")
    parser.add_argument("--minutes", type=float, help="begin nothing after so long (default: no limit)")
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
    faults = soak.faults + not_flat
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
