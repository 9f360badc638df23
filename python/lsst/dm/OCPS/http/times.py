# SPDX-License-Identifier: GPL-3.0-or-later
"""Times and durations as clients of UWS write them."""

from __future__ import annotations

__all__ = ["parse_duration", "parse_time"]

import re
from datetime import UTC, datetime

from ..jobs.errors import RequestError

_TIME = re.compile(
    r"(?P<year>\d{4})(-?(?P<month>\d\d)(-?(?P<day>\d\d)"
    r"([T ](?P<hour>\d\d):?(?P<minute>\d\d)(:?(?P<second>\d\d)([.,](?P<fraction>\d{1,9}))?)?)?)?)?Z?"
)


def parse_time(name: str, text: str) -> datetime:
    """Return the time (UTC) of a text in the format of ISO 8601.

    A missing part means its beginning: a date is its midnight. Offsets are
    not accepted, because UWS has only UTC, with or without ``Z``.

    Parameters
    ----------
    name : `str`
        Name of the parameter, for the error.
    text : `str`
        The text.

    Raises
    ------
    RequestError
        If the text is not a time.
    """
    match = _TIME.fullmatch(text.strip())
    try:
        if match is None:
            raise ValueError(text)
        numbers = {key: int(match[key] or 0) for key in ("year", "hour", "minute", "second")}
        # Truncated, not rounded, to the milliseconds that are printed.
        fraction = (match["fraction"] or "").ljust(3, "0")[:3]
        return datetime(
            month=int(match["month"] or 1),
            day=int(match["day"] or 1),
            microsecond=int(fraction) * 1000,
            tzinfo=UTC,
            **numbers,
        )
    except (ValueError, OverflowError):
        raise RequestError(
            f"{name}: {text[:40]!r} is not a time; expected one like 2026-11-22T05:00:00.000Z (UTC)"
        ) from None


def parse_duration(text: str) -> int:
    """Return a run time (s).

    Raises
    ------
    RequestError
        If it is not a whole number, 0 or more.
    """
    if not re.fullmatch(r"\d{1,9}", text.strip()):
        raise RequestError(f"EXECUTIONDURATION: {text[:40]!r} is not a whole number of seconds, 0 or more")
    return int(text)
