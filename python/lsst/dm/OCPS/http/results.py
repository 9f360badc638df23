# SPDX-License-Identifier: GPL-3.0-or-later
"""Files of jobs, streamed, whole or in ranges."""

from __future__ import annotations

__all__ = ["send_file", "send_result"]

import re
from contextlib import AsyncExitStack
from pathlib import Path
from urllib.parse import unquote, urlsplit

from aiohttp import web

from ..client.errors import ClientError
from ..jobs.backend import RemoteFile
from ..jobs.errors import BackendError
from ..jobs.model import Job, Result
from ..jobs.workspace import FORMER_LOG, LOG_NAME, guess_mime_type
from .context import SERVICE

_OPEN_RANGE = re.compile(r"bytes=([0-9]{1,18})-", re.ASCII)
"""The kind of range with which a log is read on; others are answered with the whole."""


async def send_result(request: web.Request, job: Job, result_id: str) -> web.StreamResponse:
    """Send a result of a job; while it runs, its log.

    Raises
    ------
    aiohttp.web.HTTPNotFound
        If it has no such result.
    """
    service = request.app[SERVICE]
    former = (one.number for one in job.attempts if result_id == FORMER_LOG.format(one.number))
    workspace = service.manager.workspaces.of(job.id, next(former, job.attempt))
    # Only what the engine has listed: an id is looked up, and never becomes a path.
    found = next((result for result in job.results if result.id == result_id), None)
    missing = web.HTTPNotFound(text=f"Job {job.id} has no result {result_id[:80]!r}")
    if found is None:
        if result_id != LOG_NAME or job.terminal:
            raise missing
        if workspace.log.is_file():
            return send_file(workspace.output, workspace.log, "text/plain")
        if sent := await _send_remote(request, job, None, "text/plain"):
            return sent
        raise missing
    address = urlsplit(found.uri)
    kind = found.mime_type or guess_mime_type(result_id)
    if address.scheme in ("http", "https"):
        if sent := await _send_remote(request, job, found, kind):
            return sent
        raise web.HTTPSeeOther(found.uri)
    if address.scheme != "file":
        raise web.HTTPNotFound(text=f"Result {result_id} is at {found.uri}, which cannot be sent from here")
    return send_file(workspace.output, Path(unquote(address.path)), kind)


async def _send_remote(
    request: web.Request, job: Job, result: Result | None, kind: str
) -> web.StreamResponse | None:
    """Send a file that the job's backend fetches; `None` if it cannot."""
    manager = request.app[SERVICE].manager
    lane = manager.lanes.get(job.backend, manager.lane)
    wanted = _OPEN_RANGE.fullmatch(request.headers.get("Range", ""))
    async with AsyncExitStack() as stack:
        try:
            fetched = lane.backend.fetch(job, result, int(wanted[1]) if wanted else 0)
            file = await stack.enter_async_context(fetched)
        except FileNotFoundError:
            raise web.HTTPNotFound(text="There is no such file any more") from None
        if file is None:
            return None
        response = web.StreamResponse(headers=_headers(kind))
        if file.start:
            if file.size == file.start:
                raise web.HTTPRequestRangeNotSatisfiable(text="There is no more of it\n")
            end = "" if file.size is None else file.size - 1
            response.set_status(206)
            response.headers["Content-Range"] = f"bytes {file.start}-{end}/{'*' if end == '' else file.size}"
        if file.size is not None:
            response.content_length = file.size - file.start
        await response.prepare(request)
        if request.method != "HEAD":
            await _copy(request, response, file)
        return response


async def _copy(request: web.Request, response: web.StreamResponse, file: RemoteFile) -> None:
    try:
        async for part in file.parts:
            await response.write(part)
        await response.write_eof()
    except (BackendError, ClientError, OSError, TimeoutError) as error:
        # Nobody must take the half for the whole.
        request.app[SERVICE].log.error(f"{request.path} was cut off: {error}")
        if request.transport:
            request.transport.abort()


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
    return web.FileResponse(real, headers=_headers(kind), chunk_size=1 << 18)


def _headers(kind: str) -> dict[str, str]:
    if kind.startswith("text/"):
        kind += "; charset=utf-8"
    return {
        "Content-Type": kind,
        # A job may have written a page with a program in it: it must not run as ours.
        "Content-Security-Policy": "sandbox; default-src 'none'",
        "X-Content-Type-Options": "nosniff",
    }
