# SPDX-License-Identifier: GPL-3.0-or-later
"""Sending files of jobs, whole or in ranges."""

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
from .streaming import send_head

_OPEN_RANGE = re.compile(r"bytes=([0-9]{1,18})-", re.ASCII)
"""The supported form of Range, with which clients read a growing log; others get the whole file."""


async def send_result(request: web.Request, job: Job, result_id: str) -> web.StreamResponse:
    """Send a result of a job, or the log of a running job.

    Raises
    ------
    aiohttp.web.HTTPNotFound
        If the job has no such result.
    """
    service = request.app[SERVICE]
    former = (one.number for one in job.attempts if result_id == FORMER_LOG.format(one.number))
    workspace = service.manager.workspaces.of(job.id, next(former, job.attempt))
    # The id is looked up among the listed results, and is never used as a path.
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
    """Send a file that the job's backend fetches; return `None` if the backend does not fetch files."""
    manager = request.app[SERVICE].manager
    lane = manager.lanes.get(job.backend, manager.lane)
    wanted = _OPEN_RANGE.fullmatch(request.headers.get("Range", ""))
    async with AsyncExitStack() as stack:
        try:
            fetched = lane.backend.fetch(job, result, int(wanted[1]) if wanted else 0)
            file = await stack.enter_async_context(fetched)
        except FileNotFoundError:
            raise web.HTTPNotFound(text="The file does not exist any more") from None
        if file is None:
            return None
        response = web.StreamResponse(headers=_headers(kind))
        if file.start:
            if file.size == file.start:
                raise web.HTTPRequestRangeNotSatisfiable(text="The file has no more data\n")
            end = "" if file.size is None else file.size - 1
            response.set_status(206)
            response.headers["Content-Range"] = f"bytes {file.start}-{end}/{'*' if end == '' else file.size}"
        if file.size is not None:
            response.content_length = file.size - file.start
        await send_head(request, response)
        if request.method != "HEAD":
            await _copy(request, response, file)
        return response


async def _copy(request: web.Request, response: web.StreamResponse, file: RemoteFile) -> None:
    try:
        async for part in file.parts:
            await response.write(part)
        await response.write_eof()
    except (BackendError, ClientError, OSError, TimeoutError) as error:
        # Abort the connection, so that the client notices that the file is incomplete.
        request.app[SERVICE].log.error(f"{request.path} was cut off: {error}")
        if request.transport:
            request.transport.abort()


def send_file(folder: Path, path: Path, kind: str) -> web.StreamResponse:
    """Send a file, if it is in a folder after links are followed.

    Raises
    ------
    aiohttp.web.HTTPNotFound
        If the file does not exist, or is elsewhere.
    """
    real = path.resolve()
    # A job may have replaced the folder by a link.
    if folder.is_symlink() or not real.is_relative_to(folder.resolve()) or not real.is_file():
        raise web.HTTPNotFound(text="The file does not exist any more")
    return web.FileResponse(real, headers=_headers(kind), chunk_size=1 << 18)


def _headers(kind: str) -> dict[str, str]:
    if kind.startswith("text/"):
        kind += "; charset=utf-8"
    return {
        "Content-Type": kind,
        # A job may have written a page with scripts, which must not run in this site's name.
        "Content-Security-Policy": "sandbox; default-src 'none'",
        "X-Content-Type-Options": "nosniff",
    }
