# SPDX-License-Identifier: GPL-3.0-or-later
"""Places and workers: each owner's share, and what is reserved."""

from __future__ import annotations

import asyncio

import pytest
from lsst.dm.OCPS.jobs.errors import QueueFullError, TransitionError
from lsst.dm.OCPS.jobs.limits import Limits
from lsst.dm.OCPS.jobs.model import ExecutionPhase, Job
from lsst.dm.OCPS.jobs.places import DRY_RUNS_PER_OWNER

from tests.engine.test_manager import end
from tests.waiting import TIMEOUT

Phase = ExecutionPhase


async def test_one_owner_cannot_take_all_places(bench, ask):
    manager = await bench.open(max_jobs_per_owner=2)
    first = await manager.submit(ask(owner="alice"))
    await manager.submit(ask(owner="alice"), run=False)
    for run in (True, False):
        with pytest.raises(QueueFullError, match="2 of your jobs have not ended; the limit is 2"):
            await manager.submit(ask(owner="alice"), run=run)
    await manager.submit(ask(owner="bob"))
    await bench.settle()
    await end(bench, first)
    await manager.submit(ask(owner="alice"), run=False)
    await manager.submit(ask(owner="alice", exempt=True))


async def test_one_owner_cannot_take_all_dry_runs(bench, ask, monkeypatch):
    manager = await bench.open()
    begun, may_end = asyncio.Semaphore(0), asyncio.Event()

    async def dry_run(job):
        begun.release()
        await may_end.wait()

    monkeypatch.setattr(bench.backend, "dry_run", dry_run)
    tasks = [asyncio.create_task(manager.dry_run(ask(owner="alice"))) for _ in range(DRY_RUNS_PER_OWNER)]
    for _ in tasks:
        await asyncio.wait_for(begun.acquire(), TIMEOUT)
    with pytest.raises(QueueFullError, match="of your dry runs are under way"):
        await manager.dry_run(ask(owner="alice"))
    others = [
        asyncio.create_task(manager.dry_run(ask(**who))) for who in ({"owner": "bob"}, {"exempt": True})
    ]
    for _ in others:
        await asyncio.wait_for(begun.acquire(), TIMEOUT)
    may_end.set()
    await asyncio.gather(*tasks, *others)
    await manager.dry_run(ask(owner="alice"))


async def test_two_at_once_find_room_for_one(bench, ask):
    manager = await bench.open(max_jobs_per_owner=1)
    outcomes = await asyncio.gather(
        *(manager.submit(ask(owner="alice")) for _ in range(10)), return_exceptions=True
    )
    assert sum(isinstance(outcome, Job) for outcome in outcomes) == 1
    job = next(outcome for outcome in outcomes if isinstance(outcome, Job))
    await bench.settle()
    await end(bench, job)
    await manager.submit(ask(owner="alice"))


async def test_the_count_of_an_owner_survives_a_restart_and_refusals(bench, ask):
    manager = await bench.open(max_jobs_per_owner=1)
    with pytest.raises(Exception, match="bad"):
        await manager.submit(ask(owner="alice", parameters={"bad": "1"}))
    job = await manager.submit(ask(owner="alice"))
    manager = await bench.reopen(max_jobs_per_owner=1)
    with pytest.raises(QueueFullError):
        await manager.submit(ask(owner="alice"))
    await end(bench, job)
    await manager.submit(ask(owner="alice"))


async def test_reserved_places_are_left_when_others_fill_the_queue(bench, ask):
    manager = await bench.open(max_workers=1, max_queued=4, reserved_places=2)
    for _ in range(3):
        await manager.submit(ask())
    with pytest.raises(QueueFullError):
        await manager.submit(ask())
    for _ in range(2):
        await manager.submit(ask(reserved=True))
    with pytest.raises(QueueFullError):
        await manager.submit(ask(reserved=True))


async def test_reserved_workers_run_only_what_may_use_them(bench, ask):
    manager = await bench.open(max_workers=3, reserved_workers=1)
    ordinary = [await manager.submit(ask()) for _ in range(4)]
    await bench.settle()
    assert bench.backend.given == [job.id for job in ordinary[:2]]
    urgent = [await manager.submit(ask(reserved=True)) for _ in range(2)]
    await bench.settle()
    assert bench.backend.given[2:] == [urgent[0].id]
    # A free ordinary worker takes what is next, whoever asked.
    await end(bench, ordinary[0])
    await bench.settle()
    assert bench.backend.given[3:] == [ordinary[2].id]
    await end(bench, urgent[0])
    await bench.settle()
    assert bench.backend.given[4:] == [urgent[1].id]


def test_at_least_half_of_the_places_and_one_worker_are_for_everybody():
    limits = Limits(max_workers=1, reserved_workers=5, max_queued=10, reserved_places=100)
    assert (limits.ordinary_workers, limits.ordinary_places) == (1, 5)


async def test_two_who_run_a_held_job_at_once_leave_its_place(bench, ask):
    manager = await bench.open(max_workers=1)
    first = await manager.submit(ask())
    held = await manager.submit(ask(prerequisites=(first.id,)))
    await manager.hold(held.id)
    outcomes = await asyncio.gather(manager.run(held.id), manager.run(held.id), return_exceptions=True)
    assert {type(outcome) for outcome in outcomes} == {Job, TransitionError}
    assert manager.lane.waiting == 1
    await bench.settle()
    await end(bench, first)
    await bench.given(2)
    assert bench.backend.given == [first.id, held.id]
    await end(bench, held)
    assert manager.lane.waiting == 0
