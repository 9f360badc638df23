# SPDX-License-Identifier: GPL-3.0-or-later
"""The command ``ocps`` and its parts.

Each command's module is imported when the command is used: every press of the
Tab key runs ``ocps``, and HTTP and tables take a third of a second to import.
"""

from __future__ import annotations

__all__ = ["main"]

import importlib
from typing import Any

import click
from click.shell_completion import CompletionItem

from ..version import __version__

COMMANDS = {
    "abort": ("jobs", "Stop jobs; what they wrote is kept."),
    "check": ("check", "Test a server from end to end: access, change stream, a job, its results."),
    "completion": ("shell", 'Print the script for completion in a shell: eval "$(ocps completion bash)".'),
    "definitions": ("jobs", "Show which jobs may be submitted, with their parameters."),
    "delete": ("jobs", "Delete jobs with their files; running ones are stopped first."),
    "hold": ("jobs", "Keep waiting jobs from being started."),
    "list": ("jobs", "List jobs, the newest first."),
    "log": ("files", "Print a job's log; with -f, follow it until the job ends."),
    "release": ("jobs", "Run jobs that are held or pending."),
    "rerun": ("submit", "Run a job once more, with PARAMETERS (name=value) instead of those it had."),
    "results": ("files", "Save a job's results in a folder: all, or those whose NAMES (globs) are given."),
    "show": ("jobs", "Show everything that is known about a job."),
    "submit": ("submit", "Run a job: ocps submit sleep duration=2."),
    "watch": ("watch", "Follow jobs: all until Ctrl-C, or those given until they have ended."),
}
"""Module and first line of the help of each command."""


class _Commands(click.Group):
    """A group whose commands are imported when they are used."""

    def list_commands(self, _: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, _: click.Context, name: str) -> click.Command | None:
        if name not in COMMANDS:
            return None
        found = importlib.import_module(f".{COMMANDS[name][0]}", __package__)
        commands: dict[str, click.Command] = found.COMMANDS
        return commands[name]

    def format_commands(self, _: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, words) for name, (_, words) in COMMANDS.items()])

    def shell_complete(self, context: click.Context, incomplete: str) -> list[Any]:
        # Not the group's own, which imports every command for its help.
        names = [CompletionItem(name, help=words) for name, (_, words) in COMMANDS.items()]
        found = [item for item in names if item.value.startswith(incomplete)]
        return found + click.Command.shell_complete(self, context, incomplete)


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="ocps")
def main() -> None:
    """Submit jobs to an OCPS, or another UWS server, and follow them.

    The server is given by --url, --profile, OCPS_URL, OCPS_PROFILE, or the default of
    ~/.config/ocps/profiles.toml; a token is in OCPS_TOKEN, or in the file or
    the variable that the profile names.

    Exit codes: 0 done, 1 the job failed (or a check did), 2 wrong command
    line, 3 server not reached or time run out, 4 refused, unknown, or a file
    exists already, 5 the job was aborted, 130 interrupted.
    """
