# SPDX-License-Identifier: GPL-3.0-or-later
"""Reading the body of a request, with limits of length and time."""

from __future__ import annotations

__all__ = ["Clock", "read_body", "read_text"]

import asyncio
from collections.abc import Awaitable
from typing import TypeVar

from aiohttp import web

from ..jobs.errors import RequestError

GRACE = 30.0
"""How long (s) a body may take, in addition to the time for its length at `SLOWEST`."""

SLOWEST = 10_000.0
"""The slowest rate (bytes per s) at which a body may be sent."""

T = TypeVar("T")


class Clock:
    """Limits the time that a body may take, depending on its length."""

    def __init__(self) -> None:
        self._start = asyncio.get_running_loop().time()
        self.received = 0
        """How much was received (bytes)."""

    async def bound(self, reading: Awaitable[T]) -> T:
        """Await ``reading`` within the limit, and return its result.

        Raises
        ------
        aiohttp.web.HTTPRequestTimeout
            If the client is slower than `SLOWEST`.
        """
        try:
            async with asyncio.timeout_at(self._start + GRACE + self.received / SLOWEST):
                return await reading
        except TimeoutError:
            raise web.HTTPRequestTimeout(text="The request was sent too slowly\n") from None


async def read_body(request: web.Request) -> bytes:
    """Return the body of a request.

    Raises
    ------
    aiohttp.web.HTTPRequestTimeout, aiohttp.web.HTTPRequestEntityTooLarge
        If it is sent too slowly, or is longer than ``max_body``.
    """
    clock = Clock()
    limit = request.client_max_size
    if (request.content_length or 0) > limit:
        raise web.HTTPRequestEntityTooLarge(limit, request.content_length or 0)
    body = bytearray()
    while chunk := await clock.bound(request.content.readany()):
        body += chunk
        clock.received = len(body)
        if len(body) > limit:
            raise web.HTTPRequestEntityTooLarge(limit, len(body))
    return bytes(body)


async def read_text(request: web.Request, what: str) -> str:
    """Return the body of a request as text; raises as `read_body` does.

    Parameters
    ----------
    request : `aiohttp.web.Request`
        The request.
    what : `str`
        Name of the body, for the error.

    Raises
    ------
    RequestError
        If it is not UTF-8.
    """
    try:
        return (await read_body(request)).decode()
    except UnicodeDecodeError:
        raise RequestError(f"{what} is not UTF-8") from None
