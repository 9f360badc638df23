# SPDX-License-Identifier: GPL-3.0-or-later
"""Keep a log readable and bounded, whatever strangers send."""

from __future__ import annotations

__all__ = ["CleanText", "RateLimit", "clean", "protect_log"]

import logging
import time
import traceback

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
    """Let only so many records of a logger pass in a time; count the others.

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
