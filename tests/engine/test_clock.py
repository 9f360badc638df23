# SPDX-License-Identifier: GPL-3.0-or-later
"""Clocks that jump: deadlines hold, and no job ends before it started."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest
from lsst.dm.OCPS.jobs import ledger, manager, model, scheduler
from lsst.dm.OCPS.jobs.backend import BackendUpdate
from lsst.dm.OCPS.jobs.model import ExecutionPhase
from lsst.dm.OCPS.rubin_json import job_document

from tests.engine.conftest import ScriptedBackend
from tests.waiting import until_job

Phase = ExecutionPhase


class Clock:
    """The wall clock of the engine, which a test sets."""

    def __init__(self) -> None:
        self.offset = timedelta()

    def now(self):
        return model.now() + self.offset


@pytest.fixture
def clock(monkeypatch):
    """The wall clock of the engine."""
    made = Clock()
    for module in (ledger, manager, scheduler):
        monkeypatch.setattr(module, "now", made.now)
    return made


class Resuming(ScriptedBackend):
    """Knows for how long the jobs that it takes up have run."""

    elapsed = 10.0

    async def reattach(self, jobs) -> None:
        for job in jobs:
            update = BackendUpdate(phase=Phase.EXECUTING, elapsed=self.elapsed)
            self.report(job.id, update)


def left(manager, job) -> float:
    """Return the time (s) that a job may still run."""
    return manager.lane.runs[job.id].deadline.when() - asyncio.get_running_loop().time()


async def running_while_the_clock_jumps(bench, ask, clock, hours):
    """Start a job that may run for 3000 s, and set the clock; return the engine and the job."""
    manager = await bench.open()
    job = await manager.submit(ask(execution_duration=3000))
    await bench.settle()
    bench.backend.say(job.id, Phase.EXECUTING)
    await until_job(manager, job.id, lambda job: job.phase == Phase.EXECUTING)
    clock.offset = timedelta(hours=hours)
    return manager, job


@pytest.mark.parametrize("hours", [-1, 1])
async def test_a_clock_that_jumps_neither_shortens_nor_lengthens_a_run(bench, ask, clock, hours):
    manager, job = await running_while_the_clock_jumps(bench, ask, clock, hours)
    bench.backend.say(job.id, Phase.SUSPENDED)
    await until_job(manager, job.id, lambda job: job.phase == Phase.SUSPENDED)
    assert 2500 < left(manager, job) <= 3000
    await manager.modify(job.id, execution_duration=5000)
    assert 4500 < left(manager, job) <= 5000


@pytest.mark.parametrize("hours", [-1, 1])
async def test_after_a_restart_the_deadline_counts_from_what_the_backend_says(bench, ask, clock, hours):
    manager, job = await running_while_the_clock_jumps(bench, ask, clock, hours)
    await manager.close()
    bench.backend = Resuming()
    manager = await bench.open()
    assert 2490 < left(manager, job) <= 2990


async def test_a_clock_that_is_set_back_while_a_job_runs_gives_no_negative_time(bench, ask, clock):
    manager = await bench.open()
    job = await manager.submit(ask())
    await bench.settle()
    bench.backend.say(job.id, Phase.EXECUTING)
    started = await until_job(manager, job.id, lambda job: job.phase == Phase.EXECUTING)
    clock.offset = timedelta(hours=-2)
    bench.backend.say(job.id, Phase.COMPLETED)
    ended = await until_job(manager, job.id, lambda job: job.terminal)
    assert ended.end_time == started.start_time
    assert job_document(ended)["executionDuration"] == 0.0


async def test_a_clock_that_is_set_back_does_not_lengthen_the_time_that_a_job_may_be_unknown(
    bench, ask, clock
):
    manager = await bench.open(unknown_grace=3000)
    job = await manager.submit(ask())
    await bench.settle()
    bench.backend.say(job.id, Phase.UNKNOWN)
    await until_job(manager, job.id, lambda job: job.phase == Phase.UNKNOWN)
    clock.offset = timedelta(hours=-2)
    manager = await bench.reopen(unknown_grace=3000)
    lost = manager.lane.runs[job.id].lost
    assert lost.when() - asyncio.get_running_loop().time() <= 3000
