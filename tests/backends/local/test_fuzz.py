# SPDX-License-Identifier: GPL-3.0-or-later
"""Whatever a job writes into its log, its summary or its index: OCPS reads what makes sense, and goes on."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from lsst.dm.OCPS.backends.local.handle import Claim, Status
from lsst.dm.OCPS.backends.local.pipetask_outcome import INDEX_NAME, PipetaskOutcome, count_quanta, explain
from lsst.dm.OCPS.backends.local.pipetask_progress import ProgressReader
from lsst.dm.OCPS.jobs.workspace import Workspace

from tests.fuzzing import documents, spoiled

relaxed = settings(deadline=None, max_examples=150, suppress_health_check=list(HealthCheck))


@contextmanager
def workspace() -> Iterator[Workspace]:
    """Make the directories of a job."""
    with tempfile.TemporaryDirectory() as folder:
        made = Workspace(Path(folder) / "job", Path(folder) / "engine", durable=False)
        made.create()
        yield made


def write(path: Path, document: Any) -> None:
    """Write a document as JSON; what JSON has no form for becomes a text."""
    path.write_text(json.dumps(text_keys(document), default=repr), errors="surrogatepass")


def text_keys(value: Any) -> Any:
    if isinstance(value, dict):
        return {key if isinstance(key, str) else repr(key): text_keys(item) for key, item in value.items()}
    return [text_keys(item) for item in value] if isinstance(value, list) else value


# Progress logs

log_lines = st.one_of(
    st.binary(max_size=60).map(lambda text: text.replace(b"\n", b"")),
    st.tuples(st.integers(-5, 10**12), st.integers(0, 10**10), st.integers(0, 10**10)).map(
        lambda numbers: (
            b"INFO Executed %d quanta successfully, %d failed and 6 remain out of total %d quanta" % numbers
        )
    ),
    st.integers(0, 10**12).map(lambda number: b"INFO QuantumGraph contains %d quanta for 3 tasks" % number),
    st.sampled_from([b"QuantumGraph contains " + b"9" * 5000 + b" quanta", b"x" * 9000, b"\r", b" quanta"]),
)


@relaxed
@given(st.lists(log_lines, max_size=8), st.lists(st.integers(0, 400), max_size=6))
def test_progress_is_the_same_however_a_log_grows(lines: list[bytes], cuts: list[int]) -> None:
    content = b"".join(line + b"\n" for line in lines)
    with workspace() as whole, workspace() as growing:
        whole.log.write_bytes(content)
        expected = ProgressReader(whole.log).read()
        assert all(0 <= number < 10**9 for number in (expected.done, expected.failed, expected.total))
        reader = ProgressReader(growing.log)
        begin = 0
        for end in [*sorted(cuts), len(content)]:
            with growing.log.open("ab") as file:
                file.write(content[begin:end])
            begin = max(begin, end)
            reader.read()
        assert reader.read() == expected


# Summaries and indices

SUMMARY = {
    "qgraphSummary": {"qgraphTaskSummaries": {"isr": {"taskLabel": "isr", "numQuanta": 2}}},
    "quantaReports": [
        {"status": "success", "taskLabel": "isr", "dataId": {"detector": 1}, "exceptionInfo": None},
        {
            "status": "failure",
            "taskLabel": "isr",
            "dataId": {"detector": 2, "instrument": "DemoCam"},
            "exceptionInfo": {"className": "builtins.ValueError", "message": "no light"},
        },
    ],
}
ARTIFACT = "biasMetrics_DemoCam_1.json"
INDEX = {
    "refs": {
        "compact_refs": {
            "id-1": {"dataset_type_name": "biasMetrics", "data_id": {"detector": 1}, "run": "u/x"}
        }
    },
    "artifact_map": {ARTIFACT: {"ids": ["id-1"], "info": {}}},
}


def status(code: int) -> dict[str, Any]:
    return {"exit_code": code, "step": 0, "cancelled": False, "cpu": 0.0, "max_rss": 0}


@relaxed
@given(spoiled(SUMMARY) | documents, st.sampled_from([0, 1, 2, -9]))
@example({"quantaReports": [{"status": "failure", "dataId": {"a": "\ud800"}}]}, 1)
@example({"quantaReports": [{"status": "\x1b[31m", "taskLabel": "\n", "dataId": {"a": [[[]]]}}]}, 1)
def test_any_summary_gives_a_reason_that_can_be_shown(document: Any, code: int) -> None:
    with workspace() as files:
        write(files.root / "summary.json", document)
        outcome = PipetaskOutcome.read(files, status(code), "summary.json")
        assert all(isinstance(count, int) for count in count_quanta(files, "summary.json").values())
        error = explain(outcome, files)
        assert error.message
        # Both go into the record, and from there into documents.
        (error.message + json.dumps(outcome.tasks, ensure_ascii=False)).encode()


@relaxed
@given(spoiled(INDEX) | documents, spoiled({"mean": 1.5, "values": [1, 2]}) | documents)
@example({**INDEX, "artifact_map": {"../../etc/passwd.json": {"ids": ["id-1"]}}}, {})
@example({**INDEX, "artifact_map": {"a\0.json": {"ids": ["id-1"]}}}, {})
@example({**INDEX, "artifact_map": {ARTIFACT: {"ids": ["id-2"]}}}, {})
def test_any_index_gives_metrics_or_none(index: Any, metrics: Any) -> None:
    with workspace() as files:
        write(files.output / INDEX_NAME, index)
        write(files.output / ARTIFACT, metrics)
        outcome = PipetaskOutcome.read(files, status(0), "summary.json")
        found = outcome.take_index(files, ["*Metrics"])
        json.dumps(found, ensure_ascii=False, allow_nan=False).encode()
        assert not (files.output / INDEX_NAME).exists()


def test_an_honest_summary_and_index_are_read() -> None:
    with workspace() as files:
        write(files.root / "summary.json", SUMMARY)
        write(files.output / INDEX_NAME, INDEX)
        write(files.output / ARTIFACT, {"mean": 1.5})
        outcome = PipetaskOutcome.read(files, status(1), "summary.json")
        assert (
            "task isr failed on detector=2, instrument=DemoCam: ValueError: no light"
            in explain(outcome, files).message
        )
        assert outcome.take_index(files, ["*Metrics"]) == [
            {"datasetType": "biasMetrics", "dataId": {"detector": 1}, "values": {"mean": 1.5}}
        ]
        assert count_quanta(files, "summary.json") == {"isr": 2}


# Files of the engine, which a job of the same account could replace

CLAIM = {"pid": 4000, "session": 4000, "start": 12345, "boot": "a" * 36, "seal": "0" * 64}
STATUS = {
    "token": "t",
    "exit_code": 0,
    "step": 0,
    "cancelled": False,
    "failure": "",
    "max_rss": 1,
    "cpu": 0.5,
}


@relaxed
@given(spoiled(CLAIM) | spoiled(STATUS) | documents)
def test_any_claim_and_status_are_whole_or_ignored(document: Any) -> None:
    with workspace() as files:
        for name in ("supervisor.json", "status.json"):
            write(files.engine / name, document)
        claim, found = Claim.read(files, "supervisor.json"), Status.read(files, "status.json")
        assert claim is None or Claim.parse(claim.model_dump_json()) == claim
        assert found is None or not found.is_by(claim)


@relaxed
@given(st.text() | documents.map(repr) | spoiled(CLAIM).map(repr))
def test_any_stored_claim_is_whole_or_ignored(text: str) -> None:
    claim = Claim.parse(text)
    assert claim is None or claim.pid > 1
