# SPDX-License-Identifier: GPL-3.0-or-later
"""A server's documents, and what they say: UWS 1.1's XML, and our own JSON."""

from __future__ import annotations

__all__ = [
    "TERMINAL",
    "DocumentError",
    "Progress",
    "RemoteJob",
    "RemoteResult",
    "parse_job",
    "parse_json_job",
    "parse_list",
]

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote, urljoin, urlsplit
from xml.etree import ElementTree

TERMINAL = frozenset({"COMPLETED", "ERROR", "ABORTED", "ARCHIVED"})
"""Phases that a job does not leave any more."""

_PROGRESS = re.compile(r"(\d+) of (\d+) quanta done(?:, (\d+) failed)?")


class DocumentError(Exception):
    """A document is not what it should be; the text says what was found."""


@dataclass(frozen=True, slots=True)
class RemoteResult:
    """One result of a job.

    Parameters
    ----------
    id : `str`
        Its name.
    url : `str`
        Where it can be had.
    size : `int` or `None`
        Length (bytes), if the server says.
    mime_type : `str`
        Media type; empty if the server does not say.
    """

    id: str
    url: str
    size: int | None = None
    mime_type: str = ""


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a job is, in quanta; ``total`` is 0 while it is not known."""

    done: int = 0
    failed: int = 0
    total: int = 0


@dataclass(frozen=True, slots=True)
class RemoteJob:
    """A job as a server shows it.

    Parameters
    ----------
    id, run_id, owner : `str`
        The server's name for it, the caller's, and whose it is.
    url : `str`
        Where it is.
    phase : `str`
        As UWS writes it: ``EXECUTING``.
    definition : `str`
        Name of its job list.
    creation_time, start_time, end_time, destruction : `datetime.datetime` or `None`
        UTC.
    execution_duration : `float`
        Longest run time (s); 0 for no limit.
    parameters : `~collections.abc.Mapping` [`str`, `str`]
        Its parameters.
    results : `tuple` [`RemoteResult`, ...]
        What it produced.
    error : `str`
        Why it failed.
    message : `str`
        What it is doing, in words.
    progress : `Progress`
        How far it is.
    """

    id: str
    url: str
    phase: str
    definition: str = ""
    run_id: str = ""
    owner: str = ""
    creation_time: datetime | None = None
    start_time: datetime | None = None
    end_time: datetime | None = None
    destruction: datetime | None = None
    execution_duration: float = 0
    parameters: Mapping[str, str] = field(default_factory=dict)
    results: tuple[RemoteResult, ...] = ()
    error: str = ""
    message: str = ""
    progress: Progress = Progress()

    @property
    def ended(self) -> bool:
        """Whether it has come to its end."""
        return self.phase in TERMINAL


# XML


def parse_list(text: bytes, url: str) -> list[RemoteJob]:
    """Read a job list; its entries say little more than the phase.

    Parameters
    ----------
    text : `bytes`
        The document.
    url : `str`
        Where it came from.

    Raises
    ------
    DocumentError
        If it is none.
    """
    root = _parse(text, "jobs")
    base = urlsplit(url)._replace(query="", fragment="").geturl().rstrip("/")
    found = []
    for entry in root:
        job_id = entry.get("id", "")
        if _name(entry) == "jobref" and job_id:
            # Servers of UWS 1.0 give no address; then it is below the list.
            href = _attribute(entry, "href") or f"{base}/{quote(job_id)}"
            found.append(_job(entry, job_id, urljoin(f"{base}/", href)))
    return found


def parse_job(text: bytes, url: str) -> RemoteJob:
    """Read the document of a job; arguments and errors as for `parse_list`."""
    root = _parse(text, "job")
    job_id = _text(root, "jobId")
    if not job_id:
        raise DocumentError("it answered with a job document without jobId")
    return _job(root, job_id, urlsplit(url)._replace(query="", fragment="").geturl().rstrip("/"))


def _parse(text: bytes, name: str) -> ElementTree.Element:
    if b"<!DOCTYPE" in text[:4096] or b"<!ENTITY" in text:
        raise DocumentError("it answered with a page or an XML document with a DTD, not with UWS")
    try:
        root = ElementTree.fromstring(text)
    except (ElementTree.ParseError, ValueError, LookupError):
        raise DocumentError("it answered with something else than XML") from None
    if _name(root) != name:
        raise DocumentError(f"it answered with an XML document {_name(root)!r}, not {name!r}")
    return root


def _job(element: ElementTree.Element, job_id: str, url: str) -> RemoteJob:
    message = _text(element, "jobInfo")
    progress = _PROGRESS.search(message)
    return RemoteJob(
        id=job_id,
        url=url,
        phase=_text(element, "phase").upper() or "UNKNOWN",
        definition=url.rpartition("/")[0].rpartition("/")[2],
        run_id=_text(element, "runId"),
        owner=_text(element, "ownerId"),
        creation_time=_time(_text(element, "creationTime")),
        start_time=_time(_text(element, "startTime")),
        end_time=_time(_text(element, "endTime")),
        destruction=_time(_text(element, "destruction")),
        execution_duration=_number(_text(element, "executionDuration")),
        parameters={entry.get("id", ""): entry.text or "" for entry in _children(element, "parameters")},
        results=tuple(_result(entry, url) for entry in _children(element, "results")),
        error=_text(_child(element, "errorSummary"), "message"),
        message=message,
        progress=Progress(int(progress[1]), int(progress[3] or 0), int(progress[2]))
        if progress
        else Progress(),
    )


def _result(entry: ElementTree.Element, url: str) -> RemoteResult:
    size = entry.get("size", "")
    result_id = entry.get("id", "")
    href = _attribute(entry, "href") or f"{url}/results/{quote(result_id)}"
    return RemoteResult(
        result_id, urljoin(f"{url}/", href), int(size) if size.isdigit() else None, entry.get("mime-type", "")
    )


# Namespaces are looked over: servers differ in the year of UWS's, and some have none.
def _name(element: ElementTree.Element) -> str:
    return element.tag.rpartition("}")[2]


def _attribute(element: ElementTree.Element, name: str) -> str:
    return next((value for key, value in element.items() if key.rpartition("}")[2] == name), "")


def _child(element: ElementTree.Element, name: str) -> ElementTree.Element | None:
    return next((child for child in element if _name(child) == name), None)


def _children(element: ElementTree.Element, name: str) -> list[ElementTree.Element]:
    found = _child(element, name)
    return [] if found is None else [child for child in found if child.get("id")]


def _text(element: ElementTree.Element | None, name: str) -> str:
    found = None if element is None else _child(element, name)
    return "" if found is None else "".join(found.itertext()).strip()


def _time(text: str) -> datetime | None:
    try:
        time = datetime.fromisoformat(text)
    except ValueError:
        return None
    return time.replace(tzinfo=UTC) if time.tzinfo is None else time.astimezone(UTC)


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return 0


# Our own JSON


def parse_json_job(document: Any, api: str, uws: str) -> RemoteJob:
    """Read a job's document of our own server, as the change stream brings it.

    Parameters
    ----------
    document : `object`
        From JSON.
    api, uws : `str`
        Where the server has the JSON dialect, and its job lists.

    Raises
    ------
    DocumentError
        If it is none.
    """
    try:
        info = document["jobInfo"]
        job_id, definition = document["jobId"], info["definition"]
        results = [
            RemoteResult(_result_name(item["uri"], job_id), f"{api}/job/result/{job_id}/{item['id']}")
            for item in document["results"]
        ]
        # Results that go out over SAL say no uwsPhase: they are about an end.
        phase = info.get("uwsPhase") or document["phase"].upper()
        message = document["errorSummary"]["message"]
        environment = document["parameters"]["environment"]
        return RemoteJob(
            id=job_id,
            url=f"{uws}/{quote(definition)}/{job_id}",
            phase=phase,
            definition=definition,
            run_id="" if document["runId"] == job_id else document["runId"],
            owner=document["ownerId"],
            creation_time=_time(document["creationTime"] or ""),
            start_time=_time(document["startTime"] or ""),
            end_time=_time(document["endTime"] or ""),
            destruction=_time(document["destruction"] or ""),
            parameters={item["name"]: item["value"] for item in environment},
            results=tuple(results),
            error=message if phase == "ERROR" else "",
            message="" if phase == "ERROR" else message,
            progress=Progress(**info["progress"]),
        )
    except (KeyError, TypeError, AttributeError, IndexError) as error:
        raise DocumentError(f"it answered with no job document of OCPS ({error!r})") from None


def _result_name(uri: str, job_id: str) -> str:
    """Return a result's path below its job's output directory."""
    path = urlsplit(uri).path
    _, found, name = path.partition(f"/{job_id}/output/")
    return name if found else path.rpartition("/")[2]
