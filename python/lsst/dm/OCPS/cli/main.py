# SPDX-License-Identifier: GPL-3.0-or-later
"""The command ``ocps`` and its parts."""

from __future__ import annotations

__all__ = ["main"]

import click
from click.shell_completion import get_completion_class

from ..version import __version__
from . import check, files, jobs, watch


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="ocps")
def main() -> None:
    """Submit jobs to an OCPS, or another UWS server, and follow them.

    Which server: --url, --profile, OCPS_URL, OCPS_PROFILE, or the default of
    ~/.config/ocps/profiles.toml; a token is in OCPS_TOKEN, or in the file or
    the variable that the profile names.

    Exit codes: 0 done, 1 the job failed, 2 wrong command line, 3 server not
    reached or time run out, 4 refused or unknown, 5 the job was aborted.
    """


@main.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> None:
    """Print what makes a shell complete ocps: eval "$(ocps completion bash)"."""
    found = get_completion_class(shell)
    assert found is not None
    click.echo(found(main, {}, "ocps", "_OCPS_COMPLETE").source())


for command in (*jobs.COMMANDS, *files.COMMANDS, watch.watch, check.check):
    main.add_command(command)
