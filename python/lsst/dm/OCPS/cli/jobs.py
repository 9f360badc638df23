# SPDX-License-Identifier: GPL-3.0-or-later
"""Commands about jobs."""

from __future__ import annotations

__all__ = ["COMMANDS", "parse_pairs"]

from collections.abc import Callable
from pathlib import Path

import click

from ..client import Client, RemoteJob
from .completion import complete_definition, complete_job
from .session import Session, as_json, command_options, exit_code, find_job
from .table import PHASE_STYLES, jobs_table

PHASES = ("PENDING", "HELD", "QUEUED", "EXECUTING", "SUSPENDED", "UNKNOWN", "COMPLETED", "ERROR", "ABORTED",
          "ARCHIVED")  # fmt: skip


def parse_pairs(words: tuple[str, ...]) -> dict[str, str]:
    """Return what is given as ``name=value``."""
    found: dict[str, str] = {}
    for word in words:
        name, equals, value = word.partition("=")
        if not equals or not name or name in found:
            problem = "is given twice" if equals and name else "is not of the form name=value"
            raise click.UsageError(f"{word!r} {problem}")
        found[name] = value
    return found


def _show(session: Session, job: RemoteJob) -> None:
    """Write what became of a job, in one line."""
    if session.json:
        session.show_json(as_json(job))
    else:
        session.say(f"{job.id} {job.phase}{': ' if job.error else ''}{job.error}")


async def _finish(session: Session, client: Client, job: RemoteJob, wait: bool, timeout: float | None) -> int:
    if wait:
        job = await client.wait(job, timeout)
    _show(session, job)
    return exit_code(job) if wait else 0


def wait_options(function: Callable[..., None]) -> Callable[..., None]:
    """Add ``--wait`` and ``--timeout``."""
    function = click.option("--timeout", type=float, help="Wait so long at most (s).")(function)
    return click.option("--wait", "-w", is_flag=True, help="Wait for its end.")(function)


@click.command()
@click.argument("definition", shell_complete=complete_definition)
@click.argument("parameters", nargs=-1)
@click.option("--file", "-f", "files", multiple=True, help="A file for a parameter: name=path.")
@click.option("--run-id", default="", help="A name of your own.")
@click.option("--limit", type=int, help="Longest run time (s).")
@click.option("--pending", is_flag=True, help="Do not run it yet; see release.")
@wait_options
@command_options
async def submit(
    session: Session,
    definition: str,
    parameters: tuple[str, ...],
    files: tuple[str, ...],
    run_id: str,
    limit: int | None,
    pending: bool,
    wait: bool,
    timeout: float | None,
) -> int:
    """Run a job: ocps submit sleep duration=2.

    Where the address is a job list of another server, DEFINITION is "-".
    """
    async with session.client() as client:
        job = await client.submit(
            "" if definition == "-" else definition,
            parse_pairs(parameters),
            files={name: Path(path) for name, path in parse_pairs(files).items()},
            run_id=run_id,
            execution_duration=limit,
            run=not pending,
        )
        return await _finish(session, client, job, wait and not pending, timeout)


@click.command("list")
@click.argument("definition", default="", shell_complete=complete_definition)
@click.option("--phase", "-p", "phases", multiple=True, type=click.Choice(PHASES, case_sensitive=False))
@click.option("--last", "-n", type=click.IntRange(1), default=50, help="The newest so many (default: 50).")
@command_options
async def list_jobs(session: Session, definition: str, phases: tuple[str, ...], last: int) -> None:
    """List jobs, the newest first."""
    async with session.client() as client:
        jobs = await client.jobs(definition, phases=phases, last=last)
        if definition and len(jobs) <= 200 and (await client.server()).ours:
            # A UWS list says little; our own server has it all in one.
            whole = {job.id: job for job in await client.jobs(last=1000)}
            jobs = [whole.get(job.id, job) for job in jobs]
    if session.json:
        session.show_json([as_json(job) for job in jobs])
    else:
        session.console.print(jobs_table(jobs))


@click.command()
@click.argument("job_id", shell_complete=complete_job)
@command_options
async def show(session: Session, job_id: str) -> int:
    """Show all that is known of a job."""
    async with session.client() as client:
        job = await find_job(client, job_id)
    if session.json:
        session.show_json(as_json(job))
        return 0
    style = PHASE_STYLES.get(job.phase, "")
    session.console.print(f"{job.id} [{style or 'default'}]{job.phase}[/]")
    for name in ("url", "definition", "run_id", "owner", "creation_time", "start_time", "end_time",
                 "destruction", "execution_duration", "message", "error"):  # fmt: skip
        if value := getattr(job, name):
            session.say(f"  {name.replace('_', ' '):18} {value}")
    for parameter, value in job.parameters.items():
        session.say(f"  parameter          {parameter}={value}")
    for result in job.results:
        size = "" if result.size is None else f" ({result.size} bytes)"
        session.say(f"  result             {result.id}{size}")
    return 0


def _change(name: str, help_text: str) -> click.Command:
    """Return a command that tells jobs something."""

    @click.command(name, help=help_text)
    @click.argument("job_ids", nargs=-1, required=True, shell_complete=complete_job)
    @command_options
    async def change(session: Session, job_ids: tuple[str, ...]) -> None:
        async with session.client() as client:
            tell = {"abort": client.abort, "hold": client.hold, "release": client.run}[name]
            for job_id in job_ids:
                _show(session, await tell(await find_job(client, job_id)))

    return change


@click.command()
@click.argument("job_id", shell_complete=complete_job)
@click.argument("parameters", nargs=-1)
@wait_options
@command_options
async def rerun(
    session: Session, job_id: str, parameters: tuple[str, ...], wait: bool, timeout: float | None
) -> int:
    """Run a job once more, with PARAMETERS (name=value) instead of those it had."""
    async with session.client() as client:
        old = await find_job(client, job_id)
        server = await client.server()
        values = {**old.parameters, **parse_pairs(parameters)}
        run_id = "" if old.run_id == old.id else old.run_id
        job = await client.submit(old.definition if server.ours else "", values, run_id=run_id)
        return await _finish(session, client, job, wait, timeout)


@click.command()
@command_options
async def definitions(session: Session) -> None:
    """Show what may be asked for, with its parameters."""
    async with session.client() as client:
        found = await client.definitions()
        ours = (await client.server()).ours
    if session.json:
        session.show_json(found)
        return
    if not ours:
        session.say("This server cannot tell what may be asked for.")
    for entry in found:
        session.say(f"{entry['name']}: {entry['description']}")
        for parameter in entry["parameters"]:
            given = "required" if parameter["required"] else f"default {parameter['default']!r}"
            unit = f" ({parameter['unit']})" if parameter["unit"] else ""
            words = f"  {parameter['name']}={parameter['type']}{unit}, {given}"
            session.say(f"{words}{': ' if parameter['description'] else ''}{parameter['description']}")


COMMANDS = (
    submit,
    list_jobs,
    show,
    rerun,
    definitions,
    _change("abort", "Stop jobs; what they wrote is kept."),
    _change("hold", "Keep jobs that wait from being started."),
    _change("release", "Run jobs that are held or pending."),
)
"""All commands of this file."""
