# SPDX-License-Identifier: GPL-3.0-or-later
"""Reading of server-sent events (HTML standard, section 9.2)."""

from __future__ import annotations

__all__ = ["ServerEvent", "read_events"]

from collections.abc import AsyncIterable, AsyncIterator
from dataclasses import dataclass

from .errors import DocumentError

MAX_EVENT = 8 * 1024**2
"""The longest event that is read (bytes)."""

MAX_ID = 200
"""The longest id of an event (characters); it is sent back as a header."""


@dataclass(frozen=True, slots=True)
class ServerEvent:
    """One event.

    Parameters
    ----------
    id : `str`
        The last id in the stream, with which it can be resumed.
    type : `str`
        Type of the event; ``message`` by default.
    data : `str`
        Content of the event; empty for an id or a comment alone.
    """

    id: str
    type: str
    data: str


async def read_events(parts: AsyncIterable[bytes], last_id: str = "") -> AsyncIterator[ServerEvent]:
    """Yield the events of a stream, including those without data; an incomplete one is dropped.

    Parameters
    ----------
    parts : `~collections.abc.AsyncIterable` [`bytes`]
        Parts of the body.
    last_id : `str`
        The initial id.

    Raises
    ------
    DocumentError
        If it is not a stream of events, or one of them is too long.
    """
    rest = bytearray()
    kind, data, size = "message", list[str](), 0
    async for part in parts:
        begin = 0
        while (end := part.find(b"\n", begin)) >= 0:
            rest += part[begin:end]
            begin = end + 1
            size += len(rest)
            try:
                line = rest.removesuffix(b"\r").decode()
            except UnicodeDecodeError:
                raise DocumentError("it sent events that are not UTF-8") from None
            rest.clear()
            if size > MAX_EVENT:
                raise DocumentError(f"it sent an event longer than {MAX_EVENT} bytes")
            if not line:
                yield ServerEvent(last_id, kind, "\n".join(data))
                kind, data, size = "message", [], 0
                continue
            name, _, value = line.partition(":")
            value = value.removeprefix(" ")
            if name == "data":
                data.append(value)
            elif name == "id" and value.isprintable() and value.isascii() and len(value) <= MAX_ID:
                last_id = value
            elif name == "event":
                kind = value
        rest += part[begin:]
        if size + len(rest) > MAX_EVENT:
            raise DocumentError(f"it sent an event longer than {MAX_EVENT} bytes")
