# SPDX-License-Identifier: GPL-3.0-or-later
"""How a client learns of changes: from the stream of an OCPS, or by polling."""

from __future__ import annotations

__all__ = ["Follower", "PollFollower", "Server", "StreamFollower", "discover"]

import asyncio
import json
import random
from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing, suppress
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Protocol
from urllib.parse import urlsplit

from .documents import RemoteJob
from .errors import DocumentError, RefusedError, UnknownError, UnreachableError
from .job_lists import JobLists
from .link import Link
from .patience import Patience
from .rubin import RubinServer

AT_ONCE = 8
"""How many jobs are asked for at a time."""


DRY_RUN_MARK = "x-dryrun"
"""Member of an OCPS's OpenAPI document that says that it has dry runs."""

CUT_PAUSE = 0.1
"""Pause (s) before a stream that was cut is opened again."""


@dataclass(frozen=True, slots=True)
class Server:
    """The addresses of a server.

    Parameters
    ----------
    uws : `str`
        Where an OCPS has its job lists; the job list of another server.
    api : `str`
        Where an OCPS has the JSON dialect; empty for another server.
    dry_run : `bool`
        Whether it has dry runs; to an older one the request would be that for
        a job.
    """

    uws: str
    api: str = ""
    dry_run: bool = False

    @property
    def ours(self) -> bool:
        """Whether it is an OCPS."""
        return bool(self.api)


async def discover(link: Link) -> Server:
    """Find out what a server is.

    An OCPS is known by its OpenAPI document; everything else is taken for
    the address of a UWS job list.

    Raises
    ------
    UnreachableError
        If it cannot be asked.
    """
    parts = urlsplit(link.url)
    origin = f"{parts.scheme}://{parts.netloc}"
    # All of it may lie under a prefix: above a job list (…/uws) or the dialect (…/api/v1).
    above = [f"{origin}{parent}".rstrip("/") for parent in PurePosixPath(parts.path or "/").parents][:3]
    candidates = (link.url, *above, origin)
    for api in dict.fromkeys((f"{link.url}/api/v1", link.url, *(f"{base}/api/v1" for base in candidates))):
        with suppress(RefusedError, ValueError, KeyError, TypeError):
            info = json.loads((await link.get(f"{api}/openapi.json")).body)["info"]
            if info["title"] == "OCPS":
                # The path alone: how the server calls itself may be another name than ours for it.
                return Server(origin + urlsplit(info["x-uws"]).path, api, info.get(DRY_RUN_MARK) is True)
    return Server(link.url)


class Follower(Protocol):
    """Yields changes of jobs as they come."""

    def changes(self, definitions: Sequence[str]) -> AsyncIterator[RemoteJob | None]:
        """Yield each job as it is after a change.

        `None` comes first, when the server has begun to show changes, and
        again when something may have been missed: then the caller should
        list the jobs itself.
        """
        ...


class StreamFollower:
    """Reads the change stream of an OCPS; resumes it after cuts.

    Parameters
    ----------
    server : `RubinServer`
        The server.
    patience : `Patience`
        How long the server may be away.
    """

    def __init__(self, server: RubinServer, patience: Patience) -> None:
        self._server = server
        self._patience = patience

    async def changes(self, definitions: Sequence[str]) -> AsyncIterator[RemoteJob | None]:
        """Yield changes; see `Follower`."""
        last = ""
        while True:
            try:
                opened = False
                async with aclosing(self._server.events(definitions, last)) as events:  # type: ignore[type-var]
                    async for event in events:
                        last = event.id
                        self._patience.answered()
                        if not opened or event.type == "deleted":
                            # Who shows jobs has to look which are left.
                            opened = True
                            yield None
                        if event.data and event.type == "message":
                            yield self._server.read_event(event)
            except UnreachableError as error:
                # A stream that was cut can often be opened again at once.
                if not opened:
                    await self._patience.failed(error)
            except DocumentError:
                pass
            await asyncio.sleep(random.uniform(0.5, 1) * CUT_PAUSE)


class PollFollower:
    """Asks any UWS server for its job lists, and for the jobs that have changed.

    Parameters
    ----------
    lists : `JobLists`
        The server.
    url : `str`
        The job list.
    interval : `float`
        How often to ask (s).
    patience : `Patience`
        How long the server may be away.
    """

    def __init__(self, lists: JobLists, url: str, interval: float, patience: Patience) -> None:
        self._patience = patience
        self._lists = lists
        self._url = url
        self._interval = interval

    async def changes(self, definitions: Sequence[str]) -> AsyncIterator[RemoteJob | None]:
        """Yield changes; see `Follower`."""
        urls = [f"{self._url}/{name}" if name else self._url for name in definitions or ("",)]
        seen: dict[str, str] = {}
        first = True
        while True:
            try:
                listed = [job for url in urls for job in await self._lists.list(url)]
                changed = [job for job in listed if seen.get(job.url) != job.phase]
                gone = seen.keys() - {job.url for job in listed}
                whole = [] if first else await self._whole(changed)
                # Not before all has been had: what is not had now is asked for the next time.
                seen = {job.url: job.phase for job in listed}
                if first or gone:
                    yield None
                first = False
                self._patience.answered()
                for job in whole:
                    yield job
            except UnreachableError as error:
                await self._patience.failed(error)
            await asyncio.sleep(self._interval)

    async def _whole(self, jobs: list[RemoteJob]) -> list[RemoteJob]:
        """Return jobs with all that their own documents say."""
        room = asyncio.Semaphore(AT_ONCE)

        async def ask(job: RemoteJob) -> RemoteJob | None:
            async with room:
                try:
                    return await self._lists.get(job.url)
                except UnknownError:
                    return None

        return [job for job in await asyncio.gather(*map(ask, jobs)) if job]
