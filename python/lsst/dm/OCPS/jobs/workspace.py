# SPDX-License-Identifier: GPL-3.0-or-later
"""A job's directory: its log, its outputs, and the list of its results.

``{work_dir}/jobs/{id}/`` belongs to the engine and its supervisor;
``output/`` in it (the job's JOB_OUTPUT_DIR) is what the user sees.
"""

from __future__ import annotations

__all__ = ["LOG_NAME", "Workspace", "Workspaces"]

import asyncio
import fcntl
import json
import mimetypes
import os
import shutil
from pathlib import Path
from typing import IO, Any

from .errors import StoreError
from .model import Result, check_job_id

LOG_NAME = "ocps.log"
"""Name of a job's log in its output directory."""

# What the standard library does not know; the field's own types.
MIME_TYPES = {
    ".log": "text/plain",
    ".yaml": "application/yaml",
    ".yml": "application/yaml",
    ".fits": "application/fits",
    ".parq": "application/vnd.apache.parquet",
    ".ecsv": "text/plain",
}


class Workspace:
    """The directory of one job.

    Parameters
    ----------
    root : `pathlib.Path`
        The directory; it need not exist.
    """

    def __init__(self, root: Path) -> None:
        self.root = root

    @property
    def output(self) -> Path:
        """The directory that is shown to the user."""
        return self.root / "output"

    @property
    def log(self) -> Path:
        """The job's log."""
        return self.output / LOG_NAME

    def make(self) -> None:
        """Make the directory; no error if it is there."""
        self.output.mkdir(parents=True, exist_ok=True)

    def remove(self) -> None:
        """Remove the directory with all that is in it; no error if there is none."""
        shutil.rmtree(self.root, ignore_errors=True)

    def read_json(self, name: str) -> Any:
        """Return what the JSON file ``name`` holds, `None` if there is none.

        A file that was cut short by a crash counts as none: every file that
        matters is written whole or not at all.
        """
        try:
            return json.loads((self.root / name).read_bytes())
        except (OSError, ValueError):
            return None

    def write_json(self, name: str, value: Any) -> None:
        """Write the JSON file ``name``, whole or not at all, for this user alone.

        A plan has a job's environment, and with it what a site keeps secret.
        """
        temporary = self.root / f".{name}.{os.getpid()}"
        with open(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
            json.dump(value, file)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(self.root / name)

    def results(self) -> tuple[Result, ...]:
        """Return everything in the output directory, the log first.

        Ids are the paths relative to the output directory, so that they do
        not shift when something is added. Links that lead out are left out.
        """
        top = self.output.resolve()
        found = []
        for folder, _, names in os.walk(top):
            for name in names:
                path = Path(folder, name)
                if path.is_file() and path.resolve().is_relative_to(top):
                    found.append(path)
        found.sort(key=lambda path: (path != top / LOG_NAME, path))
        return tuple(
            Result(
                id=str(path.relative_to(top)),
                uri=path.as_uri(),
                size=path.stat().st_size,
                mime_type=guess_mime_type(path.name),
            )
            for path in found
        )

    def tail(self, lines: int = 20, size: int = 16_384) -> list[str]:
        """Return the last lines of the log, at most ``size`` bytes of it."""
        try:
            with self.log.open("rb") as file:
                length = file.seek(0, os.SEEK_END)
                file.seek(max(0, length - size))
                text = file.read(size).decode(errors="replace")
        except OSError:
            return []
        return text.splitlines()[-lines:]


def guess_mime_type(name: str) -> str:
    """Return the media type that goes with a file name."""
    suffix = os.path.splitext(name)[1].lower()
    return MIME_TYPES.get(suffix) or mimetypes.guess_type(name)[0] or "application/octet-stream"


class Workspaces:
    """All jobs' directories, below one work directory.

    Parameters
    ----------
    work_dir : `pathlib.Path`
        The work directory. One OCPS at a time may use it.
    """

    def __init__(self, work_dir: Path) -> None:
        self.work_dir = work_dir
        self._lock: IO[str] | None = None

    def open(self) -> None:
        """Make the work directory and lock it against another OCPS.

        Raises
        ------
        StoreError
            If it cannot be made, or another process uses it.
        """
        try:
            (self.work_dir / "jobs").mkdir(parents=True, exist_ok=True)
            lock = (self.work_dir / "lock").open("a+")
        except OSError as error:
            raise StoreError(f"work_dir {self.work_dir}: {error.strerror}") from error
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            lock.seek(0)
            pid = lock.read().strip() or "?"
            lock.close()
            raise StoreError(f"work_dir {self.work_dir} is in use by another OCPS (process {pid})") from error
        lock.truncate(0)
        lock.write(str(os.getpid()))
        lock.flush()
        self._lock = lock

    def close(self) -> None:
        """Give up the lock."""
        if self._lock:
            self._lock.close()
            self._lock = None

    def of(self, job_id: str) -> Workspace:
        """Return the workspace of a job."""
        return Workspace(self.work_dir / "jobs" / check_job_id(job_id))

    async def remove(self, job_id: str) -> None:
        """Remove a job's files without holding up the event loop."""
        await asyncio.to_thread(self.of(job_id).remove)
