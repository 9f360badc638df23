# SPDX-License-Identifier: GPL-3.0-or-later
"""The Rubin JSON dialect: its requests and documents, and the change stream of an OCPS."""

from __future__ import annotations

__all__ = ["RubinServer", "parse_json_job"]

import builtins
import json
import math
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import aclosing
from datetime import datetime
from typing import Any, TypeVar
from urllib.parse import quote, urlsplit

from .documents import (
    MAX_MESSAGE,
    Progress,
    RemoteJob,
    RemoteResult,
    absolute_url,
    checked_id,
    checked_phase,
    checked_time,
    time_text,
)
from .dry_run import DRY_RUN_TIMEOUT, DryRun, parse_dry_run
from .errors import DocumentError, UnreachableError
from .link import Link
from .sse import ServerEvent, read_events
from .statistics import Statistics, parse_statistics
from .text import one_line, printable

T = TypeVar("T")

_MEMBERS = (
    "attempt", "definition", "given", "limit", "maxAttempts", "progress", "results", "uwsPhase",
)  # fmt: skip
"""Members of jobInfo that have a field of their own in `RemoteJob`."""

MAX_DEPTH = 20
"""How deeply what is in jobInfo may be nested."""

PAGE = 1000
"""How many jobs are requested at a time."""

MAX_PAGES = 1000
"""How many pages of a list are read at most."""

SILENCE = 45.0
"""How long (s) a stream may be still before it counts as cut; ours has a heartbeat every 15 s."""


class RubinServer:
    """Requests of the dialect; each raises `ClientError`.

    Parameters
    ----------
    link : `Link`
        To the server.
    api : `str`
        Base address of the dialect, up to and without ``/job``.
    uws : `str`
        Where an OCPS has its job lists; jobs are given addresses there.
    """

    def __init__(self, link: Link, api: str, uws: str = "") -> None:
        self._link = link
        self.api = api
        self.uws = uws

    async def create(self, body: Mapping[str, Any]) -> RemoteJob:
        """Create and run a job; sent once."""
        answer = await self._link.send("PUT", f"{self.api}/job", json=body)
        return self._understood(answer, self._job)

    async def dry_run(self, body: Mapping[str, Any]) -> DryRun:
        """Return what the job that `create` would create would do; an older OCPS would create it."""
        answer = await self._link.send(
            "PUT", f"{self.api}/job", params={"dryrun": "true"}, json=body, timeout=DRY_RUN_TIMEOUT
        )
        return self._understood(answer, parse_dry_run)

    async def get(self, job_id: str) -> RemoteJob:
        """Return a job."""

        def parse(document: Any) -> RemoteJob:
            job = self._job(document)
            if job.id != job_id:
                raise DocumentError(f"asked for job {job_id}, it answered with job {job.id}")
            return job

        return self._understood(await self._link.get(f"{self.api}/job/{quote(job_id)}"), parse)

    async def list(
        self,
        *,
        phase: str = "",
        last: int = 0,
        run_id: str = "",
        after: datetime | None = None,
        timeout: float | None = None,
        more: Mapping[str, Any] | None = None,
    ) -> builtins.list[RemoteJob]:
        """Return jobs.

        Parameters
        ----------
        phase : `str`
            Only those in this phase.
        last : `int`
            Only this many of the newest, at an OCPS; 0 for all.
        run_id : `str`
            Only those with this run id; servers other than an OCPS ignore it.
        after : `datetime.datetime`
            Only those created after this time, at an OCPS.
        timeout : `float`
            How long the answer may take (s), instead of the configured time.
        more : `~collections.abc.Mapping`
            Further conditions, for an OCPS that searches.
        """
        query: dict[str, Any] = {
            **(more or {}),
            "phase": phase.lower(),
            "last": str(last) if last else "",
            "run_id": run_id,
        }
        query["after"] = time_text(after, "after") if after else ""
        given = {name: value for name, value in query.items() if value}
        if self._link.ours and not run_id:
            # Only an OCPS knows pages.
            given["limit"] = str(min(last, PAGE) if last else PAGE)
        found: builtins.list[RemoteJob] = []
        cursors = {""}
        while True:
            answer = await self._link.get(f"{self.api}/job", given, timeout=timeout)
            found += self._understood(answer, self._jobs)
            # A server that knows no pages has sent everything.
            if answer.cursor in cursors or len(cursors) > MAX_PAGES:
                return found
            cursors.add(answer.cursor)
            given["cursor"] = answer.cursor

    async def delete(self, job_id: str) -> None:
        """Stop a job for good, and remove it."""
        await self._link.send("DELETE", f"{self.api}/job/{quote(job_id)}")

    async def definitions(self) -> builtins.list[dict[str, Any]]:
        """Return the job definitions of an OCPS."""
        return self._understood(await self._link.get(f"{self.api}/definitions"), _definitions)

    async def statistics(self) -> dict[str, Statistics]:
        """Return the statistics of an OCPS, by definition."""
        return self._understood(await self._link.get(f"{self.api}/statistics"), parse_statistics)

    async def events(self, definitions: Sequence[str] = (), last: str = "") -> AsyncIterator[ServerEvent]:
        """Yield the events of an OCPS's change stream after the event ``last``.

        One without data comes first, when changes are being shown.
        """
        lists = "&".join(f"list={quote(name)}" for name in definitions)
        url = f"{self.api}/events{'?' if lists else ''}{lists}"
        headers = {"Accept": "text/event-stream", **({"Last-Event-ID": last} if last else {})}
        async with self._link.open("GET", url, headers=headers, silence=SILENCE) as response:
            if response.status >= 300:
                raise UnreachableError(f"{url} redirects", reached=True, status=response.status)
            try:
                async with aclosing(read_events(response.content.iter_any(), last)) as events:  # type: ignore[type-var]
                    async for event in events:
                        yield event
            except DocumentError as error:
                raise UnreachableError(f"{url}: {error}", reached=True) from None

    def read_event(self, event: ServerEvent) -> RemoteJob:
        """Return the job that an event of type ``message`` shows.

        Raises
        ------
        DocumentError
            If it does not show a job.
        """
        return self._job(_json(event.data))

    def read_deletion(self, event: ServerEvent) -> str:
        """Return the id of the job that an event of type ``deleted`` is about.

        Raises
        ------
        DocumentError
            If it does not say so.
        """
        return checked_id(_mapping(_json(event.data)).get("jobId"))

    def _job(self, document: Any) -> RemoteJob:
        return parse_json_job(document, self.api, self.uws)

    def _jobs(self, document: Any) -> builtins.list[RemoteJob]:
        if not isinstance(document, list):
            raise DocumentError("it answered with no list of jobs")
        return [self._job(item) for item in document]

    def _understood(self, answer: Any, parse: Callable[[Any], T]) -> T:
        try:
            return parse(_json(answer.body, answer.content_type))
        except DocumentError as error:
            raise UnreachableError(f"{answer.url}: {error}", sent=True, reached=True) from None


def _json(text: bytes | str, content_type: str = "something else") -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        raise DocumentError(f"it answered {one_line(content_type, 60)}, not JSON") from None


def _definitions(document: Any) -> list[dict[str, Any]]:
    if not isinstance(document, list) or not all(isinstance(item, dict) for item in document):
        raise DocumentError("it answered with no list of definitions")
    return document


def parse_json_job(document: Any, api: str, uws: str) -> RemoteJob:
    """Read the document of a job.

    Parameters
    ----------
    document : `object`
        From JSON.
    api, uws : `str`
        Where the server has the dialect, and an OCPS its job lists.

    Raises
    ------
    DocumentError
        If it is not a job's document.
    """
    if not isinstance(document, dict):
        raise DocumentError("its answer is not a job document")
    job_id = checked_id(document.get("jobId"))
    info = _mapping(document.get("jobInfo"))
    # Only an OCPS has uwsPhase; phase is in the terms of existing clients.
    ours = isinstance(info.get("uwsPhase"), str)
    phase = checked_phase(info["uwsPhase"] if ours else document.get("phase"))
    definition = one_line(_string(info.get("definition")))
    results = document.get("results") or []
    if not isinstance(results, list):
        raise DocumentError("it answered with a job document whose results are no list")
    summary = document.get("errorSummary")
    message = _string(summary.get("message") if isinstance(summary, dict) else summary)
    message = printable(message.strip()[:MAX_MESSAGE])
    run_id = one_line(_string(document.get("runId")))
    return RemoteJob(
        id=job_id,
        url=f"{uws}/{quote(definition)}/{job_id}" if definition and uws else f"{api}/job/{job_id}",
        phase=phase,
        definition=definition,
        run_id="" if run_id == job_id else run_id,
        owner=one_line(_string(document.get("ownerId"))),
        creation_time=checked_time(document.get("creationTime")),
        start_time=checked_time(document.get("startTime")),
        end_time=checked_time(document.get("endTime")),
        destruction=checked_time(document.get("destruction")),
        execution_duration=_integer(info.get("limit")) or 0,
        parameters=_given(info["given"])
        if isinstance(info.get("given"), dict)
        else _environment(_mapping(document.get("parameters")).get("environment")),
        results=_results(_described(results, info), f"{api}/job/result/{job_id}", job_id, ours=ours),
        error=message if phase == "ERROR" else "",
        message="" if phase == "ERROR" else message,
        progress=_progress(info.get("progress")),
        exit_code=_integer(info.get("exitCode"), document.get("exitCode")),
        attempt=_count(info.get("attempt")),
        max_attempts=_count(info.get("maxAttempts")),
        info=_tidy({name: value for name, value in info.items() if name not in _MEMBERS}),
        ours=ours,
        whole="results" in document and "errorSummary" in document,
    )


def _described(results: Sequence[Any], info: Mapping[str, Any]) -> list[Any]:
    """Return results with the names, sizes and types that an OCPS adds."""
    more = info.get("results")
    if not isinstance(more, list) or len(more) != len(results):
        return list(results)
    return [{**_mapping(known), **_mapping(result)} for result, known in zip(results, more, strict=True)]


def _results(items: Sequence[Any], base: str, job_id: str, *, ours: bool) -> tuple[RemoteResult, ...]:
    """Return results with absolute addresses.

    ``uri`` may be a path on the server's own disk; the file is then requested
    by its number.
    """
    found: dict[str, RemoteResult] = {}
    for position, item in enumerate(items):
        if not isinstance(item, dict) or not isinstance(item.get("uri"), str):
            continue
        uri, number = item["uri"], item.get("id")
        try:
            parts = urlsplit(uri)
            scheme, path = parts.scheme, parts.path
        except ValueError:
            scheme, path = "", uri
        # An OCPS forwards files of a server behind it.
        here = scheme in ("", "file") or (ours and scheme in ("http", "https"))
        own = f"{base}/{number if type(number) is int else position}"
        address = own if here else absolute_url(own, uri) or own
        name = one_line(_string(item.get("name")) or _result_name(path, job_id) or str(position))
        if name in found:
            name = f"{position}-{name}"
        size = _integer(item.get("size"))
        kind = one_line(_string(item.get("mimeType")), 100)
        found[name] = RemoteResult(name, address, size if size is None or size >= 0 else None, kind)
    return tuple(found.values())


def _result_name(path: str, job_id: str) -> str:
    """Return the part of a path that distinguishes the results of one job."""
    parts = path.split("/")
    # The output directory of a job is …/<id>/out on existing servers, …/<id>/output on an OCPS.
    for folder in ("out", "output"):
        _, found, name = path.partition(f"/{job_id}/{folder}/")
        if found:
            return name
        if folder in parts[:-1]:
            parts = parts[len(parts) - parts[::-1].index(folder) :]
            return "/".join(parts)
    return parts[-1]


def _environment(items: Any) -> dict[str, str]:
    return {
        _string(item["name"]): _string(item.get("value"))
        for item in (items if isinstance(items, list) else ())
        if isinstance(item, dict) and isinstance(item.get("name"), str)
    }


def _given(values: Mapping[str, Any]) -> dict[str, str]:
    return {_string(name): _string(value) for name, value in values.items()}


def _progress(value: Any) -> Progress:
    if not value:
        return Progress()
    numbers = [_mapping(value).get(name) for name in ("done", "failed", "total")]
    whole = [number for number in numbers if type(number) is int and 0 <= number < 2**31]
    return Progress(*whole) if len(whole) == len(numbers) else Progress()


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def _string(value: Any) -> str:
    if not isinstance(value, str):
        return ""
    # JSON may contain surrogates, which can be neither stored nor shown.
    return value if value.isascii() else value.encode(errors="replace").decode()


def _tidy(value: Any, depth: int = 0) -> Any:
    """Return a value in which everything can be stored and sent as JSON."""
    if isinstance(value, str):
        return printable(_string(value))
    if isinstance(value, dict | list) and depth == MAX_DEPTH:
        return None
    if isinstance(value, dict):
        return {_tidy(name): _tidy(item, depth + 1) for name, item in value.items()}
    if isinstance(value, list):
        return [_tidy(item, depth + 1) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def _count(value: Any) -> int:
    """Return a number of attempts; 1 if the server says none."""
    return value if type(value) is int and 1 <= value <= 1000 else 1


def _integer(*values: Any) -> int | None:
    """Return the first of ``values`` that is a whole number, `None` if none is."""
    return next((value for value in values if type(value) is int and abs(value) < 2**63), None)
