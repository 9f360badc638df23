# SPDX-License-Identifier: GPL-3.0-or-later
"""Commands that submit jobs and, if wanted, wait for their ends."""

from __future__ import annotations

__all__ = ["COMMANDS", "parse_pairs"]

import asyncio
import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from ..client import Client, RemoteJob
from .completion import complete_definition, complete_job, complete_parameter
from .session import UNREACHABLE, Session, command_options, exit_code, find_job, show_outcome


def parse_pairs(words: tuple[str, ...]) -> dict[str, str]:
    """Return the parameters that are given as ``name=value``."""
    found: dict[str, str] = {}
    for word in words:
        name, equals, value = word.partition("=")
        if not equals or not name or name in found:
            problem = "is given twice" if equals and name else "is not of the form name=value"
            raise click.UsageError(f"{word!r} {problem}")
        found[name] = value
    return found


async def _finish(session: Session, client: Client, job: RemoteJob, wait: bool, timeout: float | None) -> int:
    """Show a submitted job, after its end if ``wait``; return the exit code."""
    if not wait:
        show_outcome(session, job)
        return 0
    session.tell(f"job {job.id} is {job.phase}; waiting for its end")
    try:
        job = await client.wait(job, timeout)
    except TimeoutError:
        session.tell(f"job {job.id} has not ended within {timeout:g} s and goes on; ocps watch {job.id}")
        return UNREACHABLE
    except asyncio.CancelledError:
        session.tell(f"job {job.id} goes on; ocps abort {job.id} stops it")
        raise
    show_outcome(session, job)
    return exit_code(job)


async def _dry_run(session: Session, client: Client, request: dict[str, Any]) -> int:
    """Show what a job would do; return the exit code."""
    found = await client.dry_run(**request)
    if session.json:
        session.show_json(dataclasses.asdict(found))
    else:
        session.say(found.message)
    return 0


def dry_run_option(function: Callable[..., None]) -> Callable[..., None]:
    """Add ``--dry-run``."""
    words = "Check the job and show what it would do, without running it."
    return click.option("--dry-run", is_flag=True, help=words)(function)


def wait_options(function: Callable[..., None]) -> Callable[..., None]:
    """Add ``--wait`` and ``--timeout``."""
    function = click.option("--timeout", type=float, help="Longest time to wait (s).")(function)
    return click.option("--wait", "-w", is_flag=True, help="Wait until the job has ended.")(function)


@click.command()
@click.argument("definition", shell_complete=complete_definition)
@click.argument("parameters", nargs=-1, shell_complete=complete_parameter)
@click.option("--file", "-f", "files", multiple=True, help="A file for a parameter: name=path.")
@click.option("--run-id", default="", help="A name of your own for the job.")
@click.option("--limit", type=int, help="Longest run time (s).")
@click.option(
    "--after",
    multiple=True,
    shell_complete=complete_job,
    help="Start when this job has ended; may be repeated.",
)
@click.option("--priority", type=int, default=0, help="Jobs of higher priority start earlier (default: 0).")
@click.option("--pending", is_flag=True, help="Create the job without running it; see release.")
@dry_run_option
@wait_options
@command_options
async def submit(
    session: Session,
    definition: str,
    parameters: tuple[str, ...],
    files: tuple[str, ...],
    run_id: str,
    limit: int | None,
    after: tuple[str, ...],
    priority: int,
    pending: bool,
    dry_run: bool,
    wait: bool,
    timeout: float | None,
) -> int:
    """Run a job: ocps submit sleep duration=2.

    Where the address is a job list of another server, DEFINITION is "-".
    """
    async with session.client() as client:
        request: dict[str, Any] = {
            "definition": "" if definition == "-" else definition,
            "parameters": parse_pairs(parameters),
            "files": {name: Path(path) for name, path in parse_pairs(files).items()},
            "run_id": run_id,
            "execution_duration": limit,
            "prerequisites": [await find_job(client, job_id) for job_id in after],
            "priority": priority,
        }
        if dry_run:
            return await _dry_run(session, client, request)
        job = await client.submit(**request, run=not pending)
        return await _finish(session, client, job, wait and not pending, timeout)


@click.command()
@click.argument("job_id", shell_complete=complete_job)
@click.argument("parameters", nargs=-1)
@dry_run_option
@wait_options
@command_options
async def rerun(
    session: Session,
    job_id: str,
    parameters: tuple[str, ...],
    dry_run: bool,
    wait: bool,
    timeout: float | None,
) -> int:
    """Run a job once more, with PARAMETERS (name=value) instead of those it had."""
    async with session.client() as client:
        request = await client.request(await find_job(client, job_id), parse_pairs(parameters))
        if dry_run:
            return await _dry_run(session, client, request)
        job = await client.submit(**request)
        return await _finish(session, client, job, wait, timeout)


COMMANDS = {"submit": submit, "rerun": rerun}
"""All commands of this file."""
