# SPDX-License-Identifier: GPL-3.0-or-later
"""A cache of successful checks of Butlers, valid until the repository changes.

A check runs the set-up commands of an environment and imports the Butler,
which can take ten seconds, and ``start`` and ``enable`` each make one.
"""

from __future__ import annotations

__all__ = ["ButlerChecks"]

import time
from collections.abc import Hashable
from pathlib import Path
from urllib.parse import urlsplit

UNSEEN_VALID = 60.0
"""How long (s) a check is valid for a repository whose changes cannot be seen from here."""


class ButlerChecks:
    """The checks that have passed; failed ones are repeated each time."""

    def __init__(self) -> None:
        self._passed: dict[Hashable, tuple[Hashable, float]] = {}

    def valid(self, key: Hashable, butler: str) -> bool:
        """Return whether a check has passed and the repository has not changed since; reads files.

        Parameters
        ----------
        key : `~collections.abc.Hashable`
            The environment, the repository and the collections that were
            checked.
        butler : `str`
            The repository.
        """
        if key not in self._passed:
            return False
        state, since = self._passed[key]
        return state == _state(butler) and (_visible(butler) or time.monotonic() - since < UNSEEN_VALID)

    def passed(self, key: Hashable, butler: str) -> None:
        """Store that a check has passed; reads files."""
        self._passed[key] = _state(butler), time.monotonic()


def _files(butler: str) -> list[Path]:
    """Return the files that change with a repository: its configuration and SQLite database."""
    if urlsplit(butler).scheme:
        return []
    folder = Path(butler)
    return sorted([*folder.glob("*.yaml"), *folder.glob("*.sqlite3*")])


def _visible(butler: str) -> bool:
    return any(".sqlite3" in file.suffix for file in _files(butler))


def _state(butler: str) -> tuple[tuple[str, int, int, int], ...]:
    found = []
    for file in _files(butler):
        try:
            seen = file.stat()
        except OSError:
            continue
        found.append((file.name, seen.st_ino, seen.st_mtime_ns, seen.st_size))
    return tuple(found)
