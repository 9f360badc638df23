# SPDX-License-Identifier: GPL-3.0-or-later
"""The list of jobs in the JSON dialect: one page if a limit is given, else all."""

from __future__ import annotations

__all__ = ["MAX_PAGE", "send_jobs"]

import dataclasses
import json
import re
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from typing import Any

from aiohttp import web

from ..jobs.errors import RequestError
from ..jobs.manager import JobManager
from ..jobs.model import Job, to_ms
from ..jobs.query import JobEntry, JobQuery, JobSummary
from ..rubin_json import entry_document, http_document, phase_name
from .context import SERVICE
from .lists import parse_count
from .streaming import send_parts

MAX_PAGE = 1000
"""Largest number of jobs in a page."""

VIEWS = {"whole": 200, "short": MAX_PAGE, "table": MAX_PAGE}
"""How much of each job is sent, with how many jobs are read at a time."""

# Creation time (ms) of the last job, how many are left of those requested with `last`, and the job's id.
_CURSOR = re.compile(r"(\d{1,15})\.(\d{1,9})\.([A-Za-z0-9][A-Za-z0-9._-]{0,127})", re.ASCII)


async def send_jobs(request: web.Request, query: JobQuery) -> web.StreamResponse:
    """Send the jobs that a query selects.

    With ``limit``, send one page, with the URL of the next one in the header
    ``Link`` (RFC 8288, ``rel="next"``); after a full last page the next one is
    empty. Without it, send all jobs while they are read from the store.

    Raises
    ------
    RequestError
        If ``limit``, ``cursor`` or ``view`` is not valid.
    """
    asked, manager = request.query, request.app[SERVICE].manager
    limit, view = asked.get("limit", ""), asked.get("view", "whole")
    if view not in VIEWS:
        raise RequestError(f"view: {view[:40]!r} is not one of {', '.join(VIEWS)}")
    size = min(parse_count("limit", limit), MAX_PAGE) if limit else 0
    if "cursor" in asked:
        if not size:
            raise RequestError("cursor: expected limit beside it")
        query = _after_cursor(query, asked["cursor"])
    if not size:
        return await send_parts(request, "application/json", _parts(manager, query, view))
    return await _send_page(request, query, size, view)


def _after_cursor(query: JobQuery, cursor: str) -> JobQuery:
    match = _CURSOR.fullmatch(cursor)
    if match is None:
        raise RequestError("cursor: expected the cursor of a header Link")
    last = None if query.last is None else int(match[2])
    return dataclasses.replace(query, last=last, start=(int(match[1]), match[3]))


async def _send_page(request: web.Request, query: JobQuery, limit: int, view: str) -> web.Response:
    manager = request.app[SERVICE].manager
    texts: list[str] = []
    end, count = None, 0
    # Limits how many jobs are read at a time, whatever `last` is.
    size = min(limit, VIEWS[view])
    async with aclosing(_items(manager, query, view, size)) as pages:
        async for page in pages:
            page = page[: limit - count]
            # One call for the whole page: one for each job would take twice as long.
            texts += [json.dumps([_document(item) for item in page])[1:-1]] if page else []
            count += len(page)
            end = page[-1] if page else end
            if count >= limit:
                break
    response = web.Response(text=f"[{','.join(texts)}]\n", content_type="application/json")
    left = None if query.last is None else query.last - count
    if end is not None and count == limit and left != 0:
        cursor = f"{to_ms(end.creation_time)}.{left or 0}.{end.id}"
        service = request.app[SERVICE]
        url = request.rel_url.update_query(cursor=cursor)
        response.headers["Link"] = f'<{service.base_url(request)}{url}>; rel="next"'
    response.enable_compression()
    return response


async def _parts(manager: JobManager, query: JobQuery, view: str) -> AsyncGenerator[str, None]:
    lead = "["
    async for page in _items(manager, query, view, VIEWS[view]):
        if page:
            yield lead + ",\n".join([json.dumps(_document(item)) for item in page])
            lead = ",\n"
    yield "[]" if lead == "[" else "]"


def _items(
    manager: JobManager, query: JobQuery, view: str, size: int
) -> AsyncGenerator[Sequence[Job | JobEntry | JobSummary], None]:
    if view == "whole":
        return manager.find_pages(query, size)
    return manager.find_entries(query, size) if view == "table" else manager.find_summaries(query, size)


def _document(item: Job | JobEntry | JobSummary) -> dict[str, Any]:
    if isinstance(item, Job):
        return http_document(item)
    if isinstance(item, JobEntry):
        return entry_document(item)
    return {
        "jobId": item.id,
        "runId": item.run_id or item.id,
        "ownerId": item.owner,
        "phase": phase_name(item.phase),
        "creationTime": item.creation_time.isoformat(" ", "seconds"),
        "jobInfo": {"definition": item.definition, "uwsPhase": str(item.phase)},
    }
