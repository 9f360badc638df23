# SPDX-License-Identifier: GPL-3.0-or-later
"""The notifications that have not been delivered yet, as files below the work directory."""

from __future__ import annotations

__all__ = ["Spool", "entry_name"]

import contextlib
import hashlib
import re
from pathlib import Path
from typing import Any

from ..jobs import durable
from ..jobs.file_access import read_json
from ..jobs.model import Job
from ..jobs.times import to_ms

MAX_ENTRY = 65_536
"""Longest file (bytes) that is read as a notification."""

# End of the job (ms since 1970), key of the target, id of the notification.
_NAME = re.compile(r"[0-9]{15}-([0-9a-f]{12})-[0-9a-f]{32}\.json")

# As `durable.write_json` names the file before it is complete.
_TEMPORARY = re.compile(rf"\.{_NAME.pattern}\.[0-9]+")


def entry_name(job: Job, target: str) -> str:
    """Return the name of the notification about a job's end to a target, by its key.

    The same end always gives the same name, so that nothing is queued twice.
    """
    assert job.end_time
    digest = hashlib.sha256(f"{job.id}\0{target}".encode()).hexdigest()[:32]
    return f"{to_ms(job.end_time):015d}-{target}-{digest}.json"


class Spool:
    """A directory with one file for each notification; all methods are for a thread.

    Parameters
    ----------
    folder : `pathlib.Path`
        The directory.
    durable : `bool`
        Whether a notification must survive a power cut.
    """

    def __init__(self, folder: Path, durable: bool = True) -> None:
        self._folder = folder
        self._durable = durable

    def open(self) -> list[str]:
        """Make the directory; return the names of all notifications in it, the oldest first.

        Temporary files that a crash left behind are removed: only one process uses the directory.
        """
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        for path in self._folder.iterdir():
            if _TEMPORARY.fullmatch(path.name):
                path.unlink(missing_ok=True)
        return sorted(path.name for path in self._folder.iterdir() if _NAME.fullmatch(path.name))

    @staticmethod
    def target_of(name: str) -> str:
        """Return the key of the target of a notification."""
        return name[16:28]

    def put(self, name: str, entry: dict[str, Any]) -> None:
        """Write a notification.

        Raises
        ------
        OSError
            If it could not be written.
        """
        durable.write_json(self._folder / name, entry, durable=self._durable)

    def get(self, name: str) -> dict[str, Any] | None:
        """Return a notification; `None` if there is none that can be used."""
        entry = read_json(self._folder / name, MAX_ENTRY)
        return entry if isinstance(entry, dict) else None

    def remove(self, name: str) -> None:
        """Remove a notification; no error if it is not there."""
        with contextlib.suppress(FileNotFoundError):
            (self._folder / name).unlink()
