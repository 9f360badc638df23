# SPDX-License-Identifier: GPL-3.0-or-later
"""A proxy before a server: it counts, delays answers, cuts connections, or is away."""

from __future__ import annotations

__all__ = ["Proxy"]

import asyncio
import contextlib
from collections import Counter
from typing import Any

import aiohttp
from aiohttp import web

from tests.loopback import serve

_NOT_PASSED = {"host", "transfer-encoding", "content-length", "connection", "keep-alive"}


class Proxy:
    """Passes requests on.

    Parameters
    ----------
    target : `str`
        The server behind, without a path.
    delay : `float`
        How long (s) each answer takes to begin.
    cut : `float`
        How long (s) a stream may last; 0 for as long as it likes.
    """

    def __init__(self, target: str, *, delay: float = 0.0, cut: float = 0.0) -> None:
        self.target = target
        self.delay = delay
        self.cut = cut
        self.counts: Counter[str] = Counter()
        self.requests: list[str] = []
        self.streams = 0
        """How many streams have been opened."""
        self.away = False
        """Whether to refuse every request by cutting its connection."""
        self.lose_answers = 0
        """How many answers to POST and PUT to lose."""
        self.routes: list[web.RouteDef] = []
        self._open: list[web.Request] = []
        self._news = asyncio.Event()

    async def start(self) -> Proxy:
        """Listen at a free port."""
        # A cut is for the one stream, not for what else goes over its connection.
        self._session = aiohttp.ClientSession(
            auto_decompress=False,
            connector=aiohttp.TCPConnector(limit=0),
            timeout=aiohttp.ClientTimeout(total=None),
        )
        app = web.Application(client_max_size=1 << 30)
        app.add_routes([*self.routes, web.route("*", "/{path:.*}", self._pass)])
        self._runner, self.url = await serve(app)
        return self

    async def stop(self) -> None:
        """Listen no more."""
        self.cut_all()
        await self._runner.cleanup()
        await self._session.close()

    def cut_all(self) -> None:
        """Cut all streams that are open."""
        for request in list(self._open):
            _abort(request)

    async def opened(self, streams: int) -> None:
        """Wait until so many streams have been opened."""
        async with asyncio.timeout(30):
            while self.streams < streams:
                self._news.clear()
                await self._news.wait()

    async def _pass(self, request: web.Request) -> web.StreamResponse:
        self.counts[request.method] += 1
        self.requests.append(f"{request.method} {request.path_qs}")
        if self.away:
            _abort(request)
            return web.Response()
        body = await request.read()
        await asyncio.sleep(self.delay)
        headers = {name: value for name, value in request.headers.items() if name.lower() != "content-length"}
        options: dict[str, Any] = {"headers": headers, "data": body or None, "allow_redirects": False}
        url = self.target + request.path_qs
        try:
            answering = await self._session.request(request.method, url, **options)
        except aiohttp.ClientError:
            # What it is before is away.
            _abort(request)
            return web.Response()
        async with answering as answer:
            if request.method in ("POST", "PUT") and self.lose_answers:
                self.lose_answers -= 1
                _abort(request)
                return web.Response()
            response = web.StreamResponse(status=answer.status)
            for name, value in answer.headers.items():
                if name.lower() not in _NOT_PASSED:
                    response.headers.add(name, value)
            stream = answer.content_type == "text/event-stream"
            if not stream:
                response.content_length = int(answer.headers.get("Content-Length", 0)) or None
            # Who asked may have gone meanwhile.
            with contextlib.suppress(ConnectionError):
                await response.prepare(request)
                await self._copy(request, response, answer, stream)
            return response

    async def _copy(
        self, request: web.Request, response: web.StreamResponse, answer: aiohttp.ClientResponse, stream: bool
    ) -> None:
        if stream:
            self.streams += 1
            self._open.append(request)
            self._news.set()
        cut = self.cut if stream and self.cut else 1e6
        timer = asyncio.get_running_loop().call_later(cut, _abort, request)
        try:
            async for part in answer.content.iter_any():
                await response.write(part)
            await response.write_eof()
        except aiohttp.ClientError:
            _abort(request)
        finally:
            if stream:
                self._open.remove(request)
            timer.cancel()


def _abort(request: web.Request) -> None:
    if request.transport:
        request.transport.abort()
