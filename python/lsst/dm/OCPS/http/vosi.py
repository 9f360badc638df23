# SPDX-License-Identifier: GPL-3.0-or-later
"""VOSI 1.1: availability and capabilities of the service."""

from __future__ import annotations

__all__ = ["routes"]

from aiohttp import web
from pydantic import AnyUrl
from vo_models.vodataservice import ParamHTTP
from vo_models.voresource.models import AccessURL, Capability
from vo_models.vosi.availability import Availability
from vo_models.vosi.capabilities import VOSICapabilities

from ..jobs.errors import JobError
from .context import SERVICE, Service

_VOSI = "ivo://ivoa.net/std/VOSI#"
_UWS = "ivo://ivoa.net/std/UWS#async-1.1"


def routes(prefix: str) -> list[web.RouteDef]:
    """Return the routes of VOSI; ``prefix`` is where everything lies."""
    return [
        web.get(f"{prefix}/availability", get_availability),
        web.get(f"{prefix}/capabilities", get_capabilities),
    ]


async def _trouble(service: Service) -> str:
    """Return why jobs cannot be accepted now; empty if they can."""
    try:
        _ = service.manager.lane
        await service.manager.last_change()
    except JobError as error:
        return str(error)
    return ""


async def get_availability(request: web.Request) -> web.Response:
    """Send whether the service is available."""
    service = request.app[SERVICE]
    trouble = await _trouble(service)
    document = Availability(
        available=not trouble,
        up_since=service.up_since,  # type: ignore[arg-type]
        note=[trouble] if trouble else [],
    )
    return _xml(document.to_xml(skip_empty=True, encoding="UTF-8"))


async def get_capabilities(request: web.Request) -> web.Response:
    """Send the capabilities: VOSI, and the job lists that anonymous callers may use."""
    service = request.app[SERVICE]
    base = service.base_url(request) + service.config.prefix
    offered = [(_VOSI + name, f"{base}/{name}") for name in ("availability", "capabilities")]
    offered += [(_UWS, service.list_url(request, found.name)) for found in service.offered("")]
    document = VOSICapabilities(capability=[_capability(standard, url) for standard, url in offered])
    return _xml(document.to_xml(skip_empty=True, encoding="UTF-8"))


def _capability(standard: str, url: str) -> Capability:
    address = AccessURL(use="base" if standard == _UWS else "full", value=AnyUrl(url))
    interface = ParamHTTP(type="vs:ParamHTTP", access_url=[address])
    return Capability(standard_id=AnyUrl(standard), interface=[interface])


def _xml(document: str | bytes) -> web.Response:
    body = document.encode() if isinstance(document, str) else document
    return web.Response(body=body, content_type="application/xml", charset="utf-8")
