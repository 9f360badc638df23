# SPDX-License-Identifier: GPL-3.0-or-later
"""Jobs that run until a test tells them to end."""

from __future__ import annotations

__all__ = ["Gate", "gated_definition"]

import shlex
from pathlib import Path
from typing import Any


class Gate:
    """A file that jobs wait for.

    Parameters
    ----------
    path : `pathlib.Path`
        The file; it must not exist yet.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    @property
    def script(self) -> str:
        """Shell commands that wait until the gate is opened."""
        return f"while [ ! -e {shlex.quote(str(self.path))} ]; do sleep 0.05; done"

    def open(self) -> None:
        """Let all jobs that wait at the gate go on."""
        self.path.touch()


def gated_definition(name: str = "gated") -> dict[str, Any]:
    """Return a job definition whose jobs run until the file ``gate`` exists.

    Their exit code is the parameter ``code``.
    """
    script = 'while [ ! -e "$0" ]; do sleep 0.05; done; exit "$1"'
    return {
        "name": name,
        "kind": "command",
        "argv": ["sh", "-c", script, "{gate}", "{code}"],
        "parameters": {
            "gate": {"description": "The file to wait for"},
            "code": {"type": "int", "default": 0, "description": "Its exit code"},
        },
    }
