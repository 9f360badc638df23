# SPDX-License-Identifier: GPL-3.0-or-later
"""Results and logs of jobs."""

from __future__ import annotations

__all__ = ["LOG", "read_log", "read_result", "save_result"]

import os
import secrets
from pathlib import Path, PurePosixPath

from .content import Content
from .documents import RemoteJob, RemoteResult
from .errors import ClientError, RefusedError, UnknownError
from .link import CHUNK, MAX_ANSWER, Link

RANGE_NOT_SATISFIABLE = 416
"""HTTP status: the log has no more data than was read before."""

LOG = "ocps.log"
"""Name of the result that is a job's log."""

FORMER_LOG = "attempt-{}-log.txt"
"""The result that is the log of a former attempt, by its number."""

MAX_LOG = 16 * 1024**2
"""How much of a log is read at a time (bytes)."""

SILENCE = 60.0
"""How long (s) a transfer may pause before the connection counts as lost."""


async def read_result(link: Link, result: RemoteResult) -> Content:
    """Return the content of a result; see `Client.read`."""
    async for attempt in link.attempts():
        with attempt:
            data = bytearray()
            async with link.fetch(result.url, silence=SILENCE) as response:
                async for part in response.content.iter_chunked(CHUNK):
                    data += part
                    if len(data) > MAX_ANSWER:
                        raise ClientError(f"{result.id} is longer than {MAX_ANSWER} bytes; download it")
                kind = result.mime_type or response.content_type
            return Content(result.id, bytes(data), "" if kind == "application/octet-stream" else kind)
    raise AssertionError("not reached")


async def save_result(link: Link, result: RemoteResult, folder: Path, *, overwrite: bool = False) -> Path:
    """Save a result; see `Client.download`."""
    try:
        path = _path(result.id, folder)
        partial = path.with_name(f".{path.name[:200]}.{secrets.token_hex(4)}.part")
        if not overwrite and os.path.lexists(path):
            raise FileExistsError
        file = partial.open("xb")
    except FileExistsError:
        raise _exists(folder, result) from None
    except (OSError, ValueError) as error:
        raise _failed(folder, result, error) from None
    try:
        with file:
            async for attempt in link.attempts():
                with attempt:
                    file.seek(0)
                    file.truncate()
                    async with link.fetch(result.url, silence=SILENCE) as response:
                        async for part in response.content.iter_chunked(CHUNK):
                            file.write(part)
        if overwrite:
            partial.replace(path)
        else:
            # Unlike renaming, linking fails if the file exists meanwhile.
            path.hardlink_to(partial)
    except FileExistsError:
        raise _exists(folder, result) from None
    except OSError as error:
        raise _failed(folder, result, error) from None
    finally:
        partial.unlink(missing_ok=True)
    return path


def _path(name: str, folder: Path) -> Path:
    """Return the path at which to save a result, and create its directory.

    Names are from the server, so they must not lead out of the folder, make a
    hidden file (such as those of a shell or ssh), or follow a link in it.
    """
    parts = PurePosixPath(name).parts
    if not parts or "\\" in name or any(part.startswith((".", "/")) for part in parts):
        raise ClientError(f"The result {name!r} has a name under which it cannot be saved")
    path = folder.joinpath(*parts)
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.parent.resolve() != folder.resolve().joinpath(*parts[:-1]):
        raise ClientError(f"The result {name!r} cannot be saved: in {folder}, its folder is a link")
    return path


def _exists(folder: Path, result: RemoteResult) -> ClientError:
    return ClientError(f"{folder / result.id} exists already")


def _failed(folder: Path, result: RemoteResult, error: Exception) -> ClientError:
    reason = getattr(error, "strerror", None) or error
    return ClientError(f"The result {result.id!r} cannot be saved in {folder}: {reason}")


async def read_log(link: Link, job: RemoteJob, start: int, attempt: int | None = None) -> bytes:
    """Return a part of a job's log; see `Client.read_log`."""
    if attempt is None or attempt == job.attempt:
        names = [result.url for result in job.results if result.id.endswith(".log")]
        url = names[0] if names else f"{job.url}/results/{LOG}"
    else:
        names = [result.url for result in job.results if result.id == FORMER_LOG.format(attempt)]
        if not names and not 1 <= attempt < job.attempt:
            raise UnknownError(f"Job {job.id} has no attempt {attempt}; it is on attempt {job.attempt}")
        if not names:
            return b""
        url = names[0]
    try:
        headers = {"Range": f"bytes={start}-"}
        async with link.fetch(url, headers=headers, silence=SILENCE) as response:
            # A server that does not know ranges sends all of it.
            skip = start if response.status == 200 else 0
            text = bytearray()
            async for part in response.content.iter_chunked(CHUNK):
                text += part[skip:]
                skip -= min(skip, len(part))
                if len(text) >= MAX_LOG:
                    break
            return bytes(text)
    except UnknownError:
        return b""
    except RefusedError as error:
        if error.status == RANGE_NOT_SATISFIABLE:
            return b""
        raise
