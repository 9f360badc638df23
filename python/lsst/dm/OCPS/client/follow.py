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
from typing import Protocol
from urllib.parse import urlsplit

from .documents import RemoteJob
from .errors import DocumentError, RefusedError, UnknownError, UnreachableError
from .job_lists import JobLists
from .link import Link
from .rubin import RubinServer

LONGEST_PAUSE = 10.0
"""Longest pause (s) between two attempts to open a stream."""

AT_ONCE = 8
"""How many jobs are asked for at a time."""


@dataclass(frozen=True, slots=True)
class Server:
    """The addresses of a server.

    Parameters
    ----------
    uws : `str`
        Where an OCPS has its job lists; the job list of another server.
    api : `str`
        Where an OCPS has the JSON dialect; empty for another server.
    """

    uws: str
    api: str = ""

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
    for api in dict.fromkeys((f"{link.url}/api/v1", link.url, f"{origin}/api/v1")):
        with suppress(RefusedError, ValueError, KeyError, TypeError):
            info = json.loads((await link.get(f"{api}/openapi.json")).body)["info"]
            if info["title"] == "OCPS":
                # The path alone: how the server calls itself may be another name than ours for it.
                return Server(origin + urlsplit(info["x-uws"]).path, api)
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
    """

    def __init__(self, server: RubinServer) -> None:
        self._server = server

    async def changes(self, definitions: Sequence[str]) -> AsyncIterator[RemoteJob | None]:
        """Yield changes; see `Follower`."""
        last, failures = "", 0
        while True:
            try:
                opened = False
                async with aclosing(self._server.events(definitions, last)) as events:  # type: ignore[type-var]
                    async for event in events:
                        last, failures = event.id, 0
                        if not opened or event.type == "deleted":
                            # Who shows jobs has to look which are left.
                            opened = True
                            yield None
                        if event.data and event.type == "message":
                            yield self._server.read_event(event)
            except (UnreachableError, DocumentError):
                failures += 1
            # The first time at once: the server may have been restarted.
            pause = min(LONGEST_PAUSE, 0.1 * 2 ** min(failures, 10))
            await asyncio.sleep(random.uniform(0.5, 1) * pause)


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
    """

    def __init__(self, lists: JobLists, url: str, interval: float) -> None:
        self._lists = lists
        self._url = url
        self._interval = interval

    async def changes(self, definitions: Sequence[str]) -> AsyncIterator[RemoteJob | None]:
        """Yield changes; see `Follower`."""
        urls = [f"{self._url}/{name}" if name else self._url for name in definitions or ("",)]
        seen: dict[str, str] = {}
        first = True
        while True:
            with suppress(UnreachableError):
                listed = [job for url in urls for job in await self._lists.list(url)]
                changed = [job for job in listed if seen.get(job.url) != job.phase]
                gone = seen.keys() - {job.url for job in listed}
                whole = [] if first else await self._whole(changed)
                # Not before all has been had: what is not had now is asked for the next time.
                seen = {job.url: job.phase for job in listed}
                if first or gone:
                    yield None
                first = False
                for job in whole:
                    yield job
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
