# SPDX-License-Identifier: GPL-3.0-or-later
"""The load of a soak test: jobs over HTTP and SAL, and readers of the change stream."""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections import Counter

import aiohttp
from lsst.dm.OCPS.testing import Script

from .figures import Samples

SIMULATED, COMMANDS = "pipetask", "tick"
"""The job lists of the CSC and of the server."""
AT_A_TIME = 12
"""How many jobs are under way over HTTP."""
READERS_AT_A_TIME = 20
EVENTS = 3
"""How many events each reader waits for."""
SAL_SHARE = 20
"""One job in so many is commanded over SAL."""
COMMAND_SHARE = 10
"""One job in so many is a command, on the server."""
LIST_SHARE = 10
"""After one job in so many, a list is asked for."""
LONGEST = 300.0
"""How long (s) a job or a reader may take; then something is wrong."""


class Work:
    """Runs a number of jobs and of readers.

    Parameters
    ----------
    urls : `tuple` [`str`, `str`]
        The HTTP faces of the CSC and of the server.
    script : `Script`
        Commands OCPS over SAL.
    samples : `Samples`
        Gets the answer times.
    """

    def __init__(self, urls: tuple[str, str], script: Script, samples: Samples) -> None:
        self.url, self.server_url = urls
        self.script = script
        self.samples = samples
        self.counts: Counter[str] = Counter()
        self.faults: list[str] = []
        self.deadline = float("inf")
        self._session: aiohttp.ClientSession

    async def run(self, jobs: int, readers: int, minutes: float | None) -> None:
        """Run the load; start nothing after ``minutes``."""
        if minutes is not None:
            self.deadline = time.monotonic() + minutes * 60
        numbers, places = iter(range(jobs)), iter(range(readers))
        connector = aiohttp.TCPConnector(limit=0)
        async with aiohttp.ClientSession(connector=connector, timeout=aiohttp.ClientTimeout(60)) as session:
            self._session = session
            async with asyncio.TaskGroup() as tasks:
                reading = [tasks.create_task(self._readers(places)) for _ in range(READERS_AT_A_TIME)]
                async with asyncio.TaskGroup() as commanding:
                    for _ in range(AT_A_TIME):
                        commanding.create_task(self._jobs(numbers))
                # Readers that still wait need further changes.
                await self._last_jobs(reading)

    async def _last_jobs(self, reading: list[asyncio.Task[None]]) -> None:
        """Run further jobs until all readers have read enough."""
        while not all(task.done() for task in reading):
            await self._over_http()

    async def _jobs(self, numbers: object) -> None:
        for number in numbers:  # type: ignore[attr-defined]
            if time.monotonic() > self.deadline:
                return
            if number % SAL_SHARE == 0:
                await self._over_sal()
            elif number % COMMAND_SHARE == 1:
                await self._command()
            else:
                await self._over_http()

    async def _over_sal(self) -> None:
        begun = time.perf_counter()
        execution = await self.script.execute("true.yaml", timeout=LONGEST)
        self.samples.add("execute to job id (SAL)", (time.perf_counter() - begun) * 1000)
        result = await execution.result(LONGEST)
        self._count(result["phase"].upper(), execution.job_id)
        self.counts["over SAL"] += 1
        # Else this process, not OCPS, would grow.
        self.script.results.clear()
        self.script.job_ids.clear()

    async def _command(self) -> None:
        await self._job(f"{self.server_url}/uws/{COMMANDS}", {}, "creation of a command (server)")
        self.counts["commands"] += 1

    async def _over_http(self) -> None:
        await self._job(f"{self.url}/uws/{SIMULATED}", {"pipeline": "true.yaml"}, "creation of a job")

    async def _job(self, url: str, parameters: dict[str, str], figure: str) -> None:
        """Run a job and wait for its end; the answer to its creation is a sample of ``figure``."""
        begun = time.perf_counter()
        data = {"PHASE": "RUN", **parameters}
        async with self._session.post(url, data=data, allow_redirects=False) as answer:
            if answer.status != 303:
                self.faults.append(f"a job was refused: {answer.status} {(await answer.text())[:200]}")
                return
            job = answer.headers["Location"]
        self.samples.add(figure, (time.perf_counter() - begun) * 1000)
        async with asyncio.timeout(LONGEST):
            phase = ""
            while phase not in ("COMPLETED", "ERROR", "ABORTED"):
                async with self._session.get(f"{job}?WAIT=30&PHASE={phase or 'QUEUED'}") as answer:
                    await answer.read()
                begun = time.perf_counter()
                async with self._session.get(f"{job}/phase") as answer:
                    phase = (await answer.text()).strip()
                self.samples.add("answer about one job", (time.perf_counter() - begun) * 1000)
        self._count(phase, job)
        if self.counts["jobs"] % LIST_SHARE == 0:
            begun = time.perf_counter()
            async with self._session.get(f"{self.url}/uws/{SIMULATED}?LAST=100") as answer:
                await answer.read()
            self.samples.add("list of 100 jobs", (time.perf_counter() - begun) * 1000)

    def _count(self, phase: str, job: str) -> None:
        self.counts["jobs"] += 1
        if phase != "COMPLETED":
            self.faults.append(f"{job} ended as {phase}")

    async def _readers(self, places: object) -> None:
        for _ in places:  # type: ignore[attr-defined]
            if time.monotonic() > self.deadline:
                return
            await self._read_some()

    async def _read_some(self) -> None:
        """Read some events of the change stream; half of the readers then cut the connection."""
        timeout = aiohttp.ClientTimeout(LONGEST)
        async with self._session.get(f"{self.url}/api/v1/events", timeout=timeout) as answer:
            if answer.status != 200:
                self.faults.append(f"a reader was refused: {answer.status} {(await answer.text())[:200]}")
                return
            seen = 0
            while seen < EVENTS and (line := await answer.content.readline()):
                seen += line.startswith(b"data:")
            if random.random() < 0.5:
                with contextlib.suppress(aiohttp.ClientError):
                    answer.close()
        self.counts["readers"] += 1
