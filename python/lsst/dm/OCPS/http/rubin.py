# SPDX-License-Identifier: GPL-3.0-or-later
"""The routes of the JSON dialect of Rubin's services: ``/api/v1/job``."""

from __future__ import annotations

__all__ = ["routes"]

import dataclasses
import json
from collections.abc import Mapping
from typing import Any

from aiohttp import web

from ..jobs.definition import JobDefinition
from ..jobs.errors import RequestError
from ..jobs.model import ExecutionPhase, JobRequest, Progress
from ..jobs.statistics import read_statistics
from ..jobs.store import JobQuery
from ..jobs.workspace import LOG_NAME
from ..rubin_json import http_document, phase_name
from . import rubin_requests
from .auth import Caller
from .bodies import read_body
from .context import SERVICE, caller_of, for_audit, not_for_audit
from .dry_runs import send_dry_run, wants_dry_run
from .job_pages import MAX_PAGE, send_jobs
from .lists import parse_count, parse_phase
from .openapi import get_document
from .order import order_of
from .results import send_result
from .times import parse_time

PHASES = tuple(phase.lower() for phase in ExecutionPhase)
MAX_SEARCH = 200
"""Longest text (characters) that is searched for."""

MAX_SEARCH_WORDS = 10
"""Most words that are searched for."""

MEMBERS = ("phase", "results", "parameters")


def routes(path: str) -> list[web.RouteDef]:
    """Return the routes of the dialect.

    Parameters
    ----------
    path : `str`
        The base path.
    """
    return [
        web.get(f"{path}/job/{{job_id}}/{{member:{'|'.join(MEMBERS)}}}", get_member),
        web.get(f"{path}/job/{{job_id}}", get_job),
        web.get(f"{path}/job", get_jobs),
        web.put(f"{path}/job", put_job),
        web.post(f"{path}/job", post_job),
        web.delete(f"{path}/job/{{job_id}}", delete_job),
        web.get(f"{path}/job/result/{{job_id}}/{{number}}", get_result),
        web.post(f"{path}/job/{{job_id}}/event", post_event),
        web.get(f"{path}/definitions", get_definitions),
        web.get(f"{path}/statistics", get_statistics),
        web.get(f"{path}/openapi.json", get_document),
    ]


def _json(value: Any) -> web.Response:
    return web.json_response(value)


# Jobs


async def put_job(request: web.Request) -> web.StreamResponse:
    """Create a job that runs a command line, or a pipeline if the command is the pipetask script."""
    service = request.app[SERVICE]
    caller = caller_of(request)
    body = await _read(request)
    asked = rubin_requests.from_put(body, caller.name, service.manager.lane.definitions)
    asked = dataclasses.replace(asked, **_order(caller, body))
    return await _create(request, asked)


async def post_job(request: web.Request) -> web.StreamResponse:
    """Create a job of a job definition, which this dialect calls type."""
    caller = caller_of(request)
    body = await _read(request)
    asked = dataclasses.replace(rubin_requests.from_post(body, caller.name), **_order(caller, body))
    return await _create(request, asked)


async def _create(request: web.Request, asked: JobRequest) -> web.StreamResponse:
    """Create a job and queue it at once; with ``dryrun`` in the query, only say what it would do."""
    if wants_dry_run(request.query.get("dryrun")):
        return await send_dry_run(request, asked)
    for_audit(request, "create", definition=asked.definition, run=True)
    job = await request.app[SERVICE].create(caller_of(request), asked, run=True)
    for_audit(request, "create", job.id, definition=asked.definition, run=True)
    return _json(http_document(job))


def _order(caller: Caller, body: Mapping[str, Any]) -> dict[str, Any]:
    return order_of(caller, body.get("prereq_jobs"), body.get("priority"))


async def get_jobs(request: web.Request) -> web.StreamResponse:
    """Send all jobs, those that the query selects, or one job by ``id``."""
    if "id" in request.query:
        request.match_info["job_id"] = request.query["id"]
        return await get_job(request)
    return await send_jobs(request, _parse_query(request))


def _parse_query(request: web.Request) -> JobQuery:
    caller, asked = caller_of(request), request.query
    phase = asked.get("phase", "")
    if phase and phase not in PHASES:
        raise RequestError(f"phase: {phase[:40]!r} is not one of {', '.join(PHASES)}")
    # Select by the phases as they are shown: a held job is shown as queued.
    phases = {member for member in ExecutionPhase if phase_name(member) == phase}
    nothing = bool(phase) and not phases
    if exact := asked.getall("uws_phase", []):
        found = {parse_phase("uws_phase", one.upper()) for one in exact}
        phases = found & phases if phase else found
        nothing = not phases
    owner = asked.get("owner") if caller.operator else caller.name
    last = asked.get("last", "")
    return JobQuery(
        definition=asked.get("definition"),
        owner=owner,
        phases=phases,
        nothing=nothing or owner != asked.get("owner", owner),
        last=parse_count("last", last) if last else None,
        run_id=asked.get("run_id"),
        after=parse_time("after", asked["after"]) if "after" in asked else None,
        before=parse_time("before", asked["before"]) if "before" in asked else None,
        words=_parse_words(asked.get("q", "")),
    )


def _parse_words(text: str) -> list[str]:
    words = text.split()
    if len(text) > MAX_SEARCH or len(words) > MAX_SEARCH_WORDS:
        raise RequestError(f"q: expected at most {MAX_SEARCH_WORDS} words and {MAX_SEARCH} characters")
    return words


async def get_job(request: web.Request) -> web.StreamResponse:
    """Send a job."""
    return _json(http_document(await request.app[SERVICE].job(request)))


async def get_member(request: web.Request) -> web.StreamResponse:
    """Send one member of a job."""
    return _json(http_document(await request.app[SERVICE].job(request))[request.match_info["member"]])


async def get_result(request: web.Request) -> web.StreamResponse:
    """Send the file of a result by its number; the log also by its name, while the job runs."""
    job = await request.app[SERVICE].job(request)
    number = request.match_info["number"]
    if number == LOG_NAME:
        return await send_result(request, job, number)
    if not (number.isascii() and number.isdigit() and len(number) < 10 and int(number) < len(job.results)):
        raise web.HTTPNotFound(text=f"Job {job.id} has no result {number[:40]!r}\n")
    return await send_result(request, job, job.results[int(number)].id)


async def delete_job(request: web.Request) -> web.StreamResponse:
    """Delete a job; abort it first if it runs."""
    service = request.app[SERVICE]
    job = await service.job(request)
    for_audit(request, "delete", job.id)
    await service.manager.destroy(job.id)
    return _json({"status": "ok", "message": "", "code": 200})


async def get_definitions(request: web.Request) -> web.StreamResponse:
    """Send the job definitions that the caller may use."""
    service = request.app[SERVICE]
    return _json([_definition(found) for found in service.offered(caller_of(request).name)])


def _definition(definition: JobDefinition) -> dict[str, Any]:
    parameters = []
    for parameter in definition.parameters:
        entry = {key: getattr(parameter, key) for key in ("name", "type", "unit", "description", "default")}
        entry |= {"min": parameter.min, "max": parameter.max, "options": list(parameter.options)}
        parameters.append(entry | {"required": parameter.default is None})
    return {"name": definition.name, "description": definition.description, "parameters": parameters}


async def get_statistics(request: web.Request) -> web.StreamResponse:
    """Send how the newest jobs of each definition ended, and how long they ran: those the caller may see."""
    service, caller = request.app[SERVICE], caller_of(request)
    last = min(parse_count("last", request.query.get("last", "100")), MAX_PAGE)
    names = [definition.name for definition in service.offered(caller.name)]
    owner = None if caller.operator else caller.name
    found = await read_statistics(service.manager.store, names, owner, last)
    return _json([dataclasses.asdict(entry) for entry in found])


# Progress that a job reports itself


async def post_event(request: web.Request) -> web.StreamResponse:
    """Store the progress that a job reports with its own token."""
    not_for_audit(request)
    service = request.app[SERVICE]
    job_id = request.match_info["job_id"]
    scheme, _, token = request.headers.get("Authorization", "").partition(" ")
    if scheme.lower() != "bearer" or not service.tokens.matches(job_id, token.strip()):
        # The same answer for an unknown job, so that it does not reveal which jobs exist.
        raise web.HTTPUnauthorized(text="Expected the token of this job, as Authorization: Bearer …\n")
    body = await _read(request)
    unknown = sorted(body.keys() - {"progress", "message"})
    if unknown:
        raise RequestError(f"{unknown[0][:40]}: not expected; a job reports progress and message")
    await service.manager.record_progress(
        job_id, _progress(body.get("progress")), _message(body.get("message"))
    )
    return _json({"status": "ok", "message": "", "code": 200})


def _progress(value: Any) -> Progress | None:
    if value is None:
        return None
    names = ("done", "failed", "total")
    if not isinstance(value, dict) or value.keys() - set(names):
        raise RequestError(f"progress: expected {', '.join(names)}")
    numbers = [value.get(name, 0) for name in names]
    if not all(type(number) is int and 0 <= number < 2**31 for number in numbers):
        raise RequestError("progress: expected whole numbers, 0 or more")
    return Progress(*numbers)


def _message(value: Any) -> str | None:
    if value is None:
        return None
    if not isinstance(value, str) or len(value) > 1000:
        raise RequestError("message: expected a text of at most 1000 characters")
    return value


# Reading


async def _read(request: web.Request) -> Mapping[str, Any]:
    """Return the JSON object in the body of a request."""
    try:
        body = json.loads(await read_body(request))
    except (ValueError, RecursionError):
        raise RequestError("The body is not JSON") from None
    if not isinstance(body, dict):
        raise RequestError("The body: expected a JSON object")
    return body
