# SPDX-License-Identifier: GPL-3.0-or-later
"""Jobs as documents of the Rubin JSON dialect.

Results that are published over SAL and answers of ``/api/v1`` have the same
members, so both are composed here.
"""

from __future__ import annotations

__all__ = [
    "dry_run_document",
    "entry_document",
    "http_document",
    "job_document",
    "parameters_document",
    "phase_name",
    "time_text",
]

from datetime import datetime
from typing import Any

from .jobs.dry_run import DryRun
from .jobs.model import ExecutionPhase, Job, Progress, now
from .jobs.query import JobEntry

# Existing clients treat "unknown" as the end of a job, and do not know "held".
_SHOWN = {
    ExecutionPhase.UNKNOWN: "executing",
    ExecutionPhase.SUSPENDED: "executing",
    ExecutionPhase.HELD: "queued",
}


_PIPELINE_PARAMETERS = frozenset(
    {"pipeline", "version", "config", "data_query", "output_dataset_types", "butler"}
)


def phase_name(phase: ExecutionPhase) -> str:
    """Return the name of a phase in this dialect."""
    return _SHOWN.get(phase, phase.lower())


def time_text(time: datetime | None) -> str | None:
    """Return a time (UTC) in the format of this dialect."""
    return None if time is None else f"{time:%Y-%m-%d %H:%M:%S}+00:00"


def parameters_document(job: Job) -> dict[str, Any]:
    """Return a job's parameters as command and environment."""
    spec, given = job.spec.document() if job.spec else {}, job.parameters
    values = {
        "PIPELINE_URL": given.get("pipeline", spec.get("pipeline", "")),
        "BUTLER_REPO": spec.get("butler", ""),
        "DATA_QUERY": given.get("data_query", ""),
        "RUN_OPTIONS": given.get("config", ""),
        "OUTPUT_GLOB": ",".join(spec.get("output_glob", ())),
        # Parameters of other kinds of jobs.
        **{name: value for name, value in given.items() if name not in _PIPELINE_PARAMETERS},
        # The variables that were sent to a UWS server, if the job runs on one.
        **spec.get("environment", {}),
    }
    return {
        "command": spec.get("command") or job.definition,
        "environment": [{"name": name, "value": value} for name, value in values.items()],
    }


def _common_members(job: Job | JobEntry) -> dict[str, Any]:
    """Return the members that whole documents and entries of tables share."""
    return {
        "jobId": job.id,
        "runId": job.run_id or job.id,
        "ownerId": job.owner,
        "phase": phase_name(job.phase),
        "creationTime": time_text(job.creation_time),
        "startTime": time_text(job.start_time),
        "endTime": time_text(job.end_time),
        "executionDuration": _elapsed(job.start_time, job.end_time),
    }


def job_document(job: Job) -> dict[str, Any]:
    """Return a job with all members of the dialect.

    ``executionDuration`` is the elapsed run time (s), as in other servers of
    this dialect, not the limit of the same name in UWS.
    """
    message = job.error.message if job.error else job.message
    return {
        **_common_members(job),
        "destruction": time_text(job.destruction),
        "parameters": parameters_document(job),
        "results": [{"id": number, "uri": result.uri} for number, result in enumerate(job.results)],
        "errorSummary": {"message": message},
        "jobInfo": {**job.info, **attempts_document(job)},
    }


def _elapsed(start: datetime | None, end: datetime | None) -> float | None:
    return max(0.0, round(((end or now()) - start).total_seconds(), 3)) if start else None


def entry_document(entry: JobEntry) -> dict[str, Any]:
    """Return what tables show of a job, with the members and names of `http_document`."""
    return {
        **_common_members(entry),
        "errorSummary": {"message": entry.message},
        "jobInfo": {
            "definition": entry.definition,
            "uwsPhase": str(entry.phase),
            "progress": _progress(entry.progress),
            "attempt": entry.attempt,
            "maxAttempts": entry.max_attempts,
        },
    }


def _progress(progress: Progress) -> dict[str, int]:
    return {"done": progress.done, "failed": progress.failed, "total": progress.total}


def attempts_document(job: Job) -> dict[str, Any]:
    """Return which attempt a job is on, and how those before it failed; empty if it is not run again."""
    if job.retries is None:
        return {}
    former = [
        {
            "number": attempt.number,
            "startTime": time_text(attempt.start_time),
            "endTime": time_text(attempt.end_time),
            "exitCode": attempt.exit_code,
            "message": attempt.reason,
            "cause": attempt.cause,
        }
        for attempt in job.attempts
    ]
    return {"attempt": job.attempt, "maxAttempts": job.retries.max + 1, "attempts": former}


def dry_run_document(definition: str, found: DryRun) -> dict[str, Any]:
    """Return what a job of a definition would do."""
    return {
        "definition": definition,
        "message": found.message,
        "checked": found.checked,
        "quanta": found.quanta,
        "tasks": None if found.tasks is None else dict(found.tasks),
        "argv": list(found.argv),
    }


def http_document(job: Job) -> dict[str, Any]:
    """Return a job as it is shown over HTTP, with further members for our own clients.

    These are in ``jobInfo``, which other clients ignore: ``definition``,
    ``given`` (the parameters of the request), ``limit`` (longest run time,
    s), ``progress``, ``results`` (name, size and type of each), and
    ``uwsPhase`` (the UWS name of the phase).
    """
    document = job_document(job)
    document["jobInfo"] |= {
        "definition": job.definition,
        "given": dict(job.parameters),
        "limit": job.execution_duration,
        "progress": _progress(job.progress),
        "results": [
            {"name": result.id, "size": result.size, "mimeType": result.mime_type} for result in job.results
        ],
        "uwsPhase": str(job.phase),
    }
    return document
