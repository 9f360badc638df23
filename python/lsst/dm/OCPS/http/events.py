# SPDX-License-Identifier: GPL-3.0-or-later
"""The change stream, ``GET /api/v1/events``: server-sent events.

Each event is a changed job: its id is the number of the change, its data the
job's document. A reader that was interrupted sends the last id it has
received and gets all jobs that changed since. A new reader first gets the
number of the last change, and then later changes. A slow reader gets only the
latest document of each job. An event of type ``deleted`` is about a job that
is not shown any more.
"""

from __future__ import annotations

__all__ = ["READERS", "Readers", "end_streams", "routes"]

import asyncio
import contextlib
import json
from collections import Counter, OrderedDict
from collections.abc import AsyncIterator, Callable, Iterator

from aiohttp import web

from ..jobs.changes import Subscription
from ..jobs.errors import QueueFullError, RequestError
from ..jobs.model import Job
from ..rubin_json import http_document
from .connections import Connection
from .context import SERVICE, Service, caller_of
from .streaming import send_head

HEARTBEAT = 15.0
"""How often (s) a comment is sent if nothing changes."""

STUCK = 60.0
"""Disconnect a reader that accepts no data for this long (s)."""

MAX_READERS = 1000
"""How many streams may be open."""

MAX_READERS_OF_OWNER = 500
"""How many streams of one owner may be open."""

KEPT = 64
"""How many events are kept as text, so that they are composed once for all readers."""


class Readers:
    """All streams of a server."""

    def __init__(self) -> None:
        self.open: set[Subscription] = set()
        self._owners: Counter[str] = Counter()
        self._texts: OrderedDict[int, bytes] = OrderedDict()

    @contextlib.contextmanager
    def place(self, owner: str) -> Iterator[None]:
        """Take a place for a reader.

        Raises
        ------
        QueueFullError
            If the owner, or all together, read too many streams.
        """
        if self._owners[owner] >= MAX_READERS_OF_OWNER:
            raise QueueFullError(f"You read {MAX_READERS_OF_OWNER} streams of changes already")
        if self._owners.total() >= MAX_READERS:
            raise QueueFullError(f"{MAX_READERS} clients read changes already")
        self._owners[owner] += 1
        try:
            yield
        finally:
            self._owners[owner] -= 1
            if not self._owners[owner]:
                del self._owners[owner]

    def text(self, job: Job) -> bytes:
        """Return the event that shows a job."""
        if (text := self._texts.get(job.sequence)) is None:
            text = self._texts[job.sequence] = _event(job)
            if len(self._texts) > KEPT:
                self._texts.popitem(last=False)
        return text


READERS: web.AppKey[Readers] = web.AppKey("readers", Readers)


def routes(path: str) -> list[web.RouteDef]:
    """Return the route of the stream; ``path`` is the base of the JSON dialect."""
    return [web.get(f"{path}/events", get_events, allow_head=False)]


async def end_streams(app: web.Application) -> None:
    """Close all streams when the server shuts down."""
    for subscription in list(app[READERS].open):
        subscription.close()


async def get_events(request: web.Request) -> web.StreamResponse:
    """Send changes of jobs as they come; ``list`` (repeatable) names the job lists that are wanted."""
    service, readers = request.app[SERVICE], request.app[READERS]
    since = _last_event_id(request)
    connection = request.protocol
    peer = connection.peer if isinstance(connection, Connection) else ""
    # Without authentication, the address is used instead of the owner.
    owner = caller_of(request).name or f"peer {peer}"
    with readers.place(owner):
        async with service.manager.subscribe(_filter(service, request)) as subscription:
            readers.open.add(subscription)
            if isinstance(connection, Connection):
                connection.on_lost.add(subscription.close)
            try:
                return await _send(request, subscription, since)
            finally:
                readers.open.discard(subscription)
                if isinstance(connection, Connection):
                    connection.on_lost.discard(subscription.close)


def _last_event_id(request: web.Request) -> int | None:
    text = request.headers.get("Last-Event-ID") or request.query.get("last_event_id", "")
    if text and not (text.isascii() and text.isdigit() and len(text) <= 18):
        raise RequestError(f"Last-Event-ID: {text[:40]!r} is not the id of an event")
    return int(text) if text else None


def _filter(service: Service, request: web.Request) -> Callable[[Job], bool]:
    caller = caller_of(request)
    lists = set(request.query.getall("list", ()))
    for name in lists:
        service.definition(name, caller.name)

    def wanted(job: Job) -> bool:
        return (caller.operator or job.owner == caller.name) and (not lists or job.definition in lists)

    return wanted


async def _send(request: web.Request, subscription: Subscription, since: int | None) -> web.StreamResponse:
    service = request.app[SERVICE]
    # Read after subscribing, so that no change is missed.
    last = await service.manager.last_change()
    response = web.StreamResponse(headers={"Cache-Control": "no-cache", "X-Accel-Buffering": "no"})
    response.content_type = "text/event-stream"
    await send_head(request, response)
    with contextlib.suppress(ConnectionError, TimeoutError):
        # An id without data is not an event, but readers remember it.
        await _write(response, f": OCPS\nid: {last if since is None else since}\n\n".encode())
        if since is not None:
            async for text in _missed(service, subscription, request, since):
                await _write(response, text)
        async for text in _news(subscription, request):
            await _write(response, text)
        await response.write_eof()
        return response
    # A reader that has stopped reading must not keep the connection.
    if request.transport:
        request.transport.abort()
    return response


async def _write(response: web.StreamResponse, text: bytes) -> None:
    await asyncio.wait_for(response.write(text), STUCK)


async def _missed(
    service: Service, subscription: Subscription, request: web.Request, since: int
) -> AsyncIterator[bytes]:
    """Yield events of the jobs that changed after a change; later changes are sent again by `_news`."""
    async for job in service.manager.changed_since(since):
        if subscription.wanted(job):
            yield request.app[READERS].text(job)


async def _news(subscription: Subscription, request: web.Request) -> AsyncIterator[bytes]:
    """Yield changes as they happen, and a comment every `HEARTBEAT`."""
    jobs = aiter(subscription)
    while True:
        coming = asyncio.ensure_future(anext(jobs))
        try:
            while not (await asyncio.wait({coming}, timeout=HEARTBEAT))[0]:
                yield b": nothing new\n\n"
            job = coming.result()
        except StopAsyncIteration:
            return
        finally:
            coming.cancel()
        yield request.app[READERS].text(job)


def _event(job: Job) -> bytes:
    if job.deleted:
        return f'id: {job.sequence}\nevent: deleted\ndata: {{"jobId":"{job.id}"}}\n\n'.encode()
    data = json.dumps(http_document(job), separators=(",", ":"))
    return f"id: {job.sequence}\ndata: {data}\n\n".encode()
