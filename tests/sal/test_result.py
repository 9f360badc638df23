# SPDX-License-Identifier: GPL-3.0-or-later
"""The JSON of ``job_result``: always whole, never too long."""

from __future__ import annotations

import dataclasses
import json
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st
from lsst.dm.OCPS.definitions.specs import PipetaskSpec
from lsst.dm.OCPS.jobs.model import ErrorSummary, ExecutionPhase, Job, Progress, Result
from lsst.dm.OCPS.sal.result import MAX_RESULT_SIZE, exit_code, result_document, result_text

TIME = datetime(2026, 11, 20, 3, 4, 5, 678000, tzinfo=UTC)

JOB = Job(
    id="a" * 32,
    definition="pipetask",
    phase=ExecutionPhase.COMPLETED,
    final_phase=ExecutionPhase.COMPLETED,
    parameters={"pipeline": "a.yaml", "data_query": "x=1", "config": "-j 2"},
    spec=PipetaskSpec(
        pipeline="a.yaml", butler="/repo", output_glob=("a*", "b"), output="u/ocps/a", run="u/ocps/a/run"
    ),
    backend="local",
    creation_time=TIME,
    phase_time=TIME,
    start_time=TIME,
    end_time=TIME,
    progress=Progress(1, 0, 1),
    info={"exitCode": 0},
)

MEMBERS = {
    *("jobId", "job_id", "runId", "ownerId", "phase", "creationTime", "startTime", "endTime"),
    *("executionDuration", "destruction", "parameters", "results", "errorSummary", "jobInfo"),
}


@pytest.mark.parametrize(
    ("phase", "code", "name"),
    [
        (ExecutionPhase.COMPLETED, 0, "completed"),
        (ExecutionPhase.ERROR, 1, "error"),
        (ExecutionPhase.ABORTED, 255, "aborted"),
    ],
)
def test_each_end_has_its_code_also_when_the_job_is_archived(phase, code, name):
    for shown in (phase, ExecutionPhase.ARCHIVED):
        job = dataclasses.replace(JOB, phase=shown, final_phase=phase)
        assert exit_code(job) == code
        assert result_document(job)["phase"] == name


def test_a_result_has_all_members_and_is_the_same_each_time():
    document = json.loads(result_text(result_document(JOB))[0])
    assert set(document) == MEMBERS
    assert document["creationTime"] == "2026-11-20 03:04:05+00:00"
    assert document["executionDuration"] == 0
    assert document["jobInfo"]["progress"] == {"done": 1, "failed": 0, "total": 1}
    assert result_document(JOB) == document
    assert result_text(document) == result_text(document)


@given(
    results=st.integers(0, 5000),
    metrics=st.integers(0, 500),
    lines=st.integers(0, 20),
    width=st.integers(0, 20_000),
    message=st.integers(0, 300_000),
    query=st.integers(0, 100_000),
)
def test_a_result_never_is_too_long_and_says_where_the_whole_is(
    results, metrics, lines, width, message, query
):
    job = dataclasses.replace(
        JOB,
        phase=ExecutionPhase.ERROR,
        final_phase=ExecutionPhase.ERROR,
        parameters={"data_query": "q" * query},
        results=tuple(Result(f"r{number}", f"file:///a/{number}.fits", 1) for number in range(results)),
        error=ErrorSummary("ü" * message),
        info={
            "exitCode": 1,
            "logTail": ["x" * width] * lines,
            "metrics": [{"datasetType": "m", "dataId": {}, "values": {"v": "y" * 100}}] * metrics,
        },
    )
    whole = result_document(job)
    before = json.dumps(whole)
    text, cut = result_text(whole, "file:///whole.json")
    assert json.dumps(whole) == before
    assert len(text.encode()) <= MAX_RESULT_SIZE
    document = json.loads(text)
    assert set(document) == MEMBERS
    assert document["jobInfo"]["exitCode"] == 1
    if cut:
        assert document["jobInfo"]["truncated"] == {"whole": "file:///whole.json"}
    else:
        assert len(document["results"]) == results
