# SPDX-License-Identifier: GPL-3.0-or-later
"""The web application: routes, authentication of requests, and error answers."""

from __future__ import annotations

__all__ = ["make_app"]

from collections.abc import Awaitable, Callable

from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError

from .. import audit
from ..jobs.errors import (
    BackendError,
    JobError,
    NotAllowedError,
    QueueFullError,
    RequestError,
    StoreError,
    TransitionError,
    UnknownJobError,
    WouldFailError,
)
from ..measures import Measures
from ..version import __version__
from . import dashboard, events, health, metrics, openapi, rubin, uws, vosi
from .connections import Connection
from .context import CALLER, DONE, ORIGIN, SERVICE, Service
from .site import SAFE_METHODS, check_site

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

_STATUS: dict[type[JobError], int] = {
    RequestError: 400,
    NotAllowedError: 403,
    TransitionError: 403,
    UnknownJobError: 404,
    QueueFullError: 503,
    StoreError: 503,
    BackendError: 503,
    WouldFailError: 422,
}

_FIELD_NAMES = {"execution_duration": "executionDuration", "run_id": "runId"}
"""Names of UWS by those of `~lsst.dm.OCPS.jobs.model.JobRequest`, where they differ."""

_OPEN = frozenset(
    {
        health.get_health,
        health.get_ready,
        vosi.get_availability,
        vosi.get_capabilities,
        openapi.get_document,
        # What they send holds nothing of jobs.
        dashboard.get_page,
        dashboard.get_file,
        # Jobs authenticate with their own tokens, which the handler checks.
        rubin.post_event,
    }
)
"""Handlers that need no caller."""

_SHOWN = frozenset({uws.get_list, uws.get_job})
"""Handlers of what the dashboard shows to browsers."""


def make_app(service: Service, measures: Measures | None = None) -> web.Application:
    """Return the application.

    Parameters
    ----------
    service : `Service`
        The server's parts.
    measures : `~collections.abc.Callable`, optional
        Returns further figures of this process, for ``/metrics``.
    """
    config = service.config
    app = web.Application(middlewares=[_guard], client_max_size=config.max_body)
    app[SERVICE] = service
    app[events.READERS] = events.Readers()
    metrics.add_metrics(app, service.manager, measures)
    app.add_routes(uws.routes(config.uws_root))
    app.add_routes(rubin.routes(config.api_root))
    app.add_routes(events.routes(config.api_root))
    for served in (vosi, health, metrics, dashboard):
        app.add_routes(served.routes(config.prefix))
    app.on_shutdown.append(events.end_streams)
    app.on_response_prepare.append(_name_server)
    return app


@web.middleware
async def _guard(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Answer a request; write it into the audit log if it may change something."""
    connection = request.protocol
    if not isinstance(connection, Connection):
        return await _answer(request, handler)
    with connection.serving():
        # Progress that a job reports of itself is not a command.
        if request.method in SAFE_METHODS or request.match_info.handler is rubin.post_event:
            return await _answer(request, handler)
        return await _answer_and_record(request, handler)


async def _answer_and_record(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Answer a request that may change something, and write it into the audit log."""
    status = 500
    try:
        response = await _answer(request, handler)
        status = response.status
        return response
    except web.HTTPException as answer:
        status = answer.status
        raise
    finally:
        service = request.app[SERVICE]
        connection = request.protocol
        peer = connection.peer if isinstance(connection, Connection) else ""
        caller = request.get(CALLER)
        done = request.get(DONE) or {"action": f"{request.method} {request.path}"}
        if service.authenticator.is_proxy(peer) and "X-Forwarded-For" in request.headers:
            done = {**done, "forwarded_for": request.headers["X-Forwarded-For"]}
        audit.record(
            service.manager.workspaces.work_dir,
            origin=ORIGIN,
            owner=caller.name if caller else "",
            address=peer,
            outcome=f"HTTP {status}",
            refused=status >= 400,
            **done,
        )


async def _answer(request: web.Request, handler: Handler) -> web.StreamResponse:
    service = request.app[SERVICE]
    try:
        if request.headers.get("Content-Encoding", "identity").lower() != "identity":
            raise web.HTTPUnsupportedMediaType(text="Compressed requests are not read\n")
        check_site(request, service.config)
        if request.match_info.handler in _SHOWN and (page := dashboard.page_of(request)):
            return web.Response(status=303, headers={"Location": page, "Vary": "Accept"})
        if request.match_info.handler not in _OPEN:
            request[CALLER] = await service.authenticator.caller(request)
        return await handler(request)
    except JobError as error:
        status = _STATUS.get(type(error), 500)
        headers = {"Retry-After": "10"} if status == 503 else {}
        if isinstance(error, RequestError):
            error = error.renamed(_FIELD_NAMES)
        # The message may repeat text of the client that is not valid Unicode.
        words = f"{error}\n".encode(errors="backslashreplace")
        return web.Response(
            body=words, status=status, headers=headers, content_type="text/plain", charset="utf-8"
        )
    except (HttpProcessingError, web.RequestPayloadError):
        return web.Response(text="The request cannot be read\n", status=400)
    except web.HTTPException:
        raise
    except ConnectionError:
        # The client has disconnected.
        if request.transport:
            request.transport.abort()
        return web.Response(status=499)
    except Exception:
        # Details go to the log only: they may contain data that the caller must not see.
        service.log.exception(f"{request.method} {request.path} failed")
        return web.Response(text="An error in OCPS; its log has the details\n", status=500)


async def _name_server(request: web.Request, response: web.StreamResponse) -> None:
    response.headers["Server"] = f"OCPS/{__version__}"
    # Proxies replace Server by their own name.
    response.headers["X-OCPS"] = __version__
