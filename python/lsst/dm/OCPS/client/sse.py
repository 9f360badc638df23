# SPDX-License-Identifier: GPL-3.0-or-later
"""Server-sent events, as a reader of them sees them (HTML standard, section 9.2)."""

from __future__ import annotations

__all__ = ["ServerEvent", "read_events"]

from collections.abc import AsyncIterable, AsyncIterator
from dataclasses import dataclass

MAX_EVENT = 16 * 1024**2
"""The longest event that is read (bytes)."""


@dataclass(frozen=True, slots=True)
class ServerEvent:
    """One event.

    Parameters
    ----------
    id : `str`
        The last id that the stream has given, to take it up after a cut.
    type : `str`
        What kind of event; ``message`` if it does not say.
    data : `str`
        What it brings; empty if it only gave an id, or showed that the
        server is still there.
    """

    id: str
    type: str
    data: str


async def read_events(parts: AsyncIterable[bytes], last_id: str = "") -> AsyncIterator[ServerEvent]:
    """Read events, also those without data.

    An event that was cut off in the middle is not given.

    Parameters
    ----------
    parts : `~collections.abc.AsyncIterable` [`bytes`]
        The body as it comes.
    last_id : `str`
        The id to begin with.

    Raises
    ------
    ValueError
        If it is no such stream.
    """
    rest = b""
    kind, data = "message", list[str]()
    async for part in parts:
        *lines, rest = (rest + part).split(b"\n")
        if len(rest) > MAX_EVENT:
            raise ValueError(f"an event is longer than {MAX_EVENT} bytes")
        for raw in lines:
            line = raw.removesuffix(b"\r").decode()
            if not line:
                yield ServerEvent(last_id, kind, "\n".join(data))
                kind, data = "message", []
                continue
            name, _, value = line.partition(":")
            value = value.removeprefix(" ")
            if name == "data":
                data.append(value)
            elif name == "id":
                last_id = value
            elif name == "event":
                kind = value
