# SPDX-License-Identifier: GPL-3.0-or-later
"""Commands that show jobs, or change them."""

from __future__ import annotations

__all__ = ["COMMANDS"]

import click
from rich.text import Text

from .completion import complete_definition, complete_job
from .session import Session, as_json, command_options, find_job, show_outcome
from .table import PHASE_STYLES, JobsTable

PHASES = ("PENDING", "HELD", "QUEUED", "EXECUTING", "SUSPENDED", "UNKNOWN", "COMPLETED", "ERROR", "ABORTED",
          "ARCHIVED")  # fmt: skip


@click.command("list")
@click.argument("definition", default="", shell_complete=complete_definition)
@click.option("--phase", "-p", "phases", multiple=True, type=click.Choice(PHASES, case_sensitive=False))
@click.option(
    "--last", "-n", type=click.IntRange(1), default=50, help="How many of the newest jobs (default: 50)."
)
@click.option("--search", "-s", default="", help="Words: of ids, owner, parameters, error; or a phase.")
@click.option("--long", "-l", "long", is_flag=True, help="Also show owner, run id, and time of creation.")
@command_options
async def list_jobs(
    session: Session, definition: str, phases: tuple[str, ...], last: int, search: str, long: bool
) -> None:
    """List jobs, the newest first."""
    async with session.client() as client:
        brief = not session.json
        jobs = await client.jobs(definition, phases=phases, last=last, search=search, brief=brief)
        server = await client.server()
        if definition and len(jobs) <= 200 and server.ours and not server.search:
            # Entries of a UWS list have little more than the phase; an OCPS returns whole jobs in one answer.
            whole = {job.id: job for job in await client.jobs(last=1000)}
            jobs = [whole.get(job.id, job) for job in jobs]
    if session.json:
        session.show_json([as_json(job) for job in jobs])
    else:
        session.console.print(JobsTable(jobs, long=long))


@click.command()
@click.argument("job_id", shell_complete=complete_job)
@command_options
async def show(session: Session, job_id: str) -> int:
    """Show everything that is known about a job."""
    async with session.client() as client:
        job = await find_job(client, job_id)
    if session.json:
        session.show_json(as_json(job))
        return 0
    session.console.print(Text.assemble(f"{job.id} ", (job.phase, PHASE_STYLES.get(job.phase, ""))))
    for name in ("url", "definition", "run_id", "owner", "creation_time", "start_time", "end_time",
                 "destruction", "execution_duration", "message", "error"):  # fmt: skip
        if value := getattr(job, name):
            session.say(f"  {name.replace('_', ' '):18} {value}")
    if job.max_attempts > 1:
        session.say(f"  attempt            {job.attempt} of {job.max_attempts}")
    former = job.info.get("attempts")
    for entry in former if isinstance(former, list) else ():
        if isinstance(entry, dict):
            session.say(f"  attempt {entry.get('number')} failed   {entry.get('message')}")
    for parameter, value in job.parameters.items():
        session.say(f"  parameter          {parameter}={value}")
    for result in job.results:
        size = "" if result.size is None else f" ({result.size} bytes)"
        session.say(f"  result             {result.id}{size}")
    return 0


def _change(name: str, help_text: str) -> click.Command:
    """Return a command that changes the phase of jobs."""

    @click.command(name, help=help_text)
    @click.argument("job_ids", nargs=-1, required=True, shell_complete=complete_job)
    @command_options
    async def change(session: Session, job_ids: tuple[str, ...]) -> None:
        async with session.client() as client:
            tell = {"abort": client.abort, "hold": client.hold, "release": client.run}[name]
            for job_id in job_ids:
                show_outcome(session, await tell(await find_job(client, job_id)))

    return change


@click.command()
@click.argument("job_ids", nargs=-1, required=True, shell_complete=complete_job)
@command_options
async def delete(session: Session, job_ids: tuple[str, ...]) -> None:
    """Delete jobs with their files; running ones are stopped first."""
    deleted = []
    async with session.client() as client:
        for job_id in job_ids:
            job = await find_job(client, job_id)
            await client.delete(job)
            deleted.append(job.id)
            if not session.json:
                session.say(f"{job.id} deleted")
    if session.json:
        session.show_json(deleted)


@click.command()
@command_options
async def definitions(session: Session) -> None:
    """Show which jobs may be submitted, with their parameters."""
    async with session.client() as client:
        found = await client.definitions()
        ours = (await client.server()).ours
    if session.json:
        session.show_json(found)
        return
    if not ours:
        session.say("This server does not show which jobs may be submitted.")
    for entry in found:
        session.say(f"{entry['name']}: {entry['description']}")
        for parameter in entry["parameters"]:
            given = "required" if parameter["required"] else f"default {parameter['default']!r}"
            unit = f" ({parameter['unit']})" if parameter["unit"] else ""
            words = f"  {parameter['name']}={parameter['type']}{unit}, {given}"
            session.say(f"{words}{': ' if parameter['description'] else ''}{parameter['description']}")


COMMANDS = {
    "list": list_jobs,
    "show": show,
    "delete": delete,
    "definitions": definitions,
    "abort": _change("abort", "Stop jobs; what they wrote is kept."),
    "hold": _change("hold", "Keep waiting jobs from being started."),
    "release": _change("release", "Run jobs that are held or pending."),
}
"""All commands of this file."""
