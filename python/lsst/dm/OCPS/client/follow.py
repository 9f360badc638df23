# SPDX-License-Identifier: GPL-3.0-or-later
"""How a client learns of changes: from our own server's stream, or by asking again and again."""

from __future__ import annotations

__all__ = ["Follower", "PollFollower", "Server", "StreamFollower", "discover"]

import asyncio
import json
import random
from collections.abc import AsyncIterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Protocol
from urllib.parse import quote, urlsplit

from .documents import DocumentError, RemoteJob, parse_job, parse_json_job, parse_list
from .errors import RefusedError, UnknownError, UnreachableError
from .link import Link
from .sse import read_events

SILENCE = 45.0
"""How long (s) a stream may be still before it counts as cut; ours has a heartbeat every 15 s."""

LONGEST_PAUSE = 10.0
"""Longest pause (s) between two attempts to open a stream."""

AT_ONCE = 8
"""How many jobs are asked for at a time."""


@dataclass(frozen=True, slots=True)
class Server:
    """What a server is.

    Parameters
    ----------
    uws : `str`
        Our own server: where its job lists are. Another: its job list.
    api : `str`
        Where the JSON dialect of our own server is; empty for another.
    """

    uws: str
    api: str = ""

    @property
    def ours(self) -> bool:
        """Whether it is one of our own."""
        return bool(self.api)


async def discover(link: Link) -> Server:
    """Find out what a server is.

    Our own is known by its OpenAPI document; everything else is taken for
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
    """Gives changes of jobs as they come."""

    def changes(self, definitions: Sequence[str]) -> AsyncIterator[RemoteJob | None]:
        """Give each job as it is after a change.

        `None` comes first, when the server has begun to show changes, and
        again when something may have been missed: then is the time to look
        for oneself.
        """
        ...


class StreamFollower:
    """Reads the change stream of our own server; goes on through cuts.

    Parameters
    ----------
    link : `Link`
        To the server.
    server : `Server`
        What it is.
    """

    def __init__(self, link: Link, server: Server) -> None:
        self._link = link
        self._server = server

    async def changes(self, definitions: Sequence[str]) -> AsyncIterator[RemoteJob | None]:
        """Give changes; see `Follower`."""
        lists = "&".join(f"list={quote(name)}" for name in definitions)
        url = f"{self._server.api}/events{'?' if lists else ''}{lists}"
        last, failures = "", 0
        while True:
            headers = {"Accept": "text/event-stream", **({"Last-Event-ID": last} if last else {})}
            try:
                async with self._link.open("GET", url, headers=headers, silence=SILENCE) as response:
                    yield None
                    async for event in read_events(response.content.iter_any(), last):
                        last, failures = event.id, 0
                        if event.data and event.type == "message":
                            yield parse_json_job(json.loads(event.data), self._server.api, self._server.uws)
                        elif event.type == "deleted":
                            # Who shows jobs has to look which are left.
                            yield None
            except (UnreachableError, DocumentError, ValueError):
                failures += 1
            # The first time at once: the server may have been started anew.
            pause = min(LONGEST_PAUSE, 0.1 * 2 ** min(failures, 10))
            await asyncio.sleep(random.uniform(0.5, 1) * pause)


class PollFollower:
    """Asks any UWS server for its job lists, and for the jobs that have changed.

    Parameters
    ----------
    link : `Link`
        To the server.
    url : `str`
        The job list.
    interval : `float`
        How often to ask (s).
    """

    def __init__(self, link: Link, url: str, interval: float) -> None:
        self._link = link
        self._url = url
        self._interval = interval

    async def changes(self, definitions: Sequence[str]) -> AsyncIterator[RemoteJob | None]:
        """Give changes; see `Follower`."""
        urls = [f"{self._url}/{name}" if name else self._url for name in definitions or ("",)]
        seen: dict[str, str] = {}
        first = True
        while True:
            with suppress(UnreachableError, DocumentError):
                listed = [job for url in urls for job in await self._list(url)]
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

    async def _list(self, url: str) -> list[RemoteJob]:
        return parse_list((await self._link.get(url)).body, url)

    async def _whole(self, jobs: list[RemoteJob]) -> list[RemoteJob]:
        """Return jobs with all that their own documents say."""
        room = asyncio.Semaphore(AT_ONCE)

        async def ask(job: RemoteJob) -> RemoteJob | None:
            async with room:
                try:
                    return parse_job((await self._link.get(job.url)).body, job.url)
                except UnknownError:
                    return None

        return [job for job in await asyncio.gather(*map(ask, jobs)) if job]
