# SPDX-License-Identifier: GPL-3.0-or-later
"""UWS job lists with their filters, sent while they are read from the store."""

from __future__ import annotations

__all__ = ["parse_count", "parse_phase", "send_list"]

import re
from collections.abc import AsyncGenerator

from aiohttp import web

from ..jobs.errors import RequestError
from ..jobs.model import ExecutionPhase
from ..jobs.store import JobQuery
from . import uws_xml
from .context import Service, caller_of
from .streaming import send_parts
from .times import parse_time


async def send_list(service: Service, request: web.Request, definition: str) -> web.StreamResponse:
    """Send the list of a definition's jobs."""
    query = _parse_query(request)
    caller = caller_of(request)
    query = JobQuery(
        definition=definition,
        owner=None if caller.operator else caller.name,
        phases=query.phases,
        after=query.after,
        last=query.last,
    )
    list_url = uws_xml.attribute(service.list_url(request, definition))
    return await send_parts(request, "application/xml", _parts(service, query, list_url))


async def _parts(service: Service, query: JobQuery, list_url: str) -> AsyncGenerator[str, None]:
    start = uws_xml.list_start()
    async for page in service.manager.find_summaries(query):
        yield start + "".join([uws_xml.job_reference(job, list_url) for job in page])
        start = ""
    yield start + uws_xml.LIST_END


def _parse_query(request: web.Request) -> JobQuery:
    phases, after, last = set(), None, None
    mistakes = []
    for name, value in request.query.items():
        try:
            match name.upper():
                case "PHASE":
                    phases.add(parse_phase("PHASE", value))
                case "AFTER":
                    after = parse_time("AFTER", value)
                case "LAST":
                    last = parse_count("LAST", value)
        except RequestError as error:
            mistakes.append(str(error))
    if mistakes:
        raise RequestError("; ".join(mistakes))
    return JobQuery(phases=phases, after=after, last=last)


def parse_phase(name: str, text: str) -> ExecutionPhase:
    """Return a phase of UWS.

    Raises
    ------
    RequestError
        If it is none. It begins with ``name``.
    """
    try:
        return ExecutionPhase(text)
    except ValueError:
        raise RequestError(f"{name}: {text[:40]!r} is not one of {', '.join(ExecutionPhase)}") from None


def parse_count(name: str, text: str) -> int:
    """Return how many jobs a request asks for: a whole number of at most nine digits.

    Raises
    ------
    RequestError
        If it is not such a number, or 0. It begins with ``name``.
    """
    if not re.fullmatch("[0-9]{1,9}", text.strip()) or int(text) == 0:
        raise RequestError(f"{name}: {text[:40]!r} is not a whole number above 0")
    return int(text)
