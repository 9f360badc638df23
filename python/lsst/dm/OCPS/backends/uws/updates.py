# SPDX-License-Identifier: GPL-3.0-or-later
"""Conversion of a server's documents into updates for the engine."""

from __future__ import annotations

__all__ = ["PHASES", "ending", "execution_phase", "in_words", "last_seen", "remark", "server_info"]

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from ...client.documents import RemoteJob
from ...client.errors import ClientError, UnreachableError
from ...jobs.backend import BackendUpdate
from ...jobs.model import ErrorSummary, ExecutionPhase, Result
from ...jobs.workspace import guess_mime_type

_P = ExecutionPhase

PHASES: Mapping[str, ExecutionPhase] = {
    "PENDING": _P.QUEUED,
    "QUEUED": _P.QUEUED,
    "HELD": _P.QUEUED,
    "EXECUTING": _P.EXECUTING,
    "SUSPENDED": _P.SUSPENDED,
    "COMPLETED": _P.COMPLETED,
    "ERROR": _P.ERROR,
    "ABORTED": _P.ABORTED,
    # The server no longer has the outcome.
    "ARCHIVED": _P.UNKNOWN,
    "UNKNOWN": _P.UNKNOWN,
}
"""The engine's phase for each phase of a server; one that is not listed is UNKNOWN."""

# Members of a server's jobInfo that are copied. Others have a meaning for the faces.
_INFO = ("exitCode", "metrics", "tasks", "logTail", "cpuTime", "maxRss")

_NOT_ACCEPTED = (401, 403)


def execution_phase(found: RemoteJob) -> ExecutionPhase:
    """Return the engine's phase for that of a server."""
    if found.ours and found.phase == "UNKNOWN":
        # That OCPS has lost contact with the job, and ends it itself if that lasts too long.
        return _P.EXECUTING
    return PHASES.get(found.phase, _P.UNKNOWN)


def remark(found: RemoteJob) -> str:
    """Return the message for a live job; empty if its phase needs no explanation."""
    if found.ours:
        # An OCPS itself tells what a job is waiting for or doing.
        return found.message[:500]
    if execution_phase(found) == _P.UNKNOWN:
        return f"the server shows it as {found.phase.lower()!r}"
    return "held by the server" if found.phase == "HELD" else ""


def ending(found: RemoteJob) -> BackendUpdate:
    """Return the final update of a job that has ended.

    Parameters
    ----------
    found : `RemoteJob`
        The whole document of the job.
    """
    phase = execution_phase(found)
    results = tuple(
        Result(result.id, result.url, result.size, result.mime_type or guess_mime_type(result.id))
        for result in found.results
    )
    info = {name: found.info[name] for name in _INFO if name in found.info}
    if found.exit_code is not None:
        info["exitCode"] = found.exit_code
    info["uws"] = server_info(found)
    error = None
    if phase == _P.ERROR:
        logs = [result.uri for result in results if result.id.endswith(".log")]
        where = f"; see {logs[0]}" if logs else ""
        error = ErrorSummary(found.error or f"failed; the server gives no reason{where}")
    return BackendUpdate(phase=phase, exit_code=found.exit_code, results=results, error=error, info=info)


def server_info(found: RemoteJob) -> dict[str, Any]:
    """Return the id, URL, collection and times of a job at the server."""
    return {
        "jobId": found.id,
        "uri": found.url,
        # uws_scripts names the collection after the server's id, not ours.
        "collection": f"u/ocps/{found.id}",
        "creationTime": _text(found.creation_time),
        "startTime": _text(found.start_time),
        "endTime": _text(found.end_time),
    }


def last_seen(found: RemoteJob) -> dict[str, Any]:
    """Return the essentials of the last document of a job before it was stopped."""
    message = found.error or found.message
    return {**server_info(found), "phase": found.phase.lower(), "message": message}


def in_words(url: str, error: ClientError) -> str:
    """Return an error of a server as a message about a job."""
    if error.status in _NOT_ACCEPTED and "credentials" not in str(error):
        return f"UWS server {url} does not accept these credentials (HTTP {error.status}: {error})"
    if isinstance(error, UnreachableError) or url in str(error):
        return f"UWS server: {error}"
    return f"UWS server {url}: {error}"


def _text(time: datetime | None) -> str | None:
    return None if time is None else time.isoformat(sep=" ")
