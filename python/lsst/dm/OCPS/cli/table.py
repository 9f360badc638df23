# SPDX-License-Identifier: GPL-3.0-or-later
"""Jobs as a table for a terminal: ``ocps list``, ``ocps watch``, the demo."""

from __future__ import annotations

__all__ = ["PHASE_STYLES", "JobsTable", "Throughput", "jobs_table"]

import time
from collections import deque
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any

from rich.console import Console, ConsoleOptions, RenderResult
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from ..client.documents import RemoteJob
from ..client.rubin import parse_json_job
from ..client.statistics import Statistics

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
"""Styles of phases; the others have none."""

BAR_WIDTH = 16

WIDE = 100
"""Least width of the terminal (characters) in which progress is shown as a bar."""

SHORT_ID = 12
LONGEST_NAME = 24
"""How much (characters) of ids and of names is shown."""


class JobsTable:
    """A table with one row per job; phases are never cut, and messages fill the rest of the line.

    Parameters
    ----------
    jobs : `~collections.abc.Iterable` [`RemoteJob`]
        The jobs.
    title : `str`
        Title; empty for none.
    long : `bool`
        Whether to show owner, run id and time of creation too.
    statistics : `~collections.abc.Mapping` [`str`, `Statistics`]
        Statistics by definition; usual run times are shown beside those of
        live jobs.
    """

    def __init__(
        self,
        jobs: Iterable[RemoteJob],
        *,
        title: str = "",
        long: bool = False,
        statistics: Mapping[str, Statistics] | None = None,
    ) -> None:
        self._jobs = tuple(jobs)
        self._statistics = statistics or {}
        self._title = title
        self._long = long

    def __rich_console__(self, _: Console, options: ConsoleOptions) -> RenderResult:
        yield self._table(options.max_width)

    def _table(self, width: int) -> Table:
        table = Table(title=self._title or None, box=None, pad_edge=False, expand=True)
        more = ("owner", "run id", "created") if self._long else ()
        narrow = width < WIDE
        for name in ("job", "definition", *more, "phase", "progress", "time"):
            whole = max((len(job.phase) for job in self._jobs), default=0) if name == "phase" else None
            longest = LONGEST_NAME if not narrow else SHORT_ID
            limit = longest if name in ("definition", "owner", "run id") else None
            table.add_column(name, no_wrap=True, min_width=whole, max_width=limit, overflow="ellipsis")
        table.add_column("message", overflow="ellipsis", no_wrap=True, ratio=1, min_width=7)
        for job in self._jobs:
            created = f"{job.creation_time.astimezone():%m-%d %H:%M:%S}" if job.creation_time else ""
            table.add_row(
                job.id[:SHORT_ID],
                Text(job.definition),
                *((Text(job.owner), Text(job.run_id), created) if self._long else ()),
                Text(job.phase, style=PHASE_STYLES.get(job.phase, "")),
                _progress(job, bar=not narrow),
                _elapsed(job) + self._usual(job),
                Text(" ".join(job.words.split())),
            )
        return table

    def _usual(self, job: RemoteJob) -> str:
        """Return how long half of the jobs of the same definition take at most, behind a stroke."""
        found = self._statistics.get(job.definition)
        if found is None or found.p50 is None or job.start_time is None or job.ended:
            return ""
        return f" / {_clock(found.p50)}"


def jobs_table(documents: Iterable[RemoteJob | Mapping[str, Any]], *, title: str = "") -> JobsTable:
    """Return a table of jobs, or of documents of jobs.

    Parameters
    ----------
    documents : `~collections.abc.Iterable`
        Jobs of a `Client`, or documents: those of our JSON dialect, or the
        results published over SAL.
    title : `str`
        Title; empty for none.
    """
    jobs = (
        document if isinstance(document, RemoteJob) else parse_json_job(document, "", "")
        for document in documents
    )
    return JobsTable(jobs, title=title)


def _progress(job: RemoteJob, *, bar: bool) -> Table | Text:
    done, total = _done(job), job.progress.total
    if not total:
        return Text("")
    if not bar:
        return Text(f"{done}/{total}", style="red" if job.progress.failed else "")
    grid = Table.grid(padding=(0, 1))
    style = "red" if job.progress.failed else "cyan"
    drawn = ProgressBar(total, done, width=BAR_WIDTH, complete_style=style, finished_style=style)
    grid.add_row(drawn, f"{done}/{total}")
    return grid


def _elapsed(job: RemoteJob) -> str:
    """Return how long a job has run, as h:mm:ss."""
    if job.start_time is None:
        return ""
    return _clock(((job.end_time or datetime.now(UTC)) - job.start_time).total_seconds())


def _clock(seconds: float) -> str:
    minutes, seconds = divmod(max(0, round(seconds)), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}"


class Throughput:
    """Counts the jobs and quanta that ended in the last minute.

    Parameters
    ----------
    window : `float`
        Length of that minute (s), for tests.
    """

    def __init__(self, window: float = 60.0) -> None:
        self._window = window
        self._ends: deque[float] = deque()
        self._quanta: deque[tuple[float, int]] = deque()

    def count(self, job: RemoteJob, former: RemoteJob | None) -> None:
        """Count a change of a job; ``former`` is what it was before, if that was seen."""
        if former is None or former.ended:
            return
        now = time.monotonic()
        if (done := _done(job) - _done(former)) > 0:
            self._quanta.append((now, done))
        if job.ended:
            self._ends.append(now)

    def words(self) -> str:
        """Return the numbers of jobs and quanta per minute, in words."""
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
