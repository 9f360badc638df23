# SPDX-License-Identifier: GPL-3.0-or-later
"""Documents of the Rubin JSON dialect, as a server of it writes them."""

from __future__ import annotations

__all__ = ["PHASES", "MalformedError", "ServerJob", "creation_body", "ending"]

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any
from urllib.parse import urlsplit

from ...jobs.backend import BackendUpdate
from ...jobs.model import TERMINAL, ErrorSummary, ExecutionPhase, Job, Progress, Result
from ...jobs.workspace import guess_mime_type

_P = ExecutionPhase

PHASES: Mapping[str, ExecutionPhase] = {
    "pending": _P.QUEUED,
    "queued": _P.QUEUED,
    "held": _P.QUEUED,
    "executing": _P.EXECUTING,
    "suspended": _P.SUSPENDED,
    "completed": _P.COMPLETED,
    "error": _P.ERROR,
    "aborted": _P.ABORTED,
    # What it keeps no more had an end that nobody can tell.
    "archived": _P.UNKNOWN,
    "unknown": _P.UNKNOWN,
}
"""What a server's phase means here; one that is not listed is UNKNOWN."""

# What of a server's jobInfo is taken over; it cannot say what a face acts upon.
_INFO = ("exitCode", "metrics", "tasks", "logTail", "cpuTime", "maxRss")

_SERVER_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,252}")


class MalformedError(Exception):
    """A document is not what it should be."""


@dataclass(frozen=True, slots=True)
class ServerJob:
    """A job as the server shows it.

    Parameters
    ----------
    id : `str`
        The server's name for it.
    run_id : `str`
        Our name for it, if it is ours.
    phase : `str`
        The server's word for its phase.
    document : `~collections.abc.Mapping`
        All that the server says.
    """

    id: str
    run_id: str
    phase: str
    document: Mapping[str, Any]

    @classmethod
    def parse(cls, document: Any) -> ServerJob:
        """Read a job's document.

        Raises
        ------
        MalformedError
            If it is none.
        """
        if not isinstance(document, dict):
            raise MalformedError("it answered with no job document")
        server_id, run_id, phase = (document.get(name) for name in ("jobId", "runId", "phase"))
        if not isinstance(server_id, str) or not _SERVER_ID.fullmatch(server_id):
            raise MalformedError(f"it answered with a job document whose jobId is {_short(server_id)}")
        if not isinstance(phase, str):
            raise MalformedError(f"it answered with a job document whose phase is {_short(phase)}")
        if not isinstance(document.get("results") or [], list):
            raise MalformedError("it answered with a job document whose results are no list")
        return cls(server_id, run_id if isinstance(run_id, str) else "", phase.lower(), document)

    @property
    def execution_phase(self) -> ExecutionPhase:
        """What its phase means here."""
        return PHASES.get(self.phase, _P.UNKNOWN)

    @property
    def ended(self) -> bool:
        """Whether it has come to its end."""
        return self.execution_phase in TERMINAL

    @property
    def whole(self) -> bool:
        """Whether it tells all that is told of an end."""
        return "results" in self.document and "errorSummary" in self.document

    @property
    def progress(self) -> Progress | None:
        """How far it is, where an OCPS says so."""
        info = self.document.get("jobInfo")
        given = info.get("progress") if isinstance(info, dict) else None
        if not isinstance(given, dict):
            return None
        numbers = [given.get(name) for name in ("done", "failed", "total")]
        whole = [number for number in numbers if type(number) is int]
        return Progress(*whole) if len(whole) == len(numbers) else None

    @property
    def remark(self) -> str:
        """What is to be said of its phase, empty if that speaks for itself."""
        info = self.document.get("jobInfo")
        if isinstance(info, dict) and "uwsPhase" in info:
            # An OCPS says by itself what a job is waiting for or doing.
            return _message(self.document)[:500]
        if self.execution_phase == _P.UNKNOWN:
            return f"the server shows it as {self.phase!r}"
        return "held by the server" if self.phase == "held" else ""


def creation_body(job: Job) -> dict[str, Any]:
    """Return the body of the request that creates a job; see `UwsDefinition`."""
    spec = job.spec
    return {
        "run_id": job.id,
        "command": spec["command"],
        "url": spec["url"],
        "commit_ref": spec["commit_ref"],
        "environment": [{"name": name, "value": value} for name, value in spec["environment"].items()],
    }


def ending(found: ServerJob, url: str) -> BackendUpdate:
    """Return what is to be reported of a job that has ended.

    Parameters
    ----------
    found : `ServerJob`
        The job, with its final document.
    url : `str`
        Base address of the server, without a password.
    """
    document = found.document
    phase = found.execution_phase
    results = _results(document.get("results") or [], f"{url}/job/result/{found.id}")
    given = document.get("jobInfo")
    info = {name: given[name] for name in _INFO if name in given} if isinstance(given, dict) else {}
    exit_code = _integer(info.get("exitCode"), document.get("exitCode"))
    if exit_code is not None:
        info["exitCode"] = exit_code
    info["uws"] = server_info(found, url)
    error = None
    if phase == _P.ERROR:
        logs = [result.uri for result in results if result.id.endswith(".log")]
        where = f"; see {logs[0]}" if logs else ""
        error = ErrorSummary(_message(document) or f"failed; the server gives no reason{where}")
    return BackendUpdate(phase=phase, exit_code=exit_code, results=results, error=error, info=info)


def server_info(found: ServerJob, url: str) -> dict[str, Any]:
    """Return where the server has a job, and what it says of its times."""
    times = {name: found.document.get(name) for name in ("creationTime", "startTime", "endTime")}
    return {
        "jobId": found.id,
        "uri": found.document.get("uri") or f"{url}/job/{found.id}",
        # uws_scripts names the collection after the server's id, not ours.
        "collection": f"u/ocps/{found.id}",
        **times,
    }


def _results(items: Sequence[Any], base: str) -> tuple[Result, ...]:
    """Return results with absolute addresses.

    What a server gives as ``uri`` may be a path on its own disk; the file
    itself is had under the number.
    """
    found: dict[str, Result] = {}
    for position, item in enumerate(items):
        if not isinstance(item, dict) or not isinstance(item.get("uri"), str):
            continue
        path, number = item["uri"], item.get("id")
        absolute = urlsplit(path).scheme not in ("", "file")
        address = path if absolute else f"{base}/{number if isinstance(number, int) else position}"
        name = _name(path) or str(position)
        if name in found:
            name = f"{position}-{name}"
        size = item.get("size")
        found[name] = Result(name, address, _integer(size), guess_mime_type(path))
    return tuple(found.values())


def _name(path: str) -> str:
    """Return the part of a path that tells results of one job apart."""
    parts = PurePosixPath(urlsplit(path).path).parts
    # The server's folder of a job is …/<id>/out, ours …/<id>/output.
    for folder in ("out", "output"):
        if folder in parts:
            parts = parts[len(parts) - parts[::-1].index(folder) :]
            return "/".join(parts)
    return parts[-1] if parts else ""


def _message(document: Mapping[str, Any]) -> str:
    summary = document.get("errorSummary")
    message = summary.get("message") if isinstance(summary, dict) else summary
    return message.strip()[:10_000] if isinstance(message, str) else ""


def _integer(*values: Any) -> int | None:
    """Return the first of ``values`` that is a whole number, `None` if none is."""
    return next((value for value in values if type(value) is int), None)


def _short(value: Any) -> str:
    return repr(value)[:60]
