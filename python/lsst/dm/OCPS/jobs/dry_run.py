# SPDX-License-Identifier: GPL-3.0-or-later
"""What a dry run of a request found."""

from __future__ import annotations

__all__ = ["DRY_RUN_TIMEOUT", "DryRun", "dry_run_id"]

import shlex
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field

from .workspace import DRY_RUN_PREFIX

DRY_RUN_TIMEOUT = 300.0
"""How long (s) a dry run may take."""


@dataclass(frozen=True, slots=True)
class DryRun:
    """What would run, if the same request was submitted now.

    Parameters
    ----------
    checked : `str`
        What was checked, in words.
    tasks : `~collections.abc.Mapping` [`str`, `int`] or `None`
        How many quanta of each task there would be; `None` if no quantum
        graph was built.
    argv : `tuple` [`str`, ...]
        The command line that would run, without secrets; what only a job has
        is left as a place, such as ``{output_dir}``.
    """

    checked: str
    tasks: Mapping[str, int] | None = None
    argv: tuple[str, ...] = field(default=())

    @property
    def quanta(self) -> int | None:
        """How many quanta there would be; `None` if no quantum graph was built."""
        return None if self.tasks is None else sum(self.tasks.values())

    @property
    def message(self) -> str:
        """What would run, in one line."""
        if self.tasks is not None:
            counts = ", ".join(f"{label} {count}" for label, count in self.tasks.items())
            return f"{self.quanta} quanta: {counts}"
        if self.argv:
            return f"would run: {shlex.join(self.argv)}"
        return f"checked: {self.checked}"


def dry_run_id() -> str:
    """Return an id in place of a job's; its files are removed when OCPS starts, should it be killed."""
    return f"{DRY_RUN_PREFIX}{uuid.uuid4().hex}"
