# SPDX-License-Identifier: GPL-3.0-or-later
"""The web application: routes, and which of them need a caller."""

from __future__ import annotations

__all__ = ["make_app"]

from functools import wraps

from aiohttp import web

from ..measures import Measures
from . import dashboard, events, health, metrics, openapi, rubin, status, uws, vosi
from .context import CALLER, GUARDED, SERVICE, Service
from .guard import Handler

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
    app = web.Application(client_max_size=config.max_body)
    app[SERVICE] = service
    app[events.READERS] = events.Readers()
    metrics.add_metrics(app, service.manager, measures)
    routes = uws.routes(config.uws_root)
    for dialect in (rubin, events, status):
        routes += dialect.routes(config.api_root)
    for served in (vosi, health, metrics, dashboard):
        routes += served.routes(config.prefix)
    app.add_routes([_for_callers(route, service) for route in routes])
    app.on_shutdown.append(events.end_streams)
    return app


def _for_callers(route: web.RouteDef, service: Service) -> web.RouteDef:
    """Return a route that identifies the caller before its handler is called, if it needs one."""
    handler = route.handler
    is_open = handler in _OPEN

    @wraps(handler)
    async def answer(request: web.Request) -> web.StreamResponse:
        if GUARDED not in request:
            # The way in which the guard is put before the application is not documented by aiohttp.
            service.log.error(
                "The guard is not asked by this version of aiohttp: use that of requirements.txt"
            )
            raise web.HTTPInternalServerError(text="An error in OCPS; its log has the details\n")
        if not is_open:
            request[CALLER] = await service.authenticator.caller(request)
        return await handler(request)

    wrapped = _for_browsers(answer) if handler in _SHOWN else answer
    return web.RouteDef(route.method, route.path, wrapped, route.kwargs)


def _for_browsers(handler: Handler) -> Handler:
    """Return a handler that redirects browsers to the dashboard."""

    @wraps(handler)
    async def shown(request: web.Request) -> web.StreamResponse:
        if page := dashboard.page_of(request):
            return web.Response(status=303, headers={"Location": page, "Vary": "Accept"})
        return await handler(request)

    return shown
