# SPDX-License-Identifier: GPL-3.0-or-later
"""``ocps completion``: the script for completion in a shell."""

from __future__ import annotations

__all__ = ["COMMANDS"]

import click
from click.shell_completion import get_completion_class

NO_SPACE = "    [[ ${COMPREPLY[0]-} == *= ]] && compopt -o nospace\n"
"""Keeps bash from adding a space after ``name=``, where the value follows in the same word."""


@click.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> None:
    """Print the script for completion in a shell: eval "$(ocps completion bash)"."""
    from .main import main

    found = get_completion_class(shell)
    assert found is not None
    source = found(main, {}, "ocps", "_OCPS_COMPLETE").source()
    if shell == "bash":
        source = source.replace("    return 0\n", f"{NO_SPACE}    return 0\n")
    click.echo(source)


COMMANDS = {"completion": completion}
"""All commands of this file."""
