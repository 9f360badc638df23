# SPDX-License-Identifier: GPL-3.0-or-later
"""Jobs and results as a server shows them, whatever the format of its documents.

`uws_xml` and `rubin` read documents into these classes. Everything that comes
from a server is checked there: only `DocumentError` may leave a parser.
"""

from __future__ import annotations

__all__ = [
    "PHASES",
    "TERMINAL",
    "Progress",
    "RemoteJob",
    "RemoteResult",
    "absolute_url",
    "checked_id",
    "checked_phase",
    "checked_time",
    "time_text",
]

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urljoin

from .errors import DocumentError
from .html import job_html
from .text import one_line

PHASES = frozenset(
    {
        "PENDING", "HELD", "QUEUED", "EXECUTING", "SUSPENDED", "UNKNOWN", "COMPLETED", "ERROR", "ABORTED",
        "ARCHIVED",
    }
)  # fmt: skip
"""All phases of UWS 1.1."""

TERMINAL = frozenset({"COMPLETED", "ERROR", "ABORTED", "ARCHIVED"})
"""Phases that a job does not leave any more."""

MAX_MESSAGE = 10_000
"""Longest message or reason that is kept (characters)."""

MAX_URL = 4096
"""Longest address that is taken from a document (characters)."""

# Safe in a path, a URL and a terminal.
_ID = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._~@+:-]{0,252}")


@dataclass(frozen=True, slots=True)
class RemoteResult:
    """One result of a job.

    Parameters
    ----------
    id : `str`
        Its name.
    url : `str`
        Its URL.
    size : `int` or `None`
        Length (bytes), if the server says.
    mime_type : `str`
        Media type; empty if the server does not say.
    """

    id: str
    url: str
    size: int | None = None
    mime_type: str = ""


@dataclass(frozen=True, slots=True)
class Progress:
    """Progress of a job, in quanta; ``total`` is 0 while it is not known."""

    done: int = 0
    failed: int = 0
    total: int = 0


@dataclass(frozen=True, slots=True)
class RemoteJob:
    """A job as a server shows it.

    Parameters
    ----------
    id, run_id, owner : `str`
        The server's id of the job, the creator's name for it, and its owner.
    url : `str`
        Its URL.
    phase : `str`
        The phase, in upper case: ``EXECUTING``.
    definition : `str`
        Name of its job list.
    creation_time, start_time, end_time, destruction : `datetime.datetime` or `None`
        UTC.
    execution_duration : `float`
        Longest run time (s); 0 for no limit.
    parameters : `~collections.abc.Mapping` [`str`, `str`]
        Its parameters.
    results : `tuple` [`RemoteResult`, ...]
        Its results.
    error : `str`
        Why it failed.
    message : `str`
        What it is doing or waiting for, in words.
    progress : `Progress`
        Its progress.
    exit_code : `int` or `None`
        Exit code of its process, if the server says.
    attempt, max_attempts : `int`
        On which attempt it is, and how often it is tried at most; an OCPS
        runs some jobs again after a transient failure.
    info : `~collections.abc.Mapping`
        Further members from the server, as JSON types: metrics, tasks, last
        log lines.
    ours : `bool`
        Whether the server is an OCPS.
    whole : `bool`
        Whether this is the whole document, and not an entry of a job list.
    """

    id: str
    url: str
    phase: str
    definition: str = ""
    run_id: str = ""
    owner: str = ""
    creation_time: datetime | None = None
    start_time: datetime | None = None
    end_time: datetime | None = None
    destruction: datetime | None = None
    execution_duration: float = 0
    parameters: Mapping[str, str] = field(default_factory=dict)
    results: tuple[RemoteResult, ...] = ()
    error: str = ""
    message: str = ""
    progress: Progress = Progress()
    exit_code: int | None = None
    attempt: int = 1
    max_attempts: int = 1
    info: Mapping[str, Any] = field(default_factory=dict)
    ours: bool = field(default=False, compare=False)
    whole: bool = field(default=True, compare=False)

    @property
    def ended(self) -> bool:
        """Whether it has ended."""
        return self.phase in TERMINAL

    @property
    def words(self) -> str:
        """Why it failed, or what it is doing; with the number of the attempt where there may be several."""
        words = self.error or self.message
        # While it waits for the next attempt, the message says so itself.
        if self.max_attempts == 1 or words.startswith("attempt "):
            return words
        return f"attempt {self.attempt} of {self.max_attempts}{': ' if words else ''}{words}"

    def _repr_html_(self) -> str:
        """Return the HTML that a notebook shows."""
        return job_html(self)


# Checks that the parsers share


def checked_id(value: Any) -> str:
    """Return a job id.

    Raises
    ------
    DocumentError
        If it does not have the form of one; it may become a path.
    """
    if not isinstance(value, str) or not _ID.fullmatch(value) or ".." in value:
        raise DocumentError(f"it answered with a job document whose jobId is {_short(value)}")
    return value


def checked_phase(value: Any) -> str:
    """Return a phase, in upper case; it may be one that UWS does not know.

    Raises
    ------
    DocumentError
        If it is not a word.
    """
    if not isinstance(value, str) or len(value) > 40 or not value.isprintable() or not value:
        raise DocumentError(f"it answered with a job document whose phase is {_short(value)}")
    return value.upper()


def checked_time(value: Any) -> datetime | None:
    """Return a time as UTC; `None` if the text is not one."""
    try:
        time = datetime.fromisoformat(value)
        return time.replace(tzinfo=UTC) if time.tzinfo is None else time.astimezone(UTC)
    except (TypeError, ValueError, OverflowError):
        return None


def time_text(time: datetime, name: str) -> str:
    """Return a time in the format of UWS, with milliseconds.

    Raises
    ------
    ValueError
        If it is none; ``name`` is what the message calls it.
    """
    if not hasattr(time, "astimezone"):
        raise ValueError(f"{name}: expected a datetime.datetime, such as datetime.now(), not {time!r}")
    return f"{time.astimezone(UTC):%Y-%m-%dT%H:%M:%S.%f}"[:-3] + "Z"


def absolute_url(base: str, url: str) -> str:
    """Return an absolute URL; empty if the one in the document is not valid.

    Parameters
    ----------
    base : `str`
        URL of the document, to which a relative URL refers.
    url : `str`
        URL in the document.
    """
    try:
        found = urljoin(base, url)
    except ValueError:
        return ""
    return found if found.isprintable() and len(found) <= MAX_URL else ""


def _short(value: Any) -> str:
    return one_line(repr(value[:100] if isinstance(value, str) else value), 60)
