# SPDX-License-Identifier: GPL-3.0-or-later
"""Reading of UWS 1.1's XML documents."""

from __future__ import annotations

__all__ = ["parse_job", "parse_list"]

import math
import re
from typing import Any
from urllib.parse import quote, urlsplit
from xml.etree import ElementTree

from .documents import (
    MAX_MESSAGE,
    Progress,
    RemoteJob,
    RemoteResult,
    absolute_url,
    checked_id,
    checked_phase,
    checked_time,
)
from .errors import DocumentError
from .text import one_line, printable

_PROGRESS = re.compile(r"(\d{1,9}) of (\d{1,9}) quanta done(?:, (\d{1,9}) failed)?", re.ASCII)


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
        If it is not a job list.
    """
    root = _parse(text, "jobs")
    base = _without_query(url)
    found = []
    for entry in root:
        if _name(entry) == "jobref" and entry.get("id"):
            job_id = checked_id(entry.get("id"))
            # Servers of UWS 1.0 give no address; then it is below the list.
            href = absolute_url(f"{base}/", _attribute(entry, "href") or quote(job_id))
            found.append(_job(entry, job_id, href or f"{base}/{quote(job_id)}", whole=False))
    return found


def parse_job(text: bytes, url: str) -> RemoteJob:
    """Read the document of a job; parameters and errors as for `parse_list`."""
    root = _parse(text, "job")
    job_id = _text(root, "jobId")
    if not job_id:
        raise DocumentError("it answered with a job document without jobId")
    return _job(root, checked_id(job_id), _without_query(url), whole=True)


def _without_query(url: str) -> str:
    return urlsplit(url)._replace(query="", fragment="").geturl().rstrip("/")


def _parse(text: bytes, name: str) -> ElementTree.Element:
    if b"<!DOCTYPE" in text[:4096] or b"<!ENTITY" in text:
        raise DocumentError("it answered with a page or an XML document with a DTD, not with UWS")
    try:
        root = ElementTree.fromstring(text)
    except (ElementTree.ParseError, ValueError, LookupError):
        raise DocumentError("it answered with something else than XML") from None
    if _name(root) != name:
        raise DocumentError(f"it answered with an XML document {one_line(_name(root), 40)!r}, not {name!r}")
    return root


def _job(element: ElementTree.Element, job_id: str, url: str, *, whole: bool) -> RemoteJob:
    info = _child(element, "jobInfo")
    # An OCPS has elements of its own in there; other servers, and older ones, text.
    words = _text(info, "message") if info is not None and len(info) else _text(element, "jobInfo")
    message = printable(words)[:MAX_MESSAGE]
    error = _text(_child(element, "errorSummary"), "message")
    return RemoteJob(
        id=job_id,
        url=url,
        phase=checked_phase(_text(element, "phase") or "UNKNOWN"),
        definition=one_line(url.rpartition("/")[0].rpartition("/")[2]),
        run_id=one_line(_text(element, "runId")),
        owner=one_line(_text(element, "ownerId")),
        creation_time=checked_time(_text(element, "creationTime")),
        start_time=checked_time(_text(element, "startTime")),
        end_time=checked_time(_text(element, "endTime")),
        destruction=checked_time(_text(element, "destruction")),
        execution_duration=_duration(_text(element, "executionDuration")),
        parameters={entry.get("id", ""): entry.text or "" for entry in _children(element, "parameters")},
        results=tuple(_result(entry, url) for entry in _children(element, "results")),
        error=printable(error)[:MAX_MESSAGE],
        message=message,
        progress=_progress(_child(info, "progress"), message),
        attempt=_count(_child(info, "attempt"), "number"),
        max_attempts=_count(_child(info, "attempt"), "of"),
        info=_former_attempts(info),
        whole=whole,
    )


def _progress(element: ElementTree.Element | None, message: str) -> Progress:
    if element is not None:
        numbers = [element.get(name, "0") for name in ("done", "failed", "total")]
        if all(re.fullmatch("[0-9]{1,9}", number) for number in numbers):
            return Progress(*map(int, numbers))
    found = _PROGRESS.search(message)
    return Progress(int(found[1]), int(found[3] or 0), int(found[2])) if found else Progress()


def _count(element: ElementTree.Element | None, name: str) -> int:
    """Return a number of attempts; 1 if the server says none."""
    found = "" if element is None else element.get(name, "")
    return int(found) if re.fullmatch("[1-9][0-9]{0,2}", found) else 1


def _former_attempts(info: ElementTree.Element | None) -> dict[str, Any]:
    """Return what an OCPS says of former attempts, as in its JSON."""
    found = [
        {"number": _count(child, "number"), "message": printable("".join(child.itertext()))[:MAX_MESSAGE]}
        for child in (() if info is None else info)
        if _name(child) == "formerAttempt"
    ]
    return {"attempts": found[:100]} if found else {}


def _result(entry: ElementTree.Element, url: str) -> RemoteResult:
    size = entry.get("size", "")
    result_id = entry.get("id", "")
    own = f"{url}/results/{quote(result_id)}"
    href = absolute_url(f"{url}/", _attribute(entry, "href") or own) or own
    length = int(size) if re.fullmatch("[0-9]{1,18}", size) else None
    return RemoteResult(one_line(result_id), href, length, one_line(entry.get("mime-type", ""), 100))


# Namespaces are ignored: servers differ in the year of UWS's, and some have none.
def _name(element: Any) -> str:
    # A comment or an instruction has a function for a tag.
    return element.tag.rpartition("}")[2] if isinstance(element.tag, str) else ""


def _attribute(element: ElementTree.Element, name: str) -> str:
    return next((value for key, value in element.items() if key.rpartition("}")[2] == name), "")


def _child(element: ElementTree.Element | None, name: str) -> ElementTree.Element | None:
    children = () if element is None else element
    return next((child for child in children if _name(child) == name), None)


def _children(element: ElementTree.Element, name: str) -> list[ElementTree.Element]:
    found = _child(element, name)
    return [] if found is None else [child for child in found if child.get("id")]


def _text(element: ElementTree.Element | None, name: str) -> str:
    found = _child(element, name)
    return "" if found is None else "".join(found.itertext()).strip()


def _duration(text: str) -> float:
    try:
        found = float(text)
    except ValueError:
        return 0
    return found if math.isfinite(found) and found > 0 else 0
