# SPDX-License-Identifier: GPL-3.0-or-later
"""Following changes of jobs: by the stream of an OCPS, or by polling."""

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
"""How many jobs are requested at a time."""

DRY_RUN_MARK = "x-dryrun"
SEARCH_MARK = "x-search"
"""Member of an OCPS's OpenAPI document that says that it has dry runs."""

CUT_PAUSE = 0.1
"""Pause (s) before an interrupted stream is opened again."""


@dataclass(frozen=True, slots=True)
class Server:
    """The URLs of a server.

    Parameters
    ----------
    uws : `str`
        URL below which an OCPS has its job lists; URL of the job list of
        another server.
    api : `str`
        Base URL of the JSON dialect of an OCPS; empty for another server.
    dry_run : `bool`
        Whether the server supports dry runs; an older one would run the job.
    search : `bool`
        Whether the server searches jobs; an older one would list all.
    """

    uws: str
    api: str = ""
    dry_run: bool = False
    search: bool = False

    @property
    def ours(self) -> bool:
        """Whether it is an OCPS."""
        return bool(self.api)


async def discover(link: Link) -> Server:
    """Find the kind and URLs of a server.

    An OCPS is recognised by its OpenAPI document; any other URL is assumed to
    be that of a UWS job list.

    Raises
    ------
    UnreachableError
        If the server does not answer.
    """
    parts = urlsplit(link.url)
    origin = f"{parts.scheme}://{parts.netloc}"
    # There may be a prefix above the job lists (…/uws) and the dialect (…/api/v1).
    above = [f"{origin}{parent}".rstrip("/") for parent in PurePosixPath(parts.path or "/").parents][:3]
    candidates = (link.url, *above, origin)
    for api in dict.fromkeys((f"{link.url}/api/v1", link.url, *(f"{base}/api/v1" for base in candidates))):
        with suppress(RefusedError, ValueError, KeyError, TypeError):
            info = json.loads((await link.get(f"{api}/openapi.json")).body)["info"]
            if info["title"] == "OCPS":
                # Only the path, because the server may know itself by another host name.
                uws = origin + urlsplit(info["x-uws"]).path
                return Server(uws, api, info.get(DRY_RUN_MARK) is True, info.get(SEARCH_MARK) is True)
    return Server(link.url)


class Follower(Protocol):
    """Yields changes of jobs as they happen."""

    def changes(self, definitions: Sequence[str]) -> AsyncIterator[RemoteJob | None]:
        """Yield each job after each change.

        `None` is yielded first, when the server has begun to send changes,
        and again if a change may have been missed: then the caller should
        list the jobs.
        """
        ...


class StreamFollower:
    """Follows changes by the stream of an OCPS, which is resumed after interruptions.

    Parameters
    ----------
    server : `RubinServer`
        The server.
    patience : `Patience`
        How long the server may be unreachable.
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
                            # The caller has to list which jobs exist.
                            opened = True
                            yield None
                        if event.data and event.type == "message":
                            yield self._server.read_event(event)
            except UnreachableError as error:
                # An interrupted stream can often be opened again immediately.
                if not opened:
                    await self._patience.failed(error)
            except DocumentError:
                pass
            await asyncio.sleep(random.uniform(0.5, 1) * CUT_PAUSE)


class PollFollower:
    """Follows changes at any UWS server by polling its job lists.

    Parameters
    ----------
    lists : `JobLists`
        The server.
    url : `str`
        The job list.
    interval : `float`
        How often to poll (s).
    patience : `Patience`
        How long the server may be unreachable.
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
                # Only after all requests have succeeded, so that after an error they are repeated.
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
        """Return the whole documents of jobs."""
        room = asyncio.Semaphore(AT_ONCE)

        async def ask(job: RemoteJob) -> RemoteJob | None:
            async with room:
                try:
                    return await self._lists.get(job.url)
                except UnknownError:
                    return None

        return [job for job in await asyncio.gather(*map(ask, jobs)) if job]
