# SPDX-License-Identifier: GPL-3.0-or-later
"""Logging: readable and bounded, whatever clients send."""

from __future__ import annotations

__all__ = ["CleanText", "RateLimit", "clean", "log_level", "log_to_stderr", "protect_log"]

import json
import logging
import re
import sys
import time
import traceback
from datetime import UTC, datetime
from typing import Any

MAX_MESSAGE = 4000
"""Longest message (characters) of one log record."""


def clean(text: str) -> str:
    """Return a text on one line, with characters that are not printable escaped.

    Parameters
    ----------
    text : `str`
        Any text; it may hold newlines, escape sequences and lone surrogates.
    """
    if text.isprintable():
        return text
    return "".join(
        character if character.isprintable() else character.encode("unicode_escape").decode()
        for character in text
    )


class CleanText(logging.Filter):
    """Escape control characters in log records, so that no request can forge a line.

    The lines of a traceback are indented, so that none can pass for a record.
    """

    def filter(self, record: logging.LogRecord) -> bool:
        """Change the record; always return `True`."""
        message = record.getMessage()
        text = clean(message)
        if len(text) > MAX_MESSAGE:
            text = f"{text[:MAX_MESSAGE]}… ({len(text)} characters)"
        if text != message:
            record.msg, record.args = text, None
        if record.exc_info and record.exc_info[1] is not None and not record.exc_text:
            lines = "".join(traceback.format_exception(record.exc_info[1])).splitlines()
            record.exc_text = "\n".join(f"    {clean(line)}" for line in lines)
        return True


class RateLimit(logging.Filter):
    """Limit the rate of a logger's records, and count those that are dropped.

    Parameters
    ----------
    records : `int`
        How many may pass in each period.
    period : `float`
        Length of a period (s).
    """

    def __init__(self, records: int = 50, period: float = 10.0) -> None:
        super().__init__()
        self.records = records
        self.period = period
        self._start = -period
        self._passed = 0
        self._dropped = 0

    def filter(self, record: logging.LogRecord) -> bool:
        """Return whether the record may pass."""
        now = time.monotonic()
        if now - self._start >= self.period:
            self._start, self._passed = now, 0
            if self._dropped:
                record.msg, record.args = f"{record.getMessage()} ({self._dropped} messages dropped)", None
                self._dropped = 0
        self._passed += 1
        if self._passed > self.records:
            self._dropped += 1
            return False
        return True


def protect_log(log: logging.Logger) -> None:
    """Escape control characters in all that is logged directly to ``log``; calling it again does nothing."""
    if not any(isinstance(found, CleanText) for found in log.filters):
        log.addFilter(CleanText())


def log_level(text: str) -> int:
    """Return a log level that is given as a name or a number.

    Raises
    ------
    ValueError
        If there is no such level.
    """
    levels = logging.getLevelNamesMapping()
    if text.upper() in levels:
        return levels[text.upper()]
    if re.fullmatch("[0-9]{1,9}", text):
        return int(text)
    raise ValueError(f"{text[:80]!r} is not a log level; expected debug, info, warning, error, or a number")


def log_to_stderr(*, as_json: bool = False, expected: tuple[type[BaseException], ...] = ()) -> None:
    """Write all log records to standard error from now on.

    Parameters
    ----------
    as_json : `bool`
        Whether each record is one JSON object on one line, for programs,
        instead of a line for people.
    expected : `tuple` [`type`, ...]
        Errors with a complete message: they are shown without a traceback.
    """
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Json(expected) if as_json else _Line(expected))
    logging.getLogger().addHandler(handler)


class _Line(logging.Formatter):
    """A record as a line: time (UTC), level, logger, message."""

    def __init__(self, expected: tuple[type[BaseException], ...]) -> None:
        super().__init__()
        self.expected = expected

    def format(self, record: logging.LogRecord) -> str:
        text, trace = self.parts(record)
        lines = [f"{utc(record.created)} {record.levelname} {record.name}: {text}"]
        return "\n".join([*lines, *(f"    {line}" for line in trace)])

    def parts(self, record: logging.LogRecord) -> tuple[str, list[str]]:
        """Return the message and the lines of the traceback, each without control characters."""
        text, error = clean(record.getMessage()), record.exc_info[1] if record.exc_info else None
        if error is None:
            return text, []
        if isinstance(error, self.expected):
            return f"{text} {clean(str(error))}", []
        trace = "".join(traceback.format_exception(error)).splitlines()
        return text, [clean(line) for line in trace]


class _Json(_Line):
    """A record as one JSON object, with ``job_id`` and ``owner`` if it is about a job."""

    def format(self, record: logging.LogRecord) -> str:
        text, trace = self.parts(record)
        document: dict[str, Any] = {
            "time": utc(record.created),
            "level": record.levelname,
            "logger": record.name,
            "message": text,
        }
        document |= {name: getattr(record, name) for name in ("job_id", "owner") if hasattr(record, name)}
        if trace:
            document["traceback"] = trace
        return json.dumps(document)


def utc(seconds: float) -> str:
    """Return a time (s since 1970) as ISO 8601 in UTC, with milliseconds and zone."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds")
