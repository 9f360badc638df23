# SPDX-License-Identifier: GPL-3.0-or-later
"""Each transition by itself: what it makes of every record, against the table of phases."""

from __future__ import annotations

import dataclasses
import itertools
from datetime import UTC, datetime, timedelta
from functools import partial

import pytest
from hypothesis import given
from hypothesis import strategies as st
from lsst.dm.OCPS.jobs import rules
from lsst.dm.OCPS.jobs.backend import BackendUpdate
from lsst.dm.OCPS.jobs.errors import TransitionError
from lsst.dm.OCPS.jobs.model import (
    LIVE,
    TERMINAL,
    TRANSITIONS,
    ErrorSummary,
    ExecutionPhase,
    Job,
    JobRequest,
    Progress,
    Result,
)
from lsst.dm.OCPS.jobs.retries import RetryPolicy

from tests.engine.conftest import AnySpec

Phase = ExecutionPhase
CREATED = datetime(2026, 11, 20, 3, tzinfo=UTC)
AT = CREATED + timedelta(seconds=10)
SPEC = AnySpec(values={})
WAITING = {Phase.PENDING, Phase.HELD, Phase.QUEUED}
ENDED = TERMINAL - {Phase.ARCHIVED}


def job(phase: ExecutionPhase, **fields) -> Job:
    """Return a record in a phase, as the engine would have it."""
    dispatched = phase not in WAITING
    final = phase if phase in TERMINAL else None
    common = {"dispatched": dispatched, "final_phase": final, "execution_duration": 60}
    spec = None if phase == Phase.PENDING else SPEC
    return Job("a", "any", phase, {"x": "1"}, spec, "test", CREATED, CREATED, **(common | fields))


JOBS = {(phase, False): job(phase) for phase in Phase} | {
    (Phase.QUEUED, True): job(Phase.QUEUED, dispatched=True)
}
"""One record of each phase; a queued one both before and after it was passed to the backend."""

RETRIES = RetryPolicy(1, exit_codes=(75,))

RULES = {
    "queued": lambda old: partial(rules.queued, before=old, spec=SPEC, backend="test", message="m"),
    "held": lambda _: rules.held,
    "waiting_for": lambda _: partial(rules.waiting_for, message="waiting for b"),
    "modified": lambda _: partial(rules.modified, changes={"destruction": AT}),
    "dispatched": lambda _: rules.dispatched,
    "progressed": lambda _: partial(rules.progressed, update=BackendUpdate(message="step 1")),
    "failed": lambda _: partial(rules.failed, error=ErrorSummary("e")),
    "abort_requested": lambda _: partial(rules.abort_requested, reason="r"),
    "deadline_passed": lambda old: partial(rules.deadline_passed, attempt=old.attempt),
    "stopped": lambda _: rules.stopped,
    "lost": lambda _: partial(rules.lost, grace=1.0),
    "published": lambda _: rules.published,
    "archived": lambda _: rules.archived,
    "deleted": lambda _: rules.deleted,
}

EXPECTED = {
    "queued": {Phase.PENDING: Phase.QUEUED, Phase.HELD: Phase.QUEUED},
    "held": {Phase.PENDING: Phase.HELD, Phase.QUEUED: Phase.HELD},
    "failed": dict.fromkeys(LIVE, Phase.ERROR),
    "abort_requested": dict.fromkeys(WAITING, Phase.ABORTED),
    "stopped": dict.fromkeys(LIVE, Phase.ABORTED),
    "lost": {Phase.UNKNOWN: Phase.ERROR},
    "archived": dict.fromkeys(ENDED, Phase.ARCHIVED),
    "deleted": dict.fromkeys(ENDED, Phase.ARCHIVED),
}
"""The phases that each rule enters, by the phase before; from others it enters none."""


def phase_after(old: Job, rule: rules.Rule) -> ExecutionPhase | None:
    """Return the phase that a rule enters; `None` if it refuses or changes no phase."""
    try:
        new = rule(old, AT)
    except TransitionError:
        return None
    return None if new is None or new.phase == old.phase else new.phase


def test_every_rule_is_held_against_the_table():
    # These two have tables of their own below, and `created` has no record before it.
    apart = {"seen", "retried", "created"}
    helpers = {"Rule", "check_runnable"}
    assert {*RULES} | apart | helpers == {*rules.__all__}


@pytest.mark.parametrize("name", RULES)
@pytest.mark.parametrize("phase", Phase)
def test_a_rule_enters_the_phase_that_it_is_for_and_no_other(name, phase):
    old = JOBS[phase, False]
    assert phase_after(old, RULES[name](old)) == EXPECTED.get(name, {}).get(phase)


@pytest.mark.parametrize("name", RULES)
@pytest.mark.parametrize("old", JOBS.values(), ids=lambda old: f"{old.phase}-{old.dispatched}")
def test_what_a_rule_returns_keeps_to_the_table(name, old):
    try:
        new = RULES[name](old)(old, AT)
    except TransitionError:
        return
    if new is not None:
        assert new.phase == old.phase or new.phase in TRANSITIONS[old.phase]
        assert new.phase_time == (old.phase_time if new.phase == old.phase else AT)
        # What a job is stays as it was.
        for field in ("id", "definition", "creation_time", "owner", "origin", "backend", "sequence"):
            assert getattr(new, field) == getattr(old, field)


@pytest.mark.parametrize("phase", sorted(WAITING))
def test_a_job_that_was_not_started_is_aborted_at_once(phase):
    new = rules.abort_requested(job(phase), AT, reason="enough")
    assert (new.phase, new.final_phase, new.message) == (Phase.ABORTED, Phase.ABORTED, "enough")
    assert new.end_time == AT


@pytest.mark.parametrize("phase", sorted(LIVE - WAITING))
def test_the_wish_to_abort_a_started_job_is_recorded_once(phase):
    new = rules.abort_requested(job(phase), AT, reason="enough")
    assert (new.phase, new.abort_reason, new.message) == (phase, "enough", "stopping: enough")
    assert rules.abort_requested(new, AT, reason="again") is None


@pytest.mark.parametrize("phase", sorted(TERMINAL))
def test_an_ended_job_cannot_be_aborted(phase):
    with pytest.raises(TransitionError, match=f"Job a already {phase.lower()}"):
        rules.abort_requested(job(phase), AT, reason="r")


def test_a_job_that_was_passed_to_the_backend_cannot_be_held():
    with pytest.raises(TransitionError, match="has been started already"):
        rules.held(JOBS[Phase.QUEUED, True], AT)


def test_a_job_is_dispatched_once_and_only_while_it_waits():
    new = rules.dispatched(job(Phase.QUEUED, message="waiting for b"), AT)
    assert (new.phase, new.dispatched, new.message) == (Phase.QUEUED, True, "")
    assert rules.dispatched(new, AT) is None
    for phase in set(Phase) - {Phase.QUEUED}:
        assert rules.dispatched(job(phase), AT) is None


def test_a_job_that_changed_since_its_spec_was_made_is_not_queued():
    before = job(Phase.PENDING)
    rule = partial(rules.queued, before=before, spec=SPEC, backend="b", message="")
    assert rule(before, AT).phase == Phase.QUEUED
    for now in (dataclasses.replace(before, parameters={"x": "2"}), job(Phase.HELD)):
        with pytest.raises(TransitionError, match="changed by another request"):
            rule(now, AT)


def test_the_first_record_is_queued_with_a_spec_and_pending_without():
    request = JobRequest("any", {"x": "1"}, owner="alice", keep_until_published=True, reserved=True)
    facts = {"job_id": "a", "backend": "test", "execution_duration": 5, "destruction": AT}
    queued = rules.created(request, CREATED, spec=SPEC, message="m", **facts)
    pending = rules.created(request, CREATED, spec=None, **facts)
    assert (queued.phase, pending.phase) == (Phase.QUEUED, Phase.PENDING)
    assert (queued.owner, queued.keep_until_published, queued.reserved) == ("alice", True, True)
    assert queued.waiting
    assert not pending.waiting


@pytest.mark.parametrize("phase", Phase)
def test_a_deadline_is_recorded_for_a_running_job_that_is_not_being_stopped(phase):
    new = rules.deadline_passed(job(phase), AT, attempt=1)
    if phase in TERMINAL:
        assert new is None
    else:
        assert (new.phase, new.deadline_passed) == (phase, True)
        assert rules.deadline_passed(new, AT, attempt=1) is None
        assert rules.deadline_passed(job(phase, abort_reason="r"), AT, attempt=1) is None
        assert rules.deadline_passed(job(phase, attempt=2), AT, attempt=1) is None


def test_a_job_that_is_stopped_for_its_deadline_ends_as_error():
    new = rules.stopped(job(Phase.EXECUTING, deadline_passed=True), AT, doubt="not confirmed")
    assert new.phase == Phase.ERROR
    assert new.error.message == "ran longer than its limit of 60 s and was stopped (not confirmed)"


def test_a_stopped_job_says_why_and_what_is_in_doubt():
    aborted = job(Phase.EXECUTING, abort_reason="enough")
    assert rules.stopped(aborted, AT).message == "enough"
    assert rules.stopped(aborted, AT, doubt="not confirmed").message == "enough (not confirmed)"
    assert rules.stopped(job(Phase.EXECUTING), AT).message == "stopped by something other than OCPS"


def test_a_deleted_job_is_archived_and_has_no_results():
    result = (Result("x", "file:///x"),)
    for phase in TERMINAL:
        new = rules.deleted(job(phase, results=result), AT)
        assert (new.phase, new.deleted, new.results) == (Phase.ARCHIVED, True, ())
    assert rules.deleted(new, AT) is None
    with pytest.raises(TransitionError):
        rules.deleted(job(Phase.EXECUTING), AT)


def test_what_an_owner_may_change_depends_on_the_phase():
    pending = job(Phase.PENDING)
    checked = []
    changes = {"parameters": {"y": "2"}, "run_id": "r"}
    new = rules.modified(pending, AT, changes=changes, check=checked.append)
    assert (new.parameters, new.run_id) == ({"x": "1", "y": "2"}, "r")
    assert checked == [{"x": "1", "y": "2"}]
    for phase in set(Phase) - {Phase.PENDING}:
        with pytest.raises(TransitionError, match="while PENDING only"):
            rules.modified(job(phase), AT, changes={"run_id": "r"})
    for phase in TERMINAL:
        with pytest.raises(TransitionError, match="has ended"):
            rules.modified(job(phase), AT, changes={"execution_duration": 1})


# What a backend saw


@pytest.mark.parametrize(("old", "new"), list(itertools.product(Phase, Phase)))
def test_a_report_changes_the_phase_where_the_table_allows_it(old, new):
    found = rules.seen(job(old), AT, update=BackendUpdate(phase=new))
    if old in TERMINAL:
        assert found is None
    elif new in TRANSITIONS[old] and new != Phase.HELD:
        assert found.phase == new
    else:
        assert found is None


updates = st.builds(
    BackendUpdate,
    phase=st.none() | st.sampled_from(list(Phase)),
    message=st.none() | st.text(max_size=5),
    exit_code=st.none() | st.integers(-15, 255),
    progress=st.none() | st.builds(Progress, st.integers(0, 9), st.integers(0, 9), st.integers(0, 9)),
    error=st.none() | st.builds(ErrorSummary, st.text(max_size=5)),
    info=st.none() | st.dictionaries(st.text(max_size=3), st.integers(), max_size=2),
    outcome_lost=st.booleans(),
)


@given(
    st.sampled_from(list(JOBS.values())),
    st.lists(st.tuples(updates, st.integers(-7200, 7200)), max_size=8),
    st.sampled_from(["", "enough"]),
)
def test_reports_in_any_order_under_any_clock_leave_one_end_that_is_in_order(old, reports, abort_reason):
    ends = []
    present = dataclasses.replace(old, abort_reason=abort_reason)
    for update, seconds in reports:
        new = rules.seen(present, AT + timedelta(seconds=seconds), update=update)
        if present.terminal:
            assert new is None
        elif new is not None:
            assert new.phase == present.phase or new.phase in TRANSITIONS[present.phase]
            if new.terminal:
                ends.append(new)
            present = new
    assert len(ends) <= 1
    for end in ends:
        assert end.final_phase == end.phase
        assert end.end_time >= end.creation_time
        assert end.start_time is None or end.end_time >= end.start_time
        assert (end.error is not None) == (end.phase == Phase.ERROR)


def test_a_completed_job_has_no_error_and_the_last_message():
    old = job(Phase.EXECUTING, error=ErrorSummary("was seen before"), message="step 1")
    new = rules.seen(old, AT, update=BackendUpdate(phase=Phase.COMPLETED, exit_code=0, message="done"))
    assert (new.phase, new.error, new.message, new.exit_code) == (Phase.COMPLETED, None, "done", 0)


def test_a_job_that_fails_by_itself_while_it_is_to_be_stopped_keeps_its_own_end():
    old = job(Phase.EXECUTING, abort_reason="enough")
    update = BackendUpdate(phase=Phase.ERROR, exit_code=7, error=ErrorSummary("exit code 7"))
    new = rules.seen(old, AT, update=update)
    assert (new.phase, new.exit_code, new.error.message) == (Phase.ERROR, 7, "exit code 7")


def test_a_job_that_is_to_be_stopped_and_leaves_no_trace_counts_as_stopped():
    update = BackendUpdate(phase=Phase.ERROR, error=ErrorSummary("killed"), outcome_lost=True)
    aborted = rules.seen(job(Phase.EXECUTING, abort_reason="enough"), AT, update=update)
    assert (aborted.phase, aborted.message, aborted.error) == (Phase.ABORTED, "enough", None)
    assert rules.seen(job(Phase.EXECUTING), AT, update=update).phase == Phase.ERROR


def test_only_a_running_job_says_how_far_it_is():
    update = BackendUpdate(progress=Progress(1, 0, 2))
    assert rules.progressed(job(Phase.EXECUTING), AT, update=update).progress.done == 1
    for old in (job(Phase.QUEUED), job(Phase.PENDING), job(Phase.COMPLETED)):
        with pytest.raises(TransitionError, match="only a job that runs has progress"):
            rules.progressed(old, AT, update=update)


# Running again


def failing(phase: ExecutionPhase, **fields) -> Job:
    """Return a record in a phase, whose job has a policy that the exit code fits."""
    return job(phase, **({"retries": RETRIES, "exit_code": 75, "error": ErrorSummary("busy")} | fields))


@pytest.mark.parametrize("phase", sorted(LIVE))
def test_a_started_job_that_failed_for_a_transient_cause_is_queued_again(phase):
    old = failing(phase)
    new = rules.retried(old, AT)
    if not old.dispatched:
        assert new is None
        return
    assert (new.phase, new.attempt, new.dispatched, new.exit_code) == (Phase.QUEUED, 2, False, None)
    assert new.retry_time == AT + RETRIES.wait(1)
    assert new.waiting
    assert [(attempt.number, attempt.cause) for attempt in new.attempts] == [(1, "exit code 75")]
    # As an update of the backend it has the same effect.
    assert rules.seen(old, AT, update=BackendUpdate(phase=Phase.ERROR)) == new


@pytest.mark.parametrize(
    "fields",
    [
        {"retries": None},
        {"attempt": 2},
        {"exit_code": 1},
        {"abort_reason": "enough"},
        {"deadline_passed": True},
    ],
    ids=str,
)
def test_a_job_is_not_run_again_without_reason_or_against_a_wish(fields):
    old = failing(Phase.EXECUTING, **fields)
    assert rules.retried(old, AT) is None
    assert rules.seen(old, AT, update=BackendUpdate(phase=Phase.ERROR)).phase == Phase.ERROR


def test_a_job_of_which_something_may_still_run_is_not_run_again():
    update = BackendUpdate(phase=Phase.ERROR, may_still_run=True)
    assert rules.seen(failing(Phase.EXECUTING), AT, update=update).phase == Phase.ERROR


@pytest.mark.parametrize("phase", sorted(TERMINAL))
def test_a_job_that_has_ended_is_not_run_again(phase):
    assert rules.seen(failing(phase), AT, update=BackendUpdate(phase=Phase.ERROR)) is None


def test_an_update_about_a_former_attempt_changes_nothing():
    again = rules.retried(failing(Phase.EXECUTING), AT)
    late = BackendUpdate(phase=Phase.COMPLETED)
    assert rules.seen(again, AT, update=late, attempt=1) is None
    # Nor about the present one before it has been started.
    assert rules.seen(again, AT, update=late, attempt=2) is None
    started = rules.dispatched(again, AT)
    assert rules.seen(started, AT, update=late, attempt=2).phase == Phase.COMPLETED


# Files that go


@pytest.mark.parametrize("phase", sorted(ENDED))
def test_an_archived_job_says_why_its_files_are_gone_and_how_it_ended(phase):
    old = job(phase, results=(Result("x", "file:///x"),), exit_code=3)
    new = rules.archived(old, AT, reason="archived: more than the space to keep")
    assert (new.phase, new.final_phase, new.results) == (Phase.ARCHIVED, phase, ())
    assert (new.message, new.exit_code) == ("archived: more than the space to keep", 3)
    assert rules.archived(new, AT, reason="archived") is None
