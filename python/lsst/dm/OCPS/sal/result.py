# SPDX-License-Identifier: GPL-3.0-or-later
"""The JSON of the event ``job_result``."""

from __future__ import annotations

__all__ = ["EXIT_CODES", "MAX_RESULT_SIZE", "exit_code", "result_document", "result_text"]

import json
from typing import Any

from ..jobs.model import ExecutionPhase, Job
from ..rubin_json import job_document, phase_name

MAX_RESULT_SIZE = 65_536
"""Largest size (bytes) of ``job_result.result``."""

EXIT_CODES = {ExecutionPhase.COMPLETED: 0, ExecutionPhase.ERROR: 1, ExecutionPhase.ABORTED: 255}
"""``job_result.exit_code`` for each final phase."""


def exit_code(job: Job) -> int:
    """Return the exit code to publish for a job that has ended."""
    assert job.final_phase is not None
    return EXIT_CODES[job.final_phase]


def result_document(job: Job) -> dict[str, Any]:
    """Return the document to publish for a job that has ended.

    The same record always results in the same document.

    Parameters
    ----------
    job : `Job`
        The job.
    """
    document = {"job_id": job.id, **job_document(job)}
    # An archived job is shown in the phase in which it ended.
    document["phase"] = phase_name(job.final_phase or job.phase)
    info = document["jobInfo"]
    progress = {"done": job.progress.done, "failed": job.progress.failed, "total": job.progress.total}
    document["jobInfo"] = info | {"definition": job.definition, "progress": progress}
    if "result" in info:
        document["result"] = info["result"]
    return document


def result_text(document: dict[str, Any], whole_uri: str = "") -> tuple[str, bool]:
    """Return a document as JSON, with its longest parts truncated if it is too long.

    Parameters
    ----------
    document : `dict`
        The document; it is not changed.
    whole_uri : `str`
        URI of the whole document, for readers of a truncated one.

    Returns
    -------
    text : `str`
        The JSON, at most `MAX_RESULT_SIZE` bytes.
    cut : `bool`
        Whether it was truncated.
    """
    text = json.dumps(document, allow_nan=False)
    if len(text) <= MAX_RESULT_SIZE:
        return text, False
    short = {**document, "jobInfo": {**document["jobInfo"], "truncated": {"whole": whole_uri}}}
    for shorten in (_cut_tail, _cut_metrics, _cut_results, _cut_texts, _cut_rest):
        shorten(short)
        text = json.dumps(short)
        if len(text) <= MAX_RESULT_SIZE:
            break
    return text, True


def _cut_tail(document: dict[str, Any]) -> None:
    document["jobInfo"]["logTail"] = [line[:200] for line in document["jobInfo"].get("logTail", [])[-5:]]


def _cut_metrics(document: dict[str, Any]) -> None:
    _fit(document["jobInfo"], "metrics")


def _cut_results(document: dict[str, Any]) -> None:
    _fit(document, "results")


def _fit(holder: dict[str, Any], name: str) -> None:
    """Truncate a list so that it takes at most a third of `MAX_RESULT_SIZE`."""
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
    parameters = document["parameters"]
    environment = [item | {"value": item["value"][:2000]} for item in parameters["environment"]]
    document["parameters"] = {**parameters, "environment": environment}
    document["jobInfo"] = {
        name: value
        for name, value in document["jobInfo"].items()
        if name not in ("tasks", "logTail", "attempts")
    }


def _cut_rest(document: dict[str, Any]) -> None:
    """Keep only the members on which all readers rely."""
    info = document["jobInfo"]
    document["jobInfo"] = {
        name: info[name] for name in ("attempt", "exitCode", "progress", "truncated") if name in info
    }
    document["parameters"] = {"command": document["parameters"]["command"][:2000], "environment": []}
    for name in ("runId", "ownerId"):
        document[name] = document[name][:2000]
