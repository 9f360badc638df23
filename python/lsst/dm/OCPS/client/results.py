# SPDX-License-Identifier: GPL-3.0-or-later
"""Results and logs."""

from __future__ import annotations

__all__ = ["LOG", "read_log", "save_result"]

from pathlib import Path, PurePosixPath

from .documents import RemoteJob, RemoteResult
from .errors import ClientError, RefusedError, UnknownError
from .link import CHUNK, Link

RANGE_NOT_SATISFIABLE = 416
"""HTTP status: the log has no more than was read."""

LOG = "ocps.log"
"""The result that is a job's log."""


async def save_result(link: Link, result: RemoteResult, folder: Path) -> Path:
    """Save a result; see `Client.download`."""
    parts = PurePosixPath(result.id).parts
    if not parts or PurePosixPath(result.id).is_absolute() or ".." in parts or "\\" in result.id:
        raise ClientError(f"The result {result.id!r} has a name under which it cannot be saved")
    path = folder.joinpath(*parts)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.part")
    try:
        async with link.open("GET", await _final(link, result.url), silence=60) as response:
            with partial.open("wb") as file:
                async for part in response.content.iter_chunked(CHUNK):
                    file.write(part)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
    return path


async def _final(link: Link, url: str) -> str:
    """Return where a result is in the end: our own server may send on to another."""
    answer = await link.safely("HEAD", url, redirect="return")
    return answer.location or url


async def read_log(link: Link, job: RemoteJob, start: int) -> bytes:
    """Return a job's log from a byte on; see `Client.read_log`."""
    names = [result.url for result in job.results if result.id.endswith(".log")]
    url = names[0] if names else f"{job.url}/results/{LOG}"
    try:
        async with link.open("GET", url, headers={"Range": f"bytes={start}-"}) as response:
            text = await response.read()
            return text[start:] if response.status == 200 else text
    except UnknownError:
        return b""
    except RefusedError as error:
        if error.status == RANGE_NOT_SATISFIABLE:
            return b""
        raise
