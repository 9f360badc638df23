# SPDX-License-Identifier: GPL-3.0-or-later
"""Times (UTC) as the engine stores them: whole milliseconds since 1970."""

from __future__ import annotations

__all__ = ["Time", "from_ms", "now", "to_ms"]

from datetime import UTC, datetime, timedelta
from typing import Annotated

from pydantic import BeforeValidator, PlainSerializer

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def to_ms(time: datetime) -> int:
    """Return a time as milliseconds since 1970."""
    return round(time.timestamp() * 1000)


def from_ms(ms: int | datetime) -> datetime:
    """Return milliseconds since 1970 as a time, UTC."""
    if isinstance(ms, datetime):
        return ms
    # Lists of jobs do this for each one; it is exact, and quicker than a detour by seconds.
    return _EPOCH + timedelta(milliseconds=ms)


Time = Annotated[datetime, BeforeValidator(from_ms), PlainSerializer(to_ms)]
"""A time (UTC), stored as milliseconds since 1970."""


def now() -> datetime:
    """Return the current time, UTC, with whole milliseconds.

    Every face prints milliseconds, so a printed time can be used as a filter
    without rounding.
    """
    time = datetime.now(UTC)
    return time.replace(microsecond=time.microsecond // 1000 * 1000)
