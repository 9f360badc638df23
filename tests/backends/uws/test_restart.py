# SPDX-License-Identifier: GPL-3.0-or-later
"""OCPS itself goes away: jobs at the server are taken up again."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from lsst.dm.OCPS.jobs.model import ExecutionPhase, Job

from tests.backends.uws.conftest import Engine, MakeEngine, configuration
from tests.backends.uws.standin import Fault, StandIn
from tests.waiting import TIMEOUT

PROGRAM = Path(__file__).with_name("engine_process.py")

COMPLETED = ExecutionPhase.COMPLETED


class EngineProcess:
    """A running ``engine_process.py``."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process
        self.lines: list[str] = []

    async def read(self, enough: Callable[[list[str]], bool]) -> list[str]:
        """Read what it prints until that is enough."""
        assert self.process.stdout is not None
        async with asyncio.timeout(TIMEOUT):
            while not enough(self.lines):
                line = (await self.process.stdout.readline()).decode().strip()
                assert line, "the engine ended"
                self.lines.append(line)
        return self.lines

    async def kill(self) -> None:
        """End it as a crash would."""
        if self.process.returncode is None:
            self.process.kill()
        await self.process.wait()


@asynccontextmanager
async def run_engine(standin: StandIn, work: Path, count: int) -> AsyncIterator[EngineProcess]:
    """Run an engine in a process of its own."""
    config = configuration(standin, work).model_dump_json()
    process = await asyncio.create_subprocess_exec(
        sys.executable, str(PROGRAM), config, str(count), stdout=asyncio.subprocess.PIPE
    )
    engine = EngineProcess(process)
    try:
        yield engine
    finally:
        await engine.kill()


async def taken_up(engine: Engine, job_id: str) -> Job:
    """Return a job that another engine accepted."""
    return await engine.manager.get(job_id)


async def test_running_jobs_are_taken_up_after_a_kill(
    standin: StandIn, make_engine: MakeEngine, tmp_path: Path
) -> None:
    async with run_engine(standin, tmp_path / "work", 12) as process:
        lines = await process.read(lambda lines: sum("EXECUTING" in line for line in lines) == 12)
        await process.kill()
    ids = [line for line in lines if " " not in line]
    # Some end while nobody looks.
    standin.end(ids[0])
    standin.end(ids[1], "error", message="out of memory")
    engine = await make_engine()
    assert (await engine.end(await taken_up(engine, ids[0]))).phase == COMPLETED
    failed = await engine.end(await taken_up(engine, ids[1]))
    assert failed.error is not None
    assert failed.error.message == "out of memory"
    for job_id in ids[2:]:
        standin.end(job_id)
        ended = await engine.end(await taken_up(engine, job_id))
        assert (ended.phase, len(ended.results)) == (COMPLETED, 1)
    assert standin.counts["PUT"] == 12


@pytest.mark.parametrize("kind", ["hang after", "hang"])
async def test_submission_cut_off_by_a_kill_is_made_good_once(
    standin: StandIn, make_engine: MakeEngine, tmp_path: Path, kind: str
) -> None:
    standin.faults.append(Fault(kind, "PUT"))
    async with run_engine(standin, tmp_path / "work", 1) as process:
        (job_id,) = await process.read(lambda lines: len(lines) == 1)
        await standin.until(lambda: standin.counts["PUT"])
        await process.kill()
    engine = await make_engine()
    await engine.phase(await taken_up(engine, job_id), "executing")
    assert len(standin.of(job_id)) == 1
    assert standin.counts["PUT"] == (1 if kind == "hang after" else 2)
    standin.end(job_id)
    assert (await engine.end(await taken_up(engine, job_id))).phase == COMPLETED


async def test_abort_that_was_cut_off_is_carried_out(
    standin: StandIn, make_engine: MakeEngine, tmp_path: Path
) -> None:
    engine = await make_engine(abort_grace=600)
    job = await engine.submit()
    await engine.phase(job, "executing")
    fault = Fault("500", "DELETE", times=-1)
    standin.faults.append(fault)
    aborting = asyncio.create_task(engine.manager.abort(job.id, "enough"))
    await standin.asked("DELETE")
    aborting.cancel()
    # Closed, not finished: as far as the store knows, that is a crash.
    engine = await make_engine(abort_grace=600)
    fault.times = 0
    job = await engine.end(job)
    assert (job.phase, job.message) == (ExecutionPhase.ABORTED, "enough")
    assert not standin.of(job.id)


async def test_restart_while_the_server_is_away(
    standin: StandIn, make_engine: MakeEngine, tmp_path: Path
) -> None:
    engine = await make_engine()
    job = await engine.submit()
    await engine.phase(job, "executing")
    await standin.stop()
    engine = await make_engine()
    await engine.phase(job, "unknown")
    await standin.start()
    standin.end(job.id)
    assert (await engine.end(job)).phase == COMPLETED
