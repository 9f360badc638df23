# SPDX-License-Identifier: GPL-3.0-or-later
"""What an OCPS says that a job would do."""

from __future__ import annotations

__all__ = ["DRY_RUN_TIMEOUT", "DryRun", "parse_dry_run"]

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from .documents import MAX_MESSAGE
from .errors import DocumentError
from .text import one_line, printable

DRY_RUN_TIMEOUT = 330.0
"""How long (s) a server may take; an OCPS stops a dry run after 300 s."""


@dataclass(frozen=True)
class DryRun:
    """What a job would do.

    Parameters
    ----------
    message : `str`
        All of it in one line.
    checked : `str`
        What was checked, in words.
    quanta : `int` or `None`
        How many quanta there would be; `None` if no quantum graph was built.
    tasks : `~collections.abc.Mapping` [`str`, `int`]
        How many of each task.
    argv : `tuple` [`str`, ...]
        The command line that would run, without secrets.
    """

    message: str
    checked: str = ""
    quanta: int | None = None
    tasks: Mapping[str, int] | None = None
    argv: tuple[str, ...] = ()


def parse_dry_run(document: Any) -> DryRun:
    """Read a document.

    Raises
    ------
    DocumentError
        If it is not one of a dry run.
    """
    match document:
        case {"message": str(message), "checked": str(checked), "tasks": tasks, "argv": list(argv)} if all(
            isinstance(word, str) for word in argv
        ):
            pass
        case _:
            raise DocumentError("it answered with no document of a dry run")
    if tasks is not None and not (
        isinstance(tasks, dict) and all(type(count) is int and count >= 0 for count in tasks.values())
    ):
        raise DocumentError("it answered with a dry run whose tasks are not numbers of quanta")
    counts = None if tasks is None else {one_line(label): count for label, count in tasks.items()}
    return DryRun(
        message=one_line(message, MAX_MESSAGE),
        checked=one_line(checked, MAX_MESSAGE),
        quanta=None if counts is None else sum(counts.values()),
        tasks=counts,
        argv=tuple(printable(word) for word in argv),
    )
