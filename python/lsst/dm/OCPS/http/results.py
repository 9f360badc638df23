# SPDX-License-Identifier: GPL-3.0-or-later
"""Files of jobs, streamed, whole or in ranges."""

from __future__ import annotations

__all__ = ["send_file", "send_result"]

from pathlib import Path
from urllib.parse import unquote, urlsplit

from aiohttp import web

from ..jobs.model import Job
from ..jobs.workspace import LOG_NAME, guess_mime_type
from .context import Service


async def send_result(service: Service, job: Job, result_id: str) -> web.StreamResponse:
    """Send a result of a job; while it runs, its log.

    Raises
    ------
    aiohttp.web.HTTPNotFound
        If it has no such result.
    """
    workspace = service.manager.workspaces.of(job.id)
    # Only what the engine has listed: an id is looked up, and never becomes a path.
    found = next((result for result in job.results if result.id == result_id), None)
    if found is None:
        if result_id == LOG_NAME and not job.terminal:
            return send_file(workspace.output, workspace.log, "text/plain")
        raise web.HTTPNotFound(text=f"Job {job.id} has no result {result_id[:80]!r}")
    address = urlsplit(found.uri)
    if address.scheme in ("http", "https"):
        raise web.HTTPSeeOther(found.uri)
    if address.scheme != "file":
        raise web.HTTPNotFound(text=f"Result {result_id} is at {found.uri}, which cannot be sent from here")
    kind = found.mime_type or guess_mime_type(result_id)
    return send_file(workspace.output, Path(unquote(address.path)), kind)


def send_file(folder: Path, path: Path, kind: str) -> web.StreamResponse:
    """Send a file that lies in a folder, also after links are followed.

    Raises
    ------
    aiohttp.web.HTTPNotFound
        If it is not there, or elsewhere.
    """
    real = path.resolve()
    # A job may have put a link in the folder's place.
    if folder.is_symlink() or not real.is_relative_to(folder.resolve()) or not real.is_file():
        raise web.HTTPNotFound(text="There is no such file any more")
    if kind.startswith("text/"):
        kind += "; charset=utf-8"
    headers = {
        "Content-Type": kind,
        # A job may have written a page with a program in it: it must not run as ours.
        "Content-Security-Policy": "sandbox; default-src 'none'",
        "X-Content-Type-Options": "nosniff",
    }
    return web.FileResponse(real, headers=headers, chunk_size=1 << 18)
