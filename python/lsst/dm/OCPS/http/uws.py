# SPDX-License-Identifier: GPL-3.0-or-later
"""The routes of UWS 1.1: ``/uws/{list}`` and below."""

from __future__ import annotations

__all__ = ["routes"]

import dataclasses
from typing import Any

from aiohttp import web
from multidict import CIMultiDict

from ..jobs.definition import JobDefinition
from ..jobs.errors import RequestError, TransitionError
from ..jobs.model import ExecutionPhase, Job, JobRequest
from ..jobs.parameters import UPLOAD_PREFIX, Parameter
from . import uws_xml
from .bodies import read_text
from .context import ORIGIN, SERVICE, Service, caller_of, for_audit
from .dry_runs import send_dry_run, wants_dry_run
from .forms import Form, parse_form, read_form
from .lists import send_list
from .order import order_of
from .results import send_file, send_result
from .times import parse_duration, parse_time
from .uploads import INPUTS
from .waiting import wait_for_change

DELETED_LIST = 100
"""How many jobs are listed to a client that follows the redirection after a DELETE."""

# Headers are copied, which takes less time than composing them for each answer.
_PLAIN = CIMultiDict({"Content-Type": "text/plain; charset=utf-8"})
_XML = CIMultiDict({"Content-Type": "application/xml; charset=utf-8"})


def routes(path: str) -> list[web.RouteDef]:
    """Return the routes of UWS.

    Parameters
    ----------
    path : `str`
        Where the job lists are.
    """
    jobs, job = f"{path}/{{list}}", f"{path}/{{list}}/{{job_id}}"
    found = [
        # The most frequent ones first, because aiohttp tries routes in order.
        web.get(f"{job}/phase", get_phase),
        web.get(job, get_job),
        web.post(jobs, create_job),
        web.get(jobs, get_list),
        web.get(f"{jobs}/", get_list),
        web.post(f"{jobs}/", create_job),
        web.get(f"{job}/", get_job),
        web.post(job, change_job),
        web.delete(job, delete_job),
        web.post(f"{job}/phase", change_job),
        web.get(f"{job}/parameters", get_parameters),
        web.post(f"{job}/parameters", change_job),
        web.put(f"{job}/parameters", change_job),
        web.get(f"{job}/parameters/{{name}}", get_parameter),
        web.put(f"{job}/parameters/{{name}}", put_parameter),
        web.post(f"{job}/parameters/{{name}}", put_parameter),
        web.get(f"{job}/results", get_results),
        web.get(f"{job}/results/{{name:.+}}", get_result),
        web.get(f"{job}/error", get_error),
        web.get(f"{job}/quote", get_quote),
        web.get(f"{job}/owner", get_owner),
    ]
    for name in ("executionduration", "executionDuration"):
        found += [web.get(f"{job}/{name}", get_duration), web.post(f"{job}/{name}", change_job)]
    found += [web.get(f"{job}/destruction", get_destruction), web.post(f"{job}/destruction", change_job)]
    return found


async def _find(request: web.Request) -> tuple[Service, Job]:
    service = request.app[SERVICE]
    return service, await service.job(request, request.match_info["list"])


def _url(service: Service, request: web.Request, job: Job) -> str:
    return f"{service.list_url(request, job.definition)}/{job.id}"


def _plain(value: str) -> web.Response:
    return web.Response(body=value.encode(), headers=_PLAIN)


def _xml(document: bytes) -> web.Response:
    return web.Response(body=document, headers=_XML)


def _definition(service: Service, job: Job) -> JobDefinition | None:
    return service.manager.lane.definitions.get(job.definition)


def _parameters(service: Service, job: Job) -> tuple[Parameter, ...]:
    """Return the parameters of a job's definition; none if that is not known any more."""
    definition = _definition(service, job)
    return definition.parameters if definition else ()


# Lists


async def get_list(request: web.Request) -> web.StreamResponse:
    """Send a job list."""
    service = request.app[SERVICE]
    definition = service.definition(request.match_info["list"], caller_of(request).name)
    return await send_list(service, request, definition.name)


async def create_job(request: web.Request) -> web.StreamResponse:
    """Create a job; redirect to it."""
    service = request.app[SERVICE]
    caller = caller_of(request)
    definition = service.definition(request.match_info["list"], caller.name)
    async with read_form(request, service, caller.name) as form:
        run = _run_at_once(form)
        values = form.parameters(definition)
        asked = JobRequest(
            definition.name,
            values,
            run_id=_run_id(form.controls.get("RUNID", "")),
            owner=caller.name,
            origin=ORIGIN,
            **_limits(form),
            **order_of(caller, form.controls.get("PREREQ_JOBS"), form.controls.get("PRIORITY")),
        )
        if wants_dry_run(form.controls.get("DRYRUN")):
            return await send_dry_run(request, asked)
        asked = dataclasses.replace(asked, job_id=definition.new_id(asked))
        for_audit(request, "create", asked.job_id, definition=definition.name, run=run)
        if form.files:
            definition.check(asked, complete=run)
        workspace = service.manager.workspaces.of(asked.job_id)
        try:
            await form.keep_files(workspace, values)
            job = await service.create(caller, asked, run)
            if form.files:
                service.uploads.keep(job.id, caller.name)
        except BaseException:
            if form.files:
                await service.manager.workspaces.remove(asked.job_id)
            raise
    raise web.HTTPSeeOther(_url(service, request, job))


def _run_at_once(form: Form) -> bool:
    phase = form.controls.get("PHASE", "").upper()
    if phase not in ("", "RUN"):
        raise RequestError(f"PHASE={phase[:40]}: a new job can only be told to RUN")
    return phase == "RUN"


def _run_id(value: str) -> str:
    if len(value) > 1024 or not (value.isprintable() or not value):
        raise RequestError("RUNID: expected at most 1024 printable characters")
    return value


def _limits(form: Form) -> dict[str, Any]:
    """Return the run time and the destruction time in a form."""
    limits: dict[str, Any] = {}
    if "EXECUTIONDURATION" in form.controls:
        limits["execution_duration"] = parse_duration(form.controls["EXECUTIONDURATION"])
    if "DESTRUCTION" in form.controls:
        limits["destruction"] = parse_time("DESTRUCTION", form.controls["DESTRUCTION"])
    return limits


# One job


async def get_job(request: web.Request) -> web.StreamResponse:
    """Send the document of a job; with WAIT, when its phase changes."""
    service, job = await _find(request)
    if request.query_string:
        job = await wait_for_change(service, request, job)
    parameters = _parameters(service, job)

    def compose() -> str:
        return uws_xml.job_document(job, _url(service, request, job), parameters)

    return _xml(service.documents.get(request.host, job, parameters, compose))


async def change_job(request: web.Request) -> web.StreamResponse:
    """Change a job by a form; redirect to the job."""
    service, job = await _find(request)
    definition = _definition(service, job)
    if definition is None:
        raise TransitionError(f"There is no job list {job.definition} any more")
    async with read_form(request, service, job.owner) as form:
        phase = form.controls.get("PHASE", "").upper()
        for_audit(request, phase.lower() or "change", job.id, changed=_names(form))
        if wants_dry_run(form.controls.get("DRYRUN")):
            raise RequestError("DRYRUN: only the creation of a job can be tried, at its job list")
        if "ACTION" in form.controls:
            if form.controls["ACTION"].upper() != "DELETE":
                raise RequestError("ACTION: expected DELETE")
            return await delete_job(request)
        kept = (name for name, value in job.parameters.items() if value == UPLOAD_PREFIX + name)
        changes = _limits(form)
        if values := form.parameters(definition, kept):
            changes["parameters"] = values
        if "RUNID" in form.controls:
            changes["run_id"] = _run_id(form.controls["RUNID"])
        if not changes and "PHASE" not in form.controls:
            raise RequestError("Nothing to change: expected PHASE, or parameters of the job")
        if changes:
            await service.manager.modify(job.id, **changes)
            await form.keep_files(service.manager.workspaces.of(job.id), values)
            if form.files:
                service.uploads.keep(job.id, job.owner)
        if "PHASE" in form.controls:
            await _change_phase(service, job, form.controls["PHASE"].upper())
    raise web.HTTPSeeOther(_url(service, request, job))


def _names(form: Form) -> list[str]:
    """Return the names of the fields in a form, short enough for the audit log."""
    return sorted({name[:80] for name, _ in form.fields} | {name[:80] for name in form.files})[:20]


async def _change_phase(service: Service, job: Job, phase: str) -> None:
    actions = {"RUN": service.manager.run, "ABORT": service.manager.abort, "HOLD": service.manager.hold}
    if phase not in actions:
        raise RequestError(f"PHASE={phase[:40]}: expected {', '.join(actions)}")
    await actions[phase](job.id)  # type: ignore[operator]


async def delete_job(request: web.Request) -> web.StreamResponse:
    """Delete a job, aborting it first if it runs; redirect to its list."""
    service, job = await _find(request)
    for_audit(request, "delete", job.id)
    await service.manager.destroy(job.id)
    raise web.HTTPSeeOther(f"{service.list_url(request, job.definition)}?LAST={DELETED_LIST}")


async def get_phase(request: web.Request) -> web.StreamResponse:
    """Send a job's phase."""
    # Not by _find: this is what clients ask for most often, and a call less is a hundredth of its time.
    service = request.app[SERVICE]
    job = await service.job(request, request.match_info["list"])
    if request.query_string:
        job = await wait_for_change(service, request, job)
    return _plain(job.phase)


async def get_duration(request: web.Request) -> web.StreamResponse:
    """Send how long a job may run (s)."""
    _, job = await _find(request)
    return _plain(str(job.execution_duration))


async def get_destruction(request: web.Request) -> web.StreamResponse:
    """Send when a job's files are removed."""
    _, job = await _find(request)
    return _plain(uws_xml.time_text(job.destruction))


async def get_quote(request: web.Request) -> web.StreamResponse:
    """Return an empty quote: run times are not predicted."""
    await _find(request)
    return _plain("")


async def get_owner(request: web.Request) -> web.StreamResponse:
    """Send the owner of a job."""
    _, job = await _find(request)
    return _plain(job.owner)


async def get_error(request: web.Request) -> web.StreamResponse:
    """Send why a job failed, with the end of its log."""
    _, job = await _find(request)
    if job.error is None or job.final_phase != ExecutionPhase.ERROR:
        raise web.HTTPNotFound(text=f"Job {job.id} is {job.phase}; it has no error")
    return _plain("\n\n".join(part for part in (job.error.message, job.error.detail) if part) + "\n")


# Parameters


async def get_parameters(request: web.Request) -> web.StreamResponse:
    """Send the parameters of a job."""
    service, job = await _find(request)
    url = _url(service, request, job)
    return _xml(uws_xml.parameters_document(job, url, _parameters(service, job)).encode())


async def get_parameter(request: web.Request) -> web.StreamResponse:
    """Return the value of a parameter: its text, or its file."""
    service, job = await _find(request)
    name = request.match_info["name"]
    if name not in job.parameters:
        raise web.HTTPNotFound(text=f"Job {job.id} has no parameter {name[:80]!r}")
    value = job.parameters[name]
    is_file = any(
        parameter.name == name and parameter.type == "file" for parameter in _parameters(service, job)
    )
    if is_file and value == UPLOAD_PREFIX + name:
        inputs = service.manager.workspaces.of(job.id).root / INPUTS
        return send_file(inputs, inputs / name, "application/octet-stream")
    return _plain(value)


async def put_parameter(request: web.Request) -> web.StreamResponse:
    """Set one parameter: the body is its value."""
    service, job = await _find(request)
    for_audit(request, "change", job.id, changed=[request.match_info["name"][:80]])
    value = await read_text(request, "The value")
    if request.content_type == "application/x-www-form-urlencoded":
        # Clients that can send nothing but forms send VALUE=….
        value = dict(parse_form(value)).get("VALUE", value)
    await service.manager.modify(job.id, parameters={request.match_info["name"]: value})
    raise web.HTTPSeeOther(_url(service, request, job))


# Results


async def get_results(request: web.Request) -> web.StreamResponse:
    """Send the list of a job's results."""
    service, job = await _find(request)
    return _xml(uws_xml.results_document(job, _url(service, request, job)).encode())


async def get_result(request: web.Request) -> web.StreamResponse:
    """Send a result, whole or a range of it."""
    _, job = await _find(request)
    return await send_result(request, job, request.match_info["name"])
