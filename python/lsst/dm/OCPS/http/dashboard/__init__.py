# SPDX-License-Identifier: GPL-3.0-or-later
"""The dashboard: one page for browsers, with its scripts and styles; the data come from the JSON dialect."""

from __future__ import annotations

__all__ = ["get_file", "get_page", "page_of", "routes"]

from html import escape
from pathlib import Path
from string import Template
from urllib.parse import quote

from aiohttp import web

from ...version import __version__
from ..context import SERVICE

_STATIC = Path(__file__).resolve().parent / "static"
_KINDS = {".js": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml"}
_FILES = {
    path.relative_to(_STATIC).as_posix(): (path.read_bytes(), _KINDS[path.suffix])
    for path in sorted(_STATIC.rglob("*"))
    if path.suffix in _KINDS
}
_PAGE = Template((_STATIC / "page.html").read_text())

_HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; "
        "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "Cache-Control": "no-cache",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}


def routes(prefix: str) -> list[web.RouteDef]:
    """Return the routes of the dashboard; ``prefix`` is where everything lies."""
    return [
        web.get(f"{prefix}/", get_page),
        web.get(f"{prefix}/ui/static/{{file:.+}}", get_file),
        web.get(f"{prefix}/ui/{{page:job|submit|history}}", get_page),
        web.get(f"{prefix}/ui/{{page:job|submit|history}}/{{name}}", get_page),
    ]


async def get_page(request: web.Request) -> web.Response:
    """Send the page; its scripts show what the address says, and ask for a login where one is needed."""
    config = request.app[SERVICE].config
    page = _PAGE.substitute(
        prefix=escape(config.prefix),
        api=escape(config.api_root),
        uws=escape(config.uws_root),
        login="yes" if config.auth.method == "secrets" else "no",
        version=escape(__version__),
    )
    return web.Response(text=page, content_type="text/html", headers=_HEADERS)


async def get_file(request: web.Request) -> web.Response:
    """Send a script or style of the page."""
    found = _FILES.get(request.match_info["file"])
    if found is None:
        raise web.HTTPNotFound(text="The dashboard has no such file\n")
    content, kind = found
    response = web.Response(body=content, content_type=kind, charset="utf-8", headers=_HEADERS)
    response.enable_compression()
    return response


def page_of(request: web.Request) -> str | None:
    """Return the page that shows what a UWS address stands for, if a browser asks for HTML there.

    Returns
    -------
    page : `str` or `None`
        Its path; `None` if the caller did not ask for HTML before all else,
        as browsers do and UWS clients do not.
    """
    if request.method != "GET" or not request.headers.get("Accept", "").startswith("text/html"):
        return None
    names, prefix = request.match_info, request.app[SERVICE].config.prefix
    if "job_id" in names:
        return f"{prefix}/ui/job/{quote(names['job_id'], safe='')}"
    return f"{prefix}/ui/history?definition={quote(names['list'], safe='')}"
