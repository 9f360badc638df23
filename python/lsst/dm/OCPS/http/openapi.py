# SPDX-License-Identifier: GPL-3.0-or-later
"""The OpenAPI document of the JSON dialect: ``schema/openapi.yaml`` with version and URLs."""

from __future__ import annotations

__all__ = ["get_document"]

from pathlib import Path
from typing import Any

import yaml
from aiohttp import web

from ..version import __version__
from .context import SERVICE

_DOCUMENT: dict[str, Any] = yaml.safe_load(
    (Path(__file__).resolve().parents[1] / "schema" / "openapi.yaml").read_text()
)


async def get_document(request: web.Request) -> web.Response:
    """Send the document."""
    service = request.app[SERVICE]
    server = {"url": service.base_url(request) + service.config.api_root}
    # The URL of the UWS job lists, which our own clients use.
    info = _DOCUMENT["info"] | {
        "x-dryrun": True,
        "x-search": True,
        "version": __version__,
        "x-uws": f"{service.base_url(request)}{service.config.uws_root}",
    }
    return web.json_response(_DOCUMENT | {"info": info, "servers": [server]})
