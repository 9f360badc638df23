# SPDX-License-Identifier: GPL-3.0-or-later
"""A job's result as it goes out over SAL."""

from __future__ import annotations

__all__ = ["EXIT_CODES", "MAX_RESULT_SIZE", "exit_code", "result_text"]

import json
from typing import Any

from ..jobs.model import ExecutionPhase, Job
from ..rubin_json import job_document, phase_name

MAX_RESULT_SIZE = 65_536
"""Most bytes that ``job_result.result`` may have."""

EXIT_CODES = {ExecutionPhase.COMPLETED: 0, ExecutionPhase.ERROR: 1, ExecutionPhase.ABORTED: 255}
"""``job_result.exit_code`` of each end."""


def exit_code(job: Job) -> int:
    """Return the exit code to publish for a job that has ended."""
    assert job.final_phase is not None
    return EXIT_CODES[job.final_phase]


def result_text(job: Job, whole_uri: str = "") -> str:
    """Return the JSON to publish for a job that has ended.

    The same record always gives the same text.

    Parameters
    ----------
    job : `Job`
        The job.
    whole_uri : `str`
        Where the whole document is, if this one has to be cut.
    """
    document = {"job_id": job.id, **job_document(job)}
    # An archived job ended as something before.
    document["phase"] = phase_name(job.final_phase or job.phase)
    info = document["jobInfo"]
    document["jobInfo"] = info | {"definition": job.definition, "progress": _progress(job)}
    if "result" in info:
        document["result"] = info["result"]
    return _cut(document, whole_uri)


def _progress(job: Job) -> dict[str, int]:
    return {"done": job.progress.done, "failed": job.progress.failed, "total": job.progress.total}


def _cut(document: dict[str, Any], whole_uri: str) -> str:
    """Return a document as JSON, shortening its longest parts if it is too long."""
    text = json.dumps(document, allow_nan=False)
    if len(text) <= MAX_RESULT_SIZE:
        return text
    info = dict(document["jobInfo"])
    document = {**document, "jobInfo": info}
    info["truncated"] = {"whole": whole_uri}
    for shorten in (_cut_tail, _cut_metrics, _cut_results, _cut_texts, _cut_rest):
        shorten(document)
        text = json.dumps(document)
        if len(text) <= MAX_RESULT_SIZE:
            break
    return text


def _cut_tail(document: dict[str, Any]) -> None:
    document["jobInfo"]["logTail"] = [line[:200] for line in document["jobInfo"].get("logTail", [])[-5:]]


def _cut_metrics(document: dict[str, Any]) -> None:
    _fit(document["jobInfo"], "metrics")


def _cut_results(document: dict[str, Any]) -> None:
    _fit(document, "results")


def _fit(holder: dict[str, Any], name: str) -> None:
    """Keep as much of the beginning of a list as has room in a third of the whole."""
    room, kept = MAX_RESULT_SIZE // 3, []
    for item in holder.get(name, []):
        room -= len(json.dumps(item)) + 2
        if room < 0:
            break
        kept.append(item)
    if name in holder:
        holder[name] = kept


def _cut_texts(document: dict[str, Any]) -> None:
    document["errorSummary"] = {"message": document["errorSummary"]["message"][:2000]}
    environment = document["parameters"]["environment"]
    document["parameters"]["environment"] = [item | {"value": item["value"][:2000]} for item in environment]
    document["jobInfo"] = {
        name: value for name, value in document["jobInfo"].items() if name not in ("tasks", "logTail")
    }


def _cut_rest(document: dict[str, Any]) -> None:
    """Keep what every reader relies on, and nothing else."""
    info = document["jobInfo"]
    document["jobInfo"] = {name: info[name] for name in ("exitCode", "progress", "truncated") if name in info}
    document["parameters"] = {"command": document["parameters"]["command"][:2000], "environment": []}
    for name in ("runId", "ownerId"):
        document[name] = document[name][:2000]
