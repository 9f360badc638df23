# SPDX-License-Identifier: GPL-3.0-or-later
"""Documents that are sent while they are made."""

from __future__ import annotations

__all__ = ["send_parts"]

from collections.abc import AsyncGenerator

from aiohttp import web

from .context import SERVICE


async def send_parts(
    request: web.Request, content_type: str, parts: AsyncGenerator[str, None]
) -> web.StreamResponse:
    """Send a document part by part.

    What goes wrong before the first part is there is raised, to be answered
    in words. Later the connection is cut, so that nobody takes the half for
    the whole.

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
        # A body after the head would be taken for the next answer on this connection.
        await parts.aclose()
        return response
    await response.prepare(request)
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
