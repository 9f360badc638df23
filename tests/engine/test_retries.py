# SPDX-License-Identifier: GPL-3.0-or-later
"""A job that failed for a transient cause is run again; any other stays as it ended."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from lsst.dm.OCPS.jobs.errors import TransitionError
from lsst.dm.OCPS.jobs.model import ErrorSummary, ExecutionPhase, Result
from lsst.dm.OCPS.jobs.retries import RetryPolicy, transient_cause

from tests.waiting import TIMEOUT, until, until_job

Phase = ExecutionPhase
KILLED = ErrorSummary("it was killed", transient=True)
LOG = Result("ocps.log", "file:///somewhere/ocps.log", 3, "text/plain")
SOON = RetryPolicy(max=2, delay=0, exit_codes=(75,), log_texts={"locked": "database is locked"})
LATER = RetryPolicy(max=2, delay=3600)


async def fail(bench, job, error=KILLED, exit_code=1, **seen):
    """Let a running attempt fail; return the job as it is then."""
    bench.backend.say(job.id, Phase.EXECUTING)
    await until_job(bench.manager, job.id, lambda job: job.phase == Phase.EXECUTING)
    before = await bench.manager.get(job.id)
    bench.backend.say(job.id, Phase.ERROR, error=error, exit_code=exit_code, **seen)
    return await until_job(bench.manager, job.id, lambda job: job.terminal or job.attempt != before.attempt)


@pytest.mark.parametrize(
    ("error", "exit_code", "cause"),
    [
        (KILLED, None, "marked as transient by the backend"),
        (ErrorSummary("it ended with exit code 75"), 75, "exit code 75"),
        (ErrorSummary("pipetask failed", detail="a\nOperationalError: database is locked\n"), 1, "locked"),
    ],
)
async def test_a_transient_failure_is_run_again_and_each_attempt_is_kept(bench, ask, error, exit_code, cause):
    manager = await bench.open(retries=SOON)
    job = await manager.submit(ask())
    await bench.given(1)
    again = await fail(bench, job, error, exit_code, results=(LOG, Result("half.txt", "file:///half")))
    assert (again.attempt, again.exit_code, again.error, again.start_time) == (2, None, None, None)
    assert again.message.startswith("attempt 2 of 3 from ")
    assert again.message.endswith(error.message)
    await bench.given(2)
    bench.backend.say(job.id, Phase.EXECUTING)
    bench.backend.say(job.id, Phase.COMPLETED, exit_code=0, results=(LOG,))
    ended = await manager.wait(job.id, TIMEOUT)
    assert (ended.phase, ended.exit_code, ended.attempt) == (Phase.COMPLETED, 0, 2)
    (former,) = ended.attempts
    assert (former.number, former.reason, former.cause) == (1, error.message, cause)
    assert former.exit_code == exit_code
    assert former.start_time <= former.end_time <= ended.start_time
    assert [result.id for result in ended.results] == ["ocps.log", "attempt-1-log.txt"]
    # What is stored is what was shown.
    assert await manager.store.get(job.id) == ended


async def test_a_failure_of_the_user_is_not_run_again(bench, ask):
    manager = await bench.open(retries=SOON)
    job = await manager.submit(ask())
    await bench.given(1)
    ended = await fail(bench, job, ErrorSummary("no data matched"), 1)
    assert (ended.phase, ended.attempt, ended.attempts) == (Phase.ERROR, 1, ())


async def test_a_job_is_run_again_no_more_often_than_its_definition_says(bench, ask):
    manager = await bench.open(retries=SOON)
    job = await manager.submit(ask())
    for number in (1, 2, 3):
        await bench.given(number)
        job = await fail(bench, job)
    assert (job.phase, job.attempt) == (Phase.ERROR, 3)
    assert [attempt.number for attempt in job.attempts] == [1, 2]
    assert bench.backend.given == [job.id] * 3


async def test_what_is_stopped_is_not_run_again(bench, ask):
    manager = await bench.open(retries=SOON, abort_grace=TIMEOUT)
    bench.backend.confirms = False
    job = await manager.submit(ask(execution_duration=1))
    await bench.given(1)
    bench.backend.say(job.id, Phase.EXECUTING)
    await until(lambda: bench.backend.cancelled)
    # Killed as it was to be, and reported as if by somebody else.
    bench.backend.say(job.id, Phase.ERROR, error=KILLED, outcome_lost=True)
    ended = await manager.wait(job.id, TIMEOUT)
    assert (ended.phase, ended.attempt) == (Phase.ERROR, 1)
    assert "ran longer than its limit of 1 s" in ended.error.message


async def test_a_job_that_was_lost_is_not_run_again_as_it_may_still_run(bench, ask):
    manager = await bench.open(retries=SOON, unknown_grace=0.01)
    job = await manager.submit(ask())
    await bench.given(1)
    bench.backend.say(job.id, Phase.UNKNOWN, message="no answer")
    ended = await manager.wait(job.id, TIMEOUT)
    assert (ended.phase, ended.attempt) == (Phase.ERROR, 1)


async def test_a_job_of_which_something_may_still_run_is_not_run_again_whatever_its_log_says(bench, ask):
    manager = await bench.open(retries=SOON)
    job = await manager.submit(ask())
    await bench.given(1)
    error = ErrorSummary("its supervisor was killed", transient=True, detail="database is locked")
    ended = await fail(bench, job, error, 75, may_still_run=True)
    assert (ended.phase, ended.attempt) == (Phase.ERROR, 1)


async def test_a_deadline_that_passed_while_its_attempt_failed_does_not_stop_the_next_one(bench, ask):
    manager = await bench.open(retries=LATER)
    job = await manager.submit(ask(execution_duration=3600))
    await bench.given(1)
    again = await fail(bench, job)
    # The timer had expired before the failure was stored.
    await manager.scheduler._deadline(job.id, attempt=1)
    assert await manager.get(job.id) == again
    assert bench.backend.cancelled == []


async def test_while_a_job_waits_for_its_next_attempt_others_run(bench, ask):
    manager = await bench.open(retries=LATER, max_workers=1)
    job, other = await manager.submit(ask()), await manager.submit(ask())
    await bench.given(1)
    await fail(bench, job)
    assert await bench.given(2) == [job.id, other.id]
    bench.backend.say(other.id, Phase.COMPLETED)
    await manager.wait(other.id, TIMEOUT)
    assert bench.backend.given == [job.id, other.id]
    assert (await manager.get(job.id)).waiting


async def test_a_job_that_waits_for_its_next_attempt_can_be_stopped_held_and_run_at_once(bench, ask):
    manager = await bench.open(retries=LATER)
    first, second = await manager.submit(ask()), await manager.submit(ask())
    await bench.given(2)
    await fail(bench, first)
    await fail(bench, second)
    ended = await manager.abort(first.id)
    assert (ended.phase, ended.attempt) == (Phase.ABORTED, 2)
    await manager.hold(second.id)
    await manager.run(second.id)
    assert await bench.given(3) == [first.id, second.id, second.id]
    with pytest.raises(TransitionError):
        await manager.hold(second.id)


async def test_a_restart_neither_loses_an_attempt_nor_makes_one(bench, ask):
    manager = await bench.open(retries=LATER)
    job = await manager.submit(ask())
    await bench.given(1)
    before = await fail(bench, job)
    manager = await bench.reopen(retries=LATER)
    assert await manager.get(job.id) == before
    assert (bench.backend.given, bench.backend.reattached) == ([], [])
    await manager.hold(job.id)
    await manager.run(job.id)
    await bench.given(1)
    manager = await bench.reopen(retries=LATER)
    assert (bench.backend.given, bench.backend.reattached) == ([], [job.id])
    assert (await manager.get(job.id)).attempt == 2


async def test_what_comes_late_of_a_former_attempt_changes_nothing(bench, ask):
    manager = await bench.open(retries=LATER)
    job = await manager.submit(ask())
    await bench.given(1)
    again = await fail(bench, job)
    bench.backend.say(job.id, Phase.COMPLETED, exit_code=0)
    bench.backend.say(job.id, Phase.ERROR, error=KILLED)
    other = await manager.submit(ask())
    bench.backend.say(other.id, Phase.COMPLETED)
    await manager.wait(other.id, TIMEOUT)
    assert await manager.get(job.id) == again


@given(st.integers(1, 1000), st.floats(0, 86400), st.floats(1, 10), st.floats(0, 86400))
def test_the_wait_grows_and_is_bounded(attempt, delay, factor, longest):
    policy = RetryPolicy(max=20, delay=delay, factor=factor, max_delay=longest)
    wait = policy.wait(attempt).total_seconds()
    assert 0 <= wait <= longest + 1e-6
    assert wait <= policy.wait(attempt + 1).total_seconds()


@given(st.text(), st.integers(-64, 255))
def test_without_a_named_cause_nothing_is_transient(text, code):
    assert transient_cause(RetryPolicy(max=1), transient=False, exit_code=code, texts=(text,)) == ""
