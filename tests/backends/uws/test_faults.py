# SPDX-License-Identifier: GPL-3.0-or-later
"""A UWS server that is not well: no job is lost, none runs twice, none ends as what it was not."""

from __future__ import annotations

import contextlib
import json
import logging
import re
from typing import Any

import pytest
from lsst.dm.OCPS.jobs.errors import TransitionError
from lsst.dm.OCPS.jobs.limits import Limits
from lsst.dm.OCPS.jobs.model import ExecutionPhase, Job

from tests.backends.uws.conftest import SHORT, Engine, MakeEngine
from tests.backends.uws.standin import AFTER, StandIn

COMPLETED = ExecutionPhase.COMPLETED

NOT_SENT = ("500", "drop", "hang", "garbage", "html", "wrong", "redirect", "404", "503", "429")


async def finish(engine: Engine, standin: StandIn, job: Job) -> Job:
    """Let a job complete and return it."""
    await engine.phase(job, "executing")
    standin.end(job.id)
    job = await engine.end(job)
    assert job.phase == COMPLETED
    assert job.results
    return job


# While jobs are in flight


@pytest.mark.parametrize(
    "kind", ["500", "drop", "hang", "garbage", "html", "wrong", "redirect", "401", "503"]
)
async def test_job_in_flight_outlives_bad_answers(engine: Engine, standin: StandIn, kind: str) -> None:
    job = await engine.submit()
    await engine.phase(job, "executing")
    fault = engine.fault(kind, "GET", times=-1)
    job = await engine.phase(job, "unknown")
    assert standin.url in job.message
    fault.times = 0
    await finish(engine, standin, job)


@pytest.mark.parametrize("kind", ["500", "drop", "hang", "garbage", "wrong"])
async def test_many_jobs_outlive_bad_lists(engine: Engine, standin: StandIn, kind: str) -> None:
    jobs = [await engine.submit() for _ in range(12)]
    for job in jobs:
        await engine.phase(job, "executing")
    fault = engine.fault(kind, "GET", times=-1)
    for job in jobs:
        await engine.phase(job, "unknown")
    fault.times = 0
    for job in jobs:
        await finish(engine, standin, job)


async def test_where_the_list_alone_fails_jobs_are_asked_for_one_by_one(
    engine: Engine, standin: StandIn
) -> None:
    jobs = [await engine.submit() for _ in range(12)]
    for job in jobs:
        await engine.phase(job, "executing")
    engine.fault("500", "GET", times=-1, path="/job")
    for job in jobs:
        standin.end(job.id)
    for job in jobs:
        assert (await engine.end(job)).phase == COMPLETED


async def test_phase_that_the_server_will_not_list_harms_nobody(engine: Engine, standin: StandIn) -> None:
    jobs = [await engine.submit() for _ in range(12)]
    for job in jobs:
        await engine.phase(job, "executing")
        standin.of(job.id)[0].phase = "brand-new"
    for job in jobs:
        assert "brand-new" in (await engine.phase(job, "unknown")).message
    for job in jobs:
        standin.end(job.id)
        assert (await engine.end(job)).phase == COMPLETED


async def test_one_job_that_cannot_be_read_does_not_hold_up_the_others(
    engine: Engine, standin: StandIn
) -> None:
    first, second = await engine.submit(), await engine.submit()
    first = await engine.phase(first, "executing")
    await engine.phase(second, "executing")
    fault = engine.fault("500", "GET", times=-1, path=f"/{first.handle}")
    await engine.phase(first, "unknown")
    await finish(engine, standin, second)
    fault.times = 0
    await finish(engine, standin, first)


async def test_server_restarts_while_jobs_are_in_flight(engine: Engine, standin: StandIn) -> None:
    jobs = [await engine.submit() for _ in range(10)]
    for job in jobs:
        await engine.phase(job, "executing")
    await standin.stop()
    for job in jobs:
        # Some hear that the connection breaks, the others that none can be made.
        message = (await engine.phase(job, "unknown")).message
        assert re.search("cannot be reached|connection was lost", message)
    assert engine.backend.unreachable_since is not None
    # Some end while nobody can see it.
    standin.end(jobs[0].id)
    standin.end(jobs[1].id, "error", message="out of memory")
    await standin.start()
    assert (await engine.end(jobs[0])).phase == COMPLETED
    assert (await engine.end(jobs[1])).phase == ExecutionPhase.ERROR
    for job in jobs[2:]:
        await finish(engine, standin, job)
    assert engine.backend.unreachable_since is None


async def test_forgotten_job_is_unknown_then_failed(make_engine: MakeEngine, standin: StandIn) -> None:
    engine = await make_engine(unknown_grace=0.5)
    job = await engine.submit()
    await engine.phase(job, "executing")
    forgotten = standin.jobs.pop(standin.of(job.id)[0].id)
    job = await engine.phase(job, "unknown")
    assert "does not know" in job.message
    assert forgotten.id in job.message
    job = await engine.end(job)
    assert job.phase == ExecutionPhase.ERROR
    assert job.error is not None
    assert job.error.transient
    assert "does not know" in job.error.message


async def test_forgotten_job_that_is_known_again_goes_on(engine: Engine, standin: StandIn) -> None:
    job = await engine.submit()
    await engine.phase(job, "executing")
    back = standin.jobs.pop(standin.of(job.id)[0].id)
    await engine.phase(job, "unknown")
    standin.jobs[back.id] = back
    await finish(engine, standin, job)


@pytest.mark.parametrize(
    "changes",
    [
        {"files": ["http://[", "a\x00b", "/x/../../etc/passwd", "\x1b[2J"]},
        {"info": {"exitCode": "²", "metrics": [float("nan")], "logTail": "\ud800\x1b[2J"}},
        {"info": {"progress": {"done": "x"}, "exitCode": 10**30}},
        {"message": "\x1b[2Jtrouble"},
    ],
)
async def test_job_ends_whatever_its_document_holds(
    engine: Engine, standin: StandIn, changes: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, logger="ocps.test")
    job = await engine.submit()
    await engine.phase(job, "executing")
    standin.end(job.id, "error", **changes)
    job = await engine.end(job)
    assert job.phase == ExecutionPhase.ERROR
    assert job.error is not None
    assert "\x1b" not in caplog.text + job.error.message + json.dumps(dict(job.info), allow_nan=False)
    assert all(result.id.isprintable() and result.uri.isprintable() for result in job.results)


@pytest.mark.parametrize(
    "body",
    [b"[" * 100_000, b'{"jobId": "../x", "phase": "executing"}', b'{"jobId": "x", "phase": "a\\u001b"}'],
)
async def test_job_outlives_documents_that_make_no_sense(
    engine: Engine, standin: StandIn, body: bytes
) -> None:
    job = await engine.submit()
    await engine.phase(job, "executing")
    standin.body = body
    job = await engine.phase(job, "unknown")
    assert job.message.isprintable()
    standin.body = b""
    await finish(engine, standin, job)


async def test_another_jobs_document_is_not_believed(engine: Engine, standin: StandIn) -> None:
    job = await engine.submit()
    await engine.phase(job, "executing")
    (kept,) = standin.of(job.id)
    kept.run_id, kept.phase = "somebody-elses", "completed"
    job = await engine.phase(job, "unknown")
    assert "somebody-elses" in job.message


# While a job is submitted


@pytest.mark.parametrize("kind", NOT_SENT)
async def test_submission_outlives_bad_answers(engine: Engine, standin: StandIn, kind: str) -> None:
    fault = engine.fault(kind, "PUT", times=-1)
    job = await engine.submit()
    job = await engine.phase(job, "unknown")
    assert "not submitted yet" in job.message
    fault.times = 0
    job = await finish(engine, standin, job)
    assert len(standin.of(job.id)) == 1


@pytest.mark.parametrize("kind", AFTER)
async def test_creation_whose_answer_was_lost_is_found_not_repeated(
    engine: Engine, standin: StandIn, kind: str
) -> None:
    engine.fault(kind, "PUT", times=1)
    job = await engine.submit()
    job = await finish(engine, standin, job)
    assert standin.counts["PUT"] == 1
    assert job.handle == standin.of(job.id)[0].id


async def test_server_away_while_jobs_are_submitted(engine: Engine, standin: StandIn) -> None:
    await standin.stop()
    jobs = [await engine.submit() for _ in range(30)]
    for job in jobs:
        job = await engine.phase(job, "unknown")
        assert "not submitted yet" in job.message
        assert "cannot be reached" in job.message
    await standin.start()
    for job in jobs:
        await finish(engine, standin, job)
    assert standin.counts["PUT"] == 30


async def test_submission_does_not_wait_for_the_server(engine: Engine, standin: StandIn) -> None:
    engine.fault("hang", "PUT", times=-1)
    job = await engine.submit()
    assert job.phase == ExecutionPhase.QUEUED


async def test_job_that_the_server_refuses_fails_with_its_reason(engine: Engine, standin: StandIn) -> None:
    engine.fault("400", "PUT")
    job = await engine.end(await engine.submit())
    assert job.phase == ExecutionPhase.ERROR
    assert job.error is not None
    assert "the server is not well" in job.error.message


async def test_second_creation_is_stopped_and_reported(
    engine: Engine, standin: StandIn, caplog: pytest.LogCaptureFixture
) -> None:
    # The first creation comes to light only after the second was made.
    engine.fault("drop after", "PUT")
    hidden = engine.fault("503", "GET", times=1)
    job = await engine.submit()
    await standin.until(lambda: not hidden.times)
    (first,) = standin.of(job.id)
    del standin.jobs[first.id]
    await standin.until(lambda: standin.counts["PUT"] == 2)
    standin.jobs[first.id] = first
    job = await engine.phase(job, "executing")
    second = next(kept for kept in standin.jobs.values() if kept.id != first.id)
    assert job.handle == second.id
    await standin.until(lambda: first.id not in standin.jobs)
    standin.end(job.id)
    job = await engine.end(job)
    assert job.phase == COMPLETED
    assert job.info["duplicates"] == [first.id]
    assert any(first.id in record.message for record in caplog.records if record.levelno >= logging.WARNING)


async def test_second_job_seen_in_a_list_is_stopped(engine: Engine, standin: StandIn) -> None:
    jobs = [await engine.submit() for _ in range(10)]
    for job in jobs:
        await engine.phase(job, "executing")
    (kept,) = standin.of(jobs[0].id)
    twin = type(kept)("twin", kept.run_id, kept.body, kept.created)
    standin.jobs["twin"] = twin
    await standin.until(lambda: "twin" not in standin.jobs)
    assert kept.id in standin.jobs


async def test_given_up_job_is_not_submitted_later(make_engine: MakeEngine, standin: StandIn) -> None:
    await standin.stop()
    engine = await make_engine(unknown_grace=0.3)
    job = await engine.end(await engine.submit())
    assert job.phase == ExecutionPhase.ERROR
    await standin.start()
    # Something that is submitted afterwards shows that the link is up.
    other = await engine.submit()
    await finish(engine, standin, other)
    assert not standin.of(job.id)


# Aborting


async def test_abort_stops_the_job_and_keeps_what_the_server_had(engine: Engine, standin: StandIn) -> None:
    job = await engine.submit()
    await engine.phase(job, "executing")
    (kept,) = standin.of(job.id)
    job = await engine.manager.abort(job.id, "enough")
    assert (job.phase, job.message) == (ExecutionPhase.ABORTED, "enough")
    assert kept.id not in standin.jobs
    assert job.info["lastDocument"]["jobId"] == kept.id


async def test_abort_while_the_server_is_away_comes_to_nothing_at_the_server(
    engine: Engine, standin: StandIn
) -> None:
    await standin.stop()
    job = await engine.submit()
    await engine.phase(job, "unknown")
    job = await engine.manager.abort(job.id)
    assert job.phase == ExecutionPhase.ABORTED
    assert "did not confirm" not in job.message
    await standin.start()
    await finish(engine, standin, await engine.submit())
    assert not standin.of(job.id)


async def test_abort_while_the_submission_is_under_way(engine: Engine, standin: StandIn) -> None:
    standin.delay = 0.2
    job = await engine.submit()
    await standin.asked("PUT", 0 if standin.counts["PUT"] else 1)
    job = await engine.manager.abort(job.id)
    assert job.phase == ExecutionPhase.ABORTED
    assert not standin.of(job.id)


async def test_abort_after_a_doubtful_submission_looks_for_the_job(
    make_engine: MakeEngine, standin: StandIn
) -> None:
    engine = await make_engine(uws=SHORT)
    engine.fault("hang after", "PUT")
    job = await engine.submit()
    await standin.until(lambda: standin.of(job.id))
    job = await engine.manager.abort(job.id)
    assert job.phase == ExecutionPhase.ABORTED
    assert not standin.of(job.id)


async def test_unconfirmed_abort_says_so_and_goes_on_trying(
    make_engine: MakeEngine, standin: StandIn
) -> None:
    engine = await make_engine(abort_grace=0.3)
    job = await engine.submit()
    await engine.phase(job, "executing")
    fault = engine.fault("500", "DELETE", times=-1)
    job = await engine.manager.abort(job.id)
    assert job.phase == ExecutionPhase.ABORTED
    assert "did not confirm" in job.message
    assert standin.of(job.id)
    fault.times = 0
    await standin.until(lambda: not standin.of(job.id))


async def test_completion_wins_over_abort(engine: Engine, standin: StandIn) -> None:
    job = await engine.submit()
    await engine.phase(job, "executing")
    fault = engine.fault("500", "GET", times=-1)
    await engine.phase(job, "unknown")
    standin.end(job.id)
    fault.times = 0
    with contextlib.suppress(TransitionError):
        # "already completed", unless it ended before the wish was stored.
        await engine.manager.abort(job.id)
    job = await engine.end(job)
    assert job.phase == COMPLETED
    assert job.results


async def test_deadline_stops_the_job_at_the_server(make_engine: MakeEngine, standin: StandIn) -> None:
    engine = await make_engine(execution_duration=1)
    assert isinstance(engine.manager.lane.limits, Limits)
    job = await engine.end(await engine.submit())
    assert job.phase == ExecutionPhase.ERROR
    assert not standin.of(job.id)


# Slowness


async def test_slow_server_loses_nothing(make_engine: MakeEngine, standin: StandIn) -> None:
    engine = await make_engine()
    standin.delay, standin.duration = 0.3, 0.5
    jobs = [await engine.submit() for _ in range(12)]
    for job in jobs:
        assert (await engine.end(job)).phase == COMPLETED
    assert standin.counts["PUT"] == 12
