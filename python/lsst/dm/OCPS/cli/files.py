# SPDX-License-Identifier: GPL-3.0-or-later
"""Commands for the logs and results of jobs."""

from __future__ import annotations

__all__ = ["COMMANDS"]

import asyncio
import codecs
import fnmatch
import os
import sys
from itertools import zip_longest
from pathlib import Path

import click

from ..client import ClientError
from ..client.text import printable
from .completion import complete_job
from .session import REFUSED, Session, command_options, exit_code, find_job

LOOK_INTERVAL = 0.5
"""How often (s) to look for more of a log."""


@click.command()
@click.argument("job_id", shell_complete=complete_job)
@click.option("--follow", "-f", is_flag=True, help="Go on until the job has ended.")
@click.option("--attempt", type=click.IntRange(1), help="The log of a former attempt, by its number.")
@command_options
async def log(session: Session, job_id: str, follow: bool, attempt: int | None) -> int:
    """Print a job's log; with -f, follow it until the job ends, which gives the exit code."""
    # In UTF-8, whose characters may be cut between two parts.
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    async with session.client() as client:
        job = await find_job(client, job_id)
        position, number = 0, attempt or job.attempt
        while True:
            # Once a job is known to have ended, all of its log can be read.
            ended = job.ended
            while text := await client.patiently(lambda: client.read_log(job, position, number)):  # noqa: B023
                position += len(text)
                if sys.stdout.isatty():
                    # A job must not be able to command the terminal.
                    sys.stdout.write(printable(decoder.decode(text)))
                else:
                    sys.stdout.buffer.write(text)
                sys.stdout.flush()
            if follow and attempt is None and number != job.attempt:
                # That attempt has failed, and the next one has a log of its own.
                position, number = 0, job.attempt
                session.tell(f"attempt {number} of {job.max_attempts}")
                continue
            if ended or not follow or attempt:
                return exit_code(job) if follow else 0
            await asyncio.sleep(LOOK_INTERVAL)
            job = await client.patiently(lambda: client.get(job))  # noqa: B023


@click.command()
@click.argument("job_id", shell_complete=complete_job)
@click.argument("names", nargs=-1)
@click.option(
    "--output",
    "-o",
    type=click.Path(path_type=Path, file_okay=False),
    help="Folder for the files (default: the job's id).",
)
@click.option("--list", "only_list", is_flag=True, help="Only list the results.")
@click.option("--force", is_flag=True, help="Overwrite existing files without asking.")
@command_options
async def results(
    session: Session, job_id: str, names: tuple[str, ...], output: Path | None, only_list: bool, force: bool
) -> int:
    """Save a job's results in a folder: all, or those whose NAMES (globs) are given."""
    async with session.client() as client:
        job = await find_job(client, job_id)
        wanted = [
            result
            for result in job.results
            if not names or any(fnmatch.fnmatchcase(result.id, name) for name in names)
        ]
        folder = output or Path(job.id)
        if not only_list and not force:
            force = _may_overwrite([folder / result.id for result in wanted])
        saved = (
            [] if only_list else [await client.download(result, folder, overwrite=force) for result in wanted]
        )
    paths = [str(path) for path in saved]
    if session.json:
        entries = zip_longest(wanted, paths)
        session.show_json([{"id": result.id, "url": result.url, "path": path} for result, path in entries])
    else:
        for line in paths or [result.id for result in wanted]:
            session.say(line)
    if not wanted:
        session.tell(f"job {job.id} is {job.phase} and has no such results")
        return REFUSED
    return 0


def _may_overwrite(paths: list[Path]) -> bool:
    """Ask whether existing files may be overwritten; return `False` if there are none.

    Raises
    ------
    ClientError
        If they may not.
    """
    there = [str(path) for path in paths if os.path.lexists(path)]
    if not there:
        return False
    names = printable(", ".join(there[:5])) + (f" and {len(there) - 5} more" if len(there) > 5 else "")
    if not sys.stdin.isatty() or not click.confirm(f"{names}: exists already; overwrite?", err=True):
        raise ClientError(f"{names}: exists already; --force overwrites")
    return True


COMMANDS = {"log": log, "results": results}
"""All commands of this file."""
