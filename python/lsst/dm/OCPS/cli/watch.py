# SPDX-License-Identifier: GPL-3.0-or-later
"""``ocps watch``: jobs as they change."""

from __future__ import annotations

__all__ = ["COMMANDS"]

import sys
from collections import Counter
from contextlib import aclosing, suppress

import click
from rich.console import Group
from rich.live import Live
from rich.text import Text

from ..client import Client, ClientError, RemoteJob, UnknownError
from ..client.statistics import Statistics
from ..client.text import printable
from .completion import complete_job
from .session import Session, as_json, command_options, exit_code, find_job
from .table import JobsTable, Throughput

MOST_LISTED = 200
"""How many jobs, the newest, are kept."""

REFRESH = 4.0
"""How many times per second the table is drawn: run times advance between changes."""


class Board:
    """The jobs that are shown.

    Parameters
    ----------
    height : `int`
        Lines of the terminal.
    """

    def __init__(self, height: int) -> None:
        self.jobs: dict[str, RemoteJob] = {}
        self.away = ""
        """Why the server cannot be reached; empty while it can."""
        self.wanted: set[str] = set()
        """URLs of the jobs to watch; empty for all."""
        self.statistics: dict[str, Statistics] = {}
        """Statistics by definition, for usual run times."""
        self._rows = max(3, height - 4)
        self._throughput = Throughput()

    def take(self, job: RemoteJob) -> bool:
        """Apply a change of a job; return whether it changes what is shown."""
        if self.wanted and job.url not in self.wanted:
            return False
        former = self.jobs.get(job.url)
        self._throughput.count(job, former)
        self.jobs[job.url] = job
        if len(self.jobs) > MOST_LISTED and not self.wanted:
            del self.jobs[next(iter(self.jobs))]
        return former != job

    def replace(self, jobs: list[RemoteJob]) -> None:
        """Replace all jobs; those that are not in ``jobs`` are removed."""
        gone = self.jobs.keys() - {job.url for job in jobs}
        for url in gone:
            del self.jobs[url]
        for job in jobs:
            self.take(job)

    @property
    def all_ended(self) -> bool:
        """Whether all jobs that were asked for have ended."""
        return bool(self.wanted) and all(url in self.jobs and self.jobs[url].ended for url in self.wanted)

    def __rich__(self) -> Group:
        counts = Counter(job.phase for job in self.jobs.values())
        words = ", ".join(f"{count} {phase.lower()}" for phase, count in sorted(counts.items())) or "no jobs"
        # Live jobs first, the newest of each group first.
        ordered = sorted(self.jobs.values(), key=lambda job: (job.ended, -_age(job)))
        more = len(ordered) - self._rows
        foot = f"{words}; {self._throughput.words()}" + (f"; {more} more not shown" if more > 0 else "")
        lines = [Text(foot, style="dim")]
        if self.away:
            lines.insert(0, Text(f"not up to date: {self.away}", style="bold red"))
        return Group(JobsTable(ordered[: self._rows], statistics=self.statistics), *lines)


def _age(job: RemoteJob) -> float:
    return job.creation_time.timestamp() if job.creation_time else 0.0


@click.command()
@click.argument("job_ids", nargs=-1, shell_complete=complete_job)
@click.option("--definition", "-d", default="", help="Only jobs of this definition.")
@command_options
async def watch(session: Session, job_ids: tuple[str, ...], definition: str) -> int:
    """Follow jobs: all until Ctrl-C, or those given until they have ended.

    Shows a live table in a terminal; elsewhere, or with --json, one line per change.
    """
    live = sys.stdout.isatty() and not session.json
    board = Board(session.console.height)

    def tell_away(reason: str) -> None:
        board.away = printable(reason)

    async with session.client(away=tell_away if live else session.tell_away) as client:
        wanted = [await find_job(client, job_id) for job_id in job_ids]
        board.wanted = {job.url for job in wanted}
        if live:
            with Live(board, console=session.console, refresh_per_second=REFRESH, transient=False):
                await _follow(session, client, board, wanted, definition, show=False)
        else:
            await _follow(session, client, board, wanted, definition, show=True)
    return max((exit_code(job) for job in board.jobs.values()), default=0) if wanted else 0


async def _follow(
    session: Session, client: Client, board: Board, wanted: list[RemoteJob], definition: str, *, show: bool
) -> None:
    names = sorted({job.definition for job in wanted} | ({definition} if definition else set()))
    async with aclosing(client.changes(names)) as changes:  # type: ignore[type-var]
        async for job in changes:
            if job is None:
                before = dict(board.jobs)
                board.replace(await client.patiently(lambda: _look(client, wanted, definition)))
                news = [one for url, one in board.jobs.items() if before.get(url) != one]
            else:
                news = [job] if board.take(job) else []
            for one in news if show else ():
                _print(session, one)
            if board.all_ended:
                return
            if job is None:
                # Usual run times are an ornament: jobs are followed without them.
                with suppress(ClientError):
                    board.statistics = await client.statistics()


async def _look(client: Client, wanted: list[RemoteJob], definition: str) -> list[RemoteJob]:
    if not wanted:
        jobs = await client.jobs(last=MOST_LISTED)
        return [job for job in reversed(jobs) if not definition or job.definition == definition]
    found = []
    for job in wanted:
        try:
            found.append(await client.get(job))
        except UnknownError:
            # The job was deleted, so its end will never be seen.
            raise UnknownError(f"Job {job.id} has been deleted") from None
    return found


def _print(session: Session, job: RemoteJob) -> None:
    if session.json:
        session.show_json(as_json(job))
        return
    progress = (
        f" {job.progress.done + job.progress.failed}/{job.progress.total}" if job.progress.total else ""
    )
    words = job.words
    session.say(f"{job.id} {job.definition} {job.phase}{progress}{': ' if words else ''}{words}")


COMMANDS = {"watch": watch}
"""All commands of this file."""
