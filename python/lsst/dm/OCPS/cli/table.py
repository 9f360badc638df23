# SPDX-License-Identifier: GPL-3.0-or-later
"""Jobs as a table for a terminal: ``ocps list``, ``ocps watch``, the demo."""

from __future__ import annotations

__all__ = ["PHASE_STYLES", "Throughput", "jobs_table"]

import time
from collections import deque
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any

from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from ..client.documents import RemoteJob
from ..client.rubin import parse_json_job

PHASE_STYLES = {
    "EXECUTING": "cyan",
    "COMPLETED": "green",
    "ERROR": "bold red",
    "ABORTED": "yellow",
    "HELD": "magenta",
    "SUSPENDED": "magenta",
    "UNKNOWN": "bold yellow",
    "ARCHIVED": "dim",
}
"""How phases are shown; those that are not here, plainly."""

BAR_WIDTH = 16


def jobs_table(documents: Iterable[RemoteJob | Mapping[str, Any]], *, title: str = "") -> Table:
    """Return a table of jobs, a row each, with a bar where progress is known.

    Parameters
    ----------
    documents : `~collections.abc.Iterable`
        Jobs of a `Client`, or documents: those of our JSON dialect, or the
        results that go out over SAL.
    title : `str`
        What to write above; empty for nothing.
    """
    table = Table(title=title or None, box=None, pad_edge=False, expand=True)
    jobs = [
        document if isinstance(document, RemoteJob) else parse_json_job(document, "", "")
        for document in documents
    ]
    named = any(job.run_id for job in jobs)
    for name in ("job", "definition", *(("run id",) if named else ()), "phase", "progress", "time"):
        table.add_column(name, no_wrap=True)
    # What is left of the line: the others are never cut.
    table.add_column("message", overflow="ellipsis", no_wrap=True, ratio=1)
    for job in jobs:
        table.add_row(
            job.id[:12],
            job.definition,
            *((job.run_id[:24],) if named else ()),
            Text(job.phase, style=PHASE_STYLES.get(job.phase, "")),
            _bar(job),
            _elapsed(job),
            Text(" ".join((job.error or job.message).split())),
        )
    return table


def _bar(job: RemoteJob) -> Table | Text:
    done, total = _done(job), job.progress.total
    if not total:
        return Text("")
    grid = Table.grid(padding=(0, 1))
    style = "red" if job.progress.failed else "cyan"
    bar = ProgressBar(total, done, width=BAR_WIDTH, complete_style=style, finished_style=style)
    grid.add_row(bar, f"{done}/{total}")
    return grid


def _elapsed(job: RemoteJob) -> str:
    """Return how long a job has run, as h:mm:ss."""
    if job.start_time is None:
        return ""
    seconds = round(((job.end_time or datetime.now(UTC)) - job.start_time).total_seconds())
    minutes, seconds = divmod(max(0, seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}"


class Throughput:
    """Counts what has been done lately.

    Parameters
    ----------
    window : `float`
        What lately means (s).
    """

    def __init__(self, window: float = 60.0) -> None:
        self._window = window
        self._ends: deque[float] = deque()
        self._quanta: deque[tuple[float, int]] = deque()

    def note(self, job: RemoteJob, former: RemoteJob | None) -> None:
        """Take note of a change of a job; ``former`` is what it was before, if that was seen."""
        if former is None or former.ended:
            return
        now = time.monotonic()
        if (done := _done(job) - _done(former)) > 0:
            self._quanta.append((now, done))
        if job.ended:
            self._ends.append(now)

    def words(self) -> str:
        """Return how many jobs ended, and quanta, in the last minute."""
        begin = time.monotonic() - self._window
        while self._ends and self._ends[0] < begin:
            self._ends.popleft()
        while self._quanta and self._quanta[0][0] < begin:
            self._quanta.popleft()
        words = f"{len(self._ends) * 60 / self._window:g} jobs/min"
        if self._quanta:
            words += f", {sum(count for _, count in self._quanta) * 60 / self._window:g} quanta/min"
        return words


def _done(job: RemoteJob) -> int:
    return job.progress.done + job.progress.failed
