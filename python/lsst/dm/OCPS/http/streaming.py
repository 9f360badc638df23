# SPDX-License-Identifier: GPL-3.0-or-later
"""Sending documents while they are composed."""

from __future__ import annotations

__all__ = ["send_head", "send_parts"]

from collections.abc import AsyncGenerator

from aiohttp import web

from .context import SERVICE
from .signature import sign


async def send_head(request: web.Request, response: web.StreamResponse) -> None:
    """Send the head of an answer; its body follows in parts."""
    sign(response)
    await response.prepare(request)


async def send_parts(
    request: web.Request, content_type: str, parts: AsyncGenerator[str, None]
) -> web.StreamResponse:
    """Send a document part by part.

    An error before the first part is raised, so that it can be answered.
    After a later error the connection is aborted, so that the client notices
    that the document is incomplete.

    Parameters
    ----------
    request : `aiohttp.web.Request`
        The request.
    content_type : `str`
        Media type of the document.
    parts : `~collections.abc.AsyncGenerator` [`str`]
        The document; at least one part.
    """
    text = await anext(parts)
    response = web.StreamResponse()
    response.content_type = content_type
    response.charset = "utf-8"
    if request.method == "HEAD":
        # A body would be read as the next answer on this connection.
        await parts.aclose()
        return response
    await send_head(request, response)
    try:
        await response.write(text.encode())
        async for text in parts:
            await response.write(text.encode())
        await response.write_eof()
    except Exception as error:
        if not isinstance(error, ConnectionError):
            request.app[SERVICE].log.error(f"{request.path} was cut off: {error}")
        if request.transport:
            request.transport.abort()
    return response
