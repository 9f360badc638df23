# SPDX-License-Identifier: GPL-3.0-or-later
"""What a dry run found, as the final acknowledgement of a command has it."""

from __future__ import annotations

__all__ = ["dry_run_text"]

import json

from ..jobs.dry_run import DryRun

MAX_LENGTH = 256
"""Longest text (characters) of an acknowledgement of salobj 6."""


def dry_run_text(found: DryRun) -> str:
    """Return what was found as a JSON object that fits into an acknowledgement.

    It has ``quanta`` and ``tasks`` where a quantum graph was built, else
    ``argv`` or ``checked``. ``more`` says how many tasks or words had no room.
    """
    if found.tasks is not None:
        tasks = dict(found.tasks)
        return _fitting(
            [
                {"quanta": found.quanta, "tasks": dict(list(tasks.items())[:count])}
                for count in range(len(tasks) + 1)
            ]
        )
    if found.argv:
        return _fitting([{"argv": found.argv[:count]} for count in range(len(found.argv) + 1)])
    checked = found.checked[:MAX_LENGTH]
    # A character that is not ASCII takes six or twelve.
    while len(text := json.dumps({"checked": checked})) > MAX_LENGTH:
        checked = checked[:-1]
    return text


def _fitting(choices: list[dict[str, object]]) -> str:
    """Return the longest of texts, each of which says one thing more than the one before, that fits."""
    last = len(choices) - 1
    for left, choice in enumerate(reversed(choices)):
        text = json.dumps({**choice, "more": left} if left else choice)
        if len(text) <= MAX_LENGTH or left == last:
            return text
    raise AssertionError("not reached")
