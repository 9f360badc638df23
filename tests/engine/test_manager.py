# SPDX-License-Identifier: GPL-3.0-or-later
"""The engine's rules, on a backend that does what the test says."""

from __future__ import annotations

import asyncio
import dataclasses
from datetime import timedelta

import pytest
from lsst.dm.OCPS.jobs.backend import BackendUpdate
from lsst.dm.OCPS.jobs.errors import (
    QueueFullError,
    RequestError,
    StoreError,
    TransitionError,
    UnknownJobError,
)
from lsst.dm.OCPS.jobs.model import ACTIVE, ExecutionPhase, Job, Progress, now
from lsst.dm.OCPS.jobs.store import JobQuery

from tests.waiting import TIMEOUT, until, until_job

Phase = ExecutionPhase


async def end(bench, job: Job, phase: ExecutionPhase = Phase.COMPLETED) -> Job:
    """Let the backend say that a job has ended; return it then."""
    bench.backend.say(job.id, phase)
    return await bench.manager.wait(job.id, TIMEOUT)


# The queue


async def test_no_more_jobs_run_than_there_are_workers(bench, ask):
    manager = await bench.open(max_workers=2)
    jobs = [await manager.submit(ask()) for _ in range(4)]
    await bench.settle()
    assert bench.backend.given == [jobs[0].id, jobs[1].id]
    await end(bench, jobs[1])
    await bench.settle()
    assert bench.backend.given[2:] == [jobs[2].id]


async def test_higher_priority_runs_earlier(bench, ask):
    manager = await bench.open(max_workers=1)
    first = await manager.submit(ask())
    low, high = await manager.submit(ask(priority=1)), await manager.submit(ask(priority=2))
    await end(bench, first)
    await bench.settle()
    assert bench.backend.given == [first.id, high.id]
    await end(bench, high)
    await bench.settle()
    assert bench.backend.given[2:] == [low.id]


async def test_newest_first_runs_the_present_exposure_first(bench, ask):
    manager = await bench.open(max_workers=1, newest_first=True)
    first = await manager.submit(ask())
    others = [await manager.submit(ask()) for _ in range(3)]
    await end(bench, first)
    await bench.settle()
    assert bench.backend.given[1:] == [others[-1].id]


async def test_a_full_queue_refuses(bench, ask):
    manager = await bench.open(max_workers=1, max_queued=2)
    jobs = [await manager.submit(ask()) for _ in range(3)]
    with pytest.raises(QueueFullError, match="The queue is full: 2 jobs wait"):
        await manager.submit(ask())
    await bench.settle()
    await end(bench, jobs[0])
    await bench.settle()
    await manager.submit(ask())


async def test_fifty_at_once_take_no_more_places_than_there_are(bench, ask):
    manager = await bench.open(max_workers=2, max_queued=10)
    outcomes = await asyncio.gather(*(manager.submit(ask()) for _ in range(50)), return_exceptions=True)
    accepted = [outcome for outcome in outcomes if isinstance(outcome, Job)]
    assert len(accepted) == 12
    assert all(isinstance(outcome, (Job, QueueFullError)) for outcome in outcomes)
    assert len({job.id for job in accepted}) == 12


async def test_sync_mode_takes_one_job_at_a_time(bench, ask):
    manager = await bench.open(mode="sync")
    job = await manager.submit(ask())
    with pytest.raises(QueueFullError, match=f"job {job.id} has not ended"):
        await manager.submit(ask())
    await end(bench, job)
    await manager.submit(ask())


async def test_a_refused_request_leaves_nothing(bench, ask):
    manager = await bench.open()
    for request in (
        ask(parameters={"bad": "1"}),
        ask(prerequisites=("nobody",)),
        ask(execution_duration=-1),
        ask(destruction=now() - timedelta(seconds=1)),
        ask(job_id="../evil"),
        dataclasses.replace(ask(), definition="none"),
    ):
        with pytest.raises(RequestError):
            await manager.submit(request)
    assert await manager.find(JobQuery()) == []
    assert manager.lane.waiting == 0


async def test_a_store_that_fails_refuses_and_gives_the_place_back(bench, ask, monkeypatch):
    manager = await bench.open()

    async def fail(job):
        raise StoreError("disk full")

    with monkeypatch.context() as patch:
        patch.setattr(manager.store, "insert", fail)
        with pytest.raises(StoreError):
            await manager.submit(ask())
    assert manager.lane.waiting == 0
    await manager.submit(ask())


async def test_an_end_that_cannot_be_stored_at_once_is_stored_later(bench, ask, monkeypatch):
    monkeypatch.setattr("lsst.dm.OCPS.jobs.ledger.STORE_RETRY", 0.01)
    manager = await bench.open()
    job = await manager.submit(ask())
    await bench.settle()
    replace, failures = manager.store.replace, [StoreError("disk full")] * 3

    async def sometimes(old, new):
        if failures:
            raise failures.pop()
        return await replace(old, new)

    monkeypatch.setattr(manager.store, "replace", sometimes)
    assert (await end(bench, job)).phase == Phase.COMPLETED
    assert not failures


async def test_a_backend_that_cannot_start_a_job_ends_it_with_the_reason(bench, ask, monkeypatch):
    manager = await bench.open()

    async def fail(job):
        raise OSError("no more processes")

    monkeypatch.setattr(bench.backend, "submit", fail)
    job = await manager.wait((await manager.submit(ask())).id, TIMEOUT)
    assert job.phase == Phase.ERROR
    assert job.error.message == "could not be started: no more processes"


# Prerequisites


async def test_a_job_waits_for_its_prerequisites_and_says_so(bench, ask):
    manager = await bench.open(max_workers=5)
    first, second = await manager.submit(ask()), await manager.submit(ask())
    job = await manager.submit(ask(prerequisites=(first.id, second.id)))
    assert (job.phase, job.message) == (Phase.QUEUED, f"waiting for {first.id}, {second.id}")
    await end(bench, first)
    job = await until_job(manager, job.id, lambda job: job.message == f"waiting for {second.id}")
    await end(bench, second, Phase.ERROR)
    await bench.given(3)
    assert bench.backend.given[2] == job.id
    assert (await manager.get(job.id)).message == ""


@pytest.mark.parametrize("how", [Phase.ERROR, Phase.ABORTED])
async def test_policy_completed_ends_a_job_whose_prerequisite_failed(bench, ask, how):
    manager = await bench.open(prerequisite_policy="completed")
    first = await manager.submit(ask())
    job = await manager.submit(ask(prerequisites=(first.id,)))
    await bench.settle()
    await end(bench, first, how)
    job = await manager.wait(job.id, TIMEOUT)
    assert job.phase == Phase.ERROR
    assert job.error.message == f"prerequisite {first.id} ended as {how}"
    late = await manager.submit(ask(prerequisites=(first.id,)))
    assert (await manager.wait(late.id, TIMEOUT)).phase == Phase.ERROR
    assert bench.backend.given == [first.id]


async def test_a_job_cannot_wait_for_itself(bench, ask):
    manager = await bench.open()
    with pytest.raises(RequestError, match="cannot wait for itself"):
        await manager.submit(ask(job_id="abc", prerequisites=("abc",)))


async def test_a_prerequisite_that_has_ended_is_none(bench, ask):
    manager = await bench.open()
    first = await manager.submit(ask())
    await bench.settle()
    await end(bench, first)
    job = await manager.submit(ask(prerequisites=(first.id,)))
    await bench.given(2)
    assert bench.backend.given[1] == job.id


# Holding, changing


async def test_a_pending_job_is_run_once_whoever_asks(bench, ask):
    manager = await bench.open()
    job = await manager.submit(ask(), run=False)
    assert job.phase == Phase.PENDING
    outcomes = await asyncio.gather(*(manager.run(job.id) for _ in range(5)), return_exceptions=True)
    assert sum(isinstance(outcome, Job) for outcome in outcomes) == 1
    assert sum(isinstance(outcome, TransitionError) for outcome in outcomes) == 4
    await bench.given(1)
    assert bench.backend.given == [job.id]


async def test_a_held_job_waits_until_it_is_run(bench, ask):
    manager = await bench.open(max_workers=1)
    first, job = await manager.submit(ask()), await manager.submit(ask())
    assert (await manager.hold(job.id)).phase == Phase.HELD
    await bench.settle()
    await end(bench, first)
    await bench.settle()
    assert bench.backend.given == [first.id]
    await manager.run(job.id)
    await bench.given(2)
    with pytest.raises(TransitionError, match="has been started already"):
        await manager.hold(job.id)


async def test_parameters_change_while_pending_only(bench, ask):
    manager = await bench.open()
    job = await manager.submit(ask(parameters={"a": "1"}), run=False)
    await manager.modify(job.id, parameters={"b": "2"})
    job = await manager.run(job.id)
    assert job.spec.values == {"a": "1", "b": "2"}
    with pytest.raises(TransitionError, match="while PENDING only"):
        await manager.modify(job.id, parameters={"c": "3"})


async def test_wrong_parameters_of_a_pending_job_are_refused_when_it_is_run(bench, ask):
    manager = await bench.open()
    job = await manager.submit(ask(parameters={"bad": "1"}), run=False)
    with pytest.raises(RequestError, match="bad"):
        await manager.run(job.id)
    assert (await manager.get(job.id)).phase == Phase.PENDING


# Stopping


async def test_abort_of_a_waiting_job_needs_no_backend(bench, ask):
    manager = await bench.open(max_workers=1)
    await manager.submit(ask())
    job = await manager.submit(ask())
    assert (await manager.abort(job.id)).phase == Phase.ABORTED
    assert bench.backend.cancelled == []


async def test_aborted_is_set_when_the_backend_confirms(bench, ask):
    manager = await bench.open()
    bench.backend.confirms = False
    job = await manager.submit(ask())
    await bench.settle()
    aborting = asyncio.create_task(manager.abort(job.id, "because"))
    await until_job(manager, job.id, lambda job: bool(job.abort_reason))
    assert (await manager.get(job.id)).phase == Phase.QUEUED
    bench.backend.say(job.id, Phase.ABORTED)
    job = await aborting
    assert (job.phase, job.message) == (Phase.ABORTED, "because")


async def test_without_confirmation_a_job_is_aborted_with_a_remark(bench, ask):
    manager = await bench.open(abort_grace=0.1)
    bench.backend.confirms = False
    job = await manager.submit(ask())
    await bench.settle()
    job = await manager.abort(job.id, "because")
    assert job.message == "because (the backend did not confirm within 0.1 s that it has stopped)"


async def test_completion_that_wins_the_race_stands(bench, ask):
    manager = await bench.open()
    bench.backend.confirms = False
    job = await manager.submit(ask())
    await bench.settle()
    aborting = asyncio.create_task(manager.abort(job.id))
    await until_job(manager, job.id, lambda job: bool(job.abort_reason))
    bench.backend.say(job.id, Phase.COMPLETED, exit_code=0)
    with pytest.raises(TransitionError, match="already completed"):
        await aborting
    assert (await manager.get(job.id)).phase == Phase.COMPLETED


async def test_abort_racing_with_completion_leaves_one_end(bench, ask):
    """Whoever wins, the caller of abort is told the truth and one end is shown."""
    manager = await bench.open(max_workers=1000)
    ends: dict[str, list[str]] = {}

    async def follow() -> None:
        async with manager.subscribe(lambda job: job.terminal) as changes:
            async for job in changes:
                ends.setdefault(job.id, []).append(job.phase)

    following = asyncio.create_task(follow())
    await asyncio.sleep(0)
    for number in range(200):
        job = await manager.submit(ask())
        if number % 3:
            await bench.settle()
        aborting = asyncio.create_task(manager.abort(job.id))
        for _ in range(number % 7):
            await asyncio.sleep(0)
        bench.backend.say(job.id, Phase.COMPLETED)
        try:
            told = (await aborting).phase
        except TransitionError:
            told = Phase.COMPLETED
        assert (await manager.get(job.id)).phase == told
    await manager.close()
    await following
    assert {len(phases) for phases in ends.values()} == {1}
    assert len(ends) == 200
    await bench.open()


async def test_a_deadline_stops_a_job_as_error_with_the_reason(bench, ask):
    manager = await bench.open()
    job = await manager.submit(ask(execution_duration=1))
    await bench.settle()
    bench.backend.say(job.id, Phase.EXECUTING)
    job = await manager.wait(job.id, TIMEOUT)
    assert job.phase == Phase.ERROR
    assert job.error.message == "ran longer than its limit of 1 s and was stopped"
    assert bench.backend.cancelled == [job.id]


async def test_the_deadline_counts_from_the_start_not_from_the_queue(bench, ask):
    manager = await bench.open()
    queued, running = [await manager.submit(ask(execution_duration=1)) for _ in range(2)]
    await bench.settle()
    bench.backend.say(running.id, Phase.EXECUTING)
    assert (await manager.wait(running.id, TIMEOUT)).phase == Phase.ERROR
    assert (await manager.get(queued.id)).phase == Phase.QUEUED


async def test_a_job_that_nothing_is_heard_of_fails_after_the_grace(bench, ask):
    manager = await bench.open(unknown_grace=0.1)
    job = await manager.submit(ask())
    await bench.settle()
    bench.backend.say(job.id, Phase.UNKNOWN, message="connection refused")
    job = await manager.wait(job.id, TIMEOUT)
    assert job.phase == Phase.ERROR
    assert job.error.message == "nothing was heard of it for 0.1 s: connection refused"


async def test_a_job_that_is_heard_of_again_goes_on(bench, ask):
    manager = await bench.open(unknown_grace=2)
    job, other = [await manager.submit(ask()) for _ in range(2)]
    await bench.settle()
    bench.backend.say(job.id, Phase.UNKNOWN)
    bench.backend.say(job.id, Phase.EXECUTING)
    await until_job(manager, job.id, lambda job: job.phase == Phase.EXECUTING)
    # The end of one that stays unknown shows that the grace of the first is over.
    bench.backend.say(other.id, Phase.UNKNOWN)
    assert (await manager.wait(other.id, TIMEOUT)).phase == Phase.ERROR
    assert (await manager.get(job.id)).phase == Phase.EXECUTING


async def test_a_job_given_up_while_it_was_being_started_is_stopped_when_it_has_been(bench, ask, monkeypatch):
    manager = await bench.open(abort_grace=0.05)
    go_on = asyncio.Event()

    async def slow(job):
        await go_on.wait()
        bench.backend.given.append(job.id)

    monkeypatch.setattr(bench.backend, "submit", slow)
    job = await manager.submit(ask())
    # Given to the backend, which is slow to take it.
    await until_job(manager, job.id, lambda job: job.dispatched)
    assert (await manager.abort(job.id)).phase == Phase.ABORTED
    go_on.set()
    await until(lambda: bench.backend.cancelled)
    assert bench.backend.cancelled == [job.id]


async def test_workers_are_counted_over_all_configurations_of_a_backend(bench, ask):
    from lsst.dm.OCPS.jobs.limits import Limits
    from lsst.dm.OCPS.jobs.parts import Parts

    manager = await bench.open(max_workers=1)
    first = await manager.submit(ask())
    await bench.settle()
    other = type(bench.backend)()
    await manager.use("test-2", Parts("scripted", other, manager.lane.definitions, Limits(max_workers=1)))
    second = await manager.submit(ask())
    await bench.settle()
    assert other.given == []
    await end(bench, first)
    await bench.settle()
    assert other.given == [second.id]
    await manager.use(
        "test-3", Parts("scripted", type(bench.backend)(), manager.lane.definitions, Limits(mode="sync"))
    )
    with pytest.raises(QueueFullError, match="One job at a time"):
        await manager.submit(ask())


async def test_a_change_whose_commit_was_in_doubt_is_found_again(bench, ask, monkeypatch):
    """The connection breaks after the database has the change and before it says so."""
    monkeypatch.setattr("lsst.dm.OCPS.jobs.ledger.STORE_RETRY", 0.01)
    manager = await bench.open()
    job = await manager.submit(ask())
    await bench.settle()
    replace, breaks = manager.store.replace, [True]

    async def breaking(old, new):
        done = await replace(old, new)
        if breaks:
            breaks.pop()
            raise StoreError("connection lost")
        return done

    monkeypatch.setattr(manager.store, "replace", breaking)
    assert (await end(bench, job)).phase == Phase.COMPLETED
    assert manager.lane.runs == {}


# Seeing


async def test_wait_returns_at_the_change_and_not_before(bench, ask):
    manager = await bench.open()
    job = await manager.submit(ask())
    await bench.settle()
    assert (await manager.wait(job.id, 0.05, ACTIVE)).phase == Phase.QUEUED
    waiting = asyncio.create_task(manager.wait(job.id, TIMEOUT, ACTIVE))
    await asyncio.sleep(0)
    bench.backend.say(job.id, Phase.QUEUED, progress=Progress(1, 0, 2))
    await until_job(manager, job.id, lambda job: job.progress.done == 1)
    assert not waiting.done()
    bench.backend.say(job.id, Phase.EXECUTING)
    assert (await waiting).phase == Phase.EXECUTING


async def test_a_slow_reader_sees_the_latest_of_each_job(bench, ask):
    manager = await bench.open()
    async with manager.subscribe(lambda job: True) as changes:
        jobs = [await manager.submit(ask()) for _ in range(2)]
        await bench.settle()
        for job in jobs:
            for done in range(50):
                bench.backend.say(job.id, Phase.EXECUTING, progress=Progress(done, 0, 50))
            await end(bench, job)
        seen = []
        async for job in changes:
            seen.append(job)
            if len(seen) == 2:
                break
    assert [(job.id, job.phase) for job in seen] == [(job.id, Phase.COMPLETED) for job in jobs]


async def test_progress_and_information_are_kept(bench, ask):
    manager = await bench.open()
    job = await manager.submit(ask())
    await bench.settle()
    bench.backend.report(job.id, BackendUpdate(info={"a": 1}, progress=Progress(1, 2, 3)))
    bench.backend.report(job.id, BackendUpdate(info={"b": 2}))
    job = await end(bench, job)
    assert job.info == {"a": 1, "b": 2}
    assert job.progress == Progress(1, 2, 3)


# The end of a job's stay


async def test_files_go_at_the_destruction_time_and_the_record_stays(bench, ask):
    manager = await bench.open(retention=0.2)
    job = await manager.submit(ask())
    await bench.settle()
    manager.workspaces.of(job.id).create()
    await end(bench, job, Phase.ERROR)
    found = await until_job(manager, job.id, lambda job: job.phase == Phase.ARCHIVED)
    assert (found.phase, found.final_phase) == (Phase.ARCHIVED, Phase.ERROR)
    await until(lambda: not manager.workspaces.of(job.id).root.exists())


async def test_no_more_ended_jobs_are_kept_than_configured(bench, ask):
    manager = await bench.open(keep_jobs=2)
    for _ in range(5):
        job = await manager.submit(ask())
        await bench.settle()
        await end(bench, job)
    manager = await bench.reopen(keep_jobs=2)

    async def kept() -> int:
        return len(await manager.find(JobQuery()))

    async def no_more_than_two() -> bool:
        return await kept() <= 2

    await until(no_more_than_two)
    assert await kept() == 2


async def test_deleting_a_running_job_stops_it_and_forgets_it(bench, ask):
    manager = await bench.open()
    job = await manager.submit(ask())
    await bench.settle()
    manager.workspaces.of(job.id).create()
    await manager.destroy(job.id)
    assert bench.backend.cancelled == [job.id]
    assert not manager.workspaces.of(job.id).root.exists()
    with pytest.raises(UnknownJobError):
        await manager.get(job.id)


async def test_a_deleted_result_still_goes_out(bench, ask):
    manager = await bench.open()
    job = await manager.submit(ask(origin="sal", keep_until_published=True))
    await bench.settle()
    await manager.destroy(job.id)
    with pytest.raises(UnknownJobError):
        await manager.get(job.id)
    (left,) = await manager.unpublished("sal")
    assert (left.id, left.final_phase) == (job.id, Phase.ABORTED)
    await manager.mark_published(job.id)
    assert await manager.unpublished("sal") == []


# After a restart


async def test_after_a_restart_what_was_given_is_taken_up_and_what_waited_waits(bench, ask):
    manager = await bench.open(max_workers=1)
    first, second = await manager.submit(ask()), await manager.submit(ask())
    held = await manager.submit(ask())
    await manager.hold(held.id)
    third = await manager.submit(ask(prerequisites=(second.id,)))
    await bench.settle()
    manager = await bench.reopen(max_workers=1)
    assert bench.backend.reattached == [first.id]
    assert bench.backend.given == []
    await end(bench, first)
    await bench.given(1)
    await end(bench, second)
    await bench.given(2)
    assert bench.backend.given == [second.id, third.id]
    assert (await manager.get(held.id)).phase == Phase.HELD


async def test_after_a_restart_a_job_that_was_to_stop_is_stopped(bench, ask):
    manager = await bench.open()
    bench.backend.confirms = False
    job = await manager.submit(ask())
    await bench.settle()
    aborting = asyncio.create_task(manager.abort(job.id, "because"))
    await until_job(manager, job.id, lambda job: bool(job.abort_reason))
    aborting.cancel()
    manager = await bench.reopen()
    job = await manager.wait(job.id, TIMEOUT)
    assert (job.phase, job.message) == (Phase.ABORTED, "because")


async def test_after_a_restart_a_deadline_still_holds(bench, ask):
    manager = await bench.open()
    job = await manager.submit(ask(execution_duration=1))
    await bench.settle()
    bench.backend.say(job.id, Phase.EXECUTING)
    await manager.wait(job.id, TIMEOUT, [Phase.QUEUED])
    manager = await bench.reopen()
    job = await manager.wait(job.id, TIMEOUT)
    assert "its limit of 1 s" in job.error.message


async def test_ends_that_have_not_gone_out_are_found_again(bench, ask):
    manager = await bench.open()
    jobs = [await manager.submit(ask(origin=origin)) for origin in ("sal", "sal", "http")]
    await bench.settle()
    for job in jobs:
        await end(bench, job)
    await manager.mark_published(jobs[0].id)
    manager = await bench.reopen()
    assert [job.id for job in await manager.unpublished("sal")] == [jobs[1].id]


async def test_one_work_directory_serves_one_process(bench):
    manager = await bench.open()
    from lsst.dm.OCPS.jobs.workspace import Workspaces

    with pytest.raises(StoreError, match="in use by another OCPS"):
        Workspaces(manager.workspaces.work_dir).open()
