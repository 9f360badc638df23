# SPDX-License-Identifier: GPL-3.0-or-later
"""A job's directories: its log, its outputs, and the engine's files about it.

``{work_dir}/jobs/{id}/`` belongs to the job; ``output/`` in it (the job's
JOB_OUTPUT_DIR) is shown to the user. Jobs can write anything there, so
nothing in it is trusted. ``{work_dir}/engine/{id}/`` has the files of the
engine and of the job's supervisor. A further attempt of a job has
directories of its own below these.
"""

from __future__ import annotations

__all__ = ["DRY_RUN_PREFIX", "FORMER_LOG", "LOG_NAME", "Workspace", "Workspaces"]

import asyncio
import contextlib
import fcntl
import mimetypes
import os
import shutil
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any
from urllib.parse import quote

from . import durable
from .errors import StoreError
from .file_access import open_below, read_json
from .model import Result, check_job_id

DRY_RUN_PREFIX = "dry-run-"
"""How the directories of dry runs begin, which last no longer than these."""

LOG_NAME = "ocps.log"
"""Name of a job's log in its output directory."""

FORMER_LOG = "attempt-{}-log.txt"
"""Name of the result that is the log of a former attempt, by its number."""

# Media types that the standard library does not know, or calls otherwise.
MIME_TYPES = {
    ".log": "text/plain",
    ".yaml": "application/yaml",
    ".yml": "application/yaml",
    ".fits": "application/fits",
    ".parq": "application/vnd.apache.parquet",
    ".ecsv": "text/plain",
}


MAX_RESULTS = 10_000
"""How many files of a job are listed as results, in alphabetical order."""

MAX_JOB_JSON = 32 * 2**20
"""Longest JSON file (bytes) of a job that is read."""

ENTRY_LIMIT = 1_000_000
"""How many files of a job are examined for that."""


class Workspace:
    """The directories of one job.

    Parameters
    ----------
    root : `pathlib.Path`
        The job's directory; it need not exist.
    engine : `pathlib.Path`
        The engine's directory of the job; it need not exist.
    durable : `bool`
        Whether what is written must survive a power cut.
    inputs : `pathlib.Path`, optional
        Where files are that came with the request.
    """

    def __init__(self, root: Path, engine: Path, durable: bool = True, inputs: Path | None = None) -> None:
        self.root = root
        self.engine = engine
        self.durable = durable
        self.inputs = inputs or root / "inputs"

    @property
    def output(self) -> Path:
        """The output directory, which is shown to the user."""
        return self.root / "output"

    @property
    def log(self) -> Path:
        """The job's log."""
        return self.output / LOG_NAME

    def create(self) -> None:
        """Create the directories, accessible to this account alone; no error if they exist."""
        folders = [self.root, self.engine, self.output]
        if self.inputs.parent != self.root:
            # Those above a further attempt are missing if the first one got none.
            folders = [self.root.parent, self.engine.parent, *folders]
        for folder in folders:
            folder.mkdir(mode=0o700, exist_ok=True)
        if self.durable:
            for folder in (self.root, self.root.parent, self.engine.parent):
                durable.sync_folder(folder)

    def remove(self) -> None:
        """Remove the directories with their content; no error if they do not exist."""
        for folder in (self.root, self.engine):
            shutil.rmtree(folder, ignore_errors=True)
            if folder.is_dir() and not folder.is_symlink():
                with contextlib.suppress(OSError):
                    _make_writable(folder)
                shutil.rmtree(folder, ignore_errors=True)

    def read_json(self, name: str) -> Any:
        """Return the content of a JSON file of the engine; `None` if it is missing or not valid.

        Raises
        ------
        OSError
            If it exists and cannot be read now.
        """
        return read_json(self.engine / name)

    def read_job_json(self, name: str) -> Any:
        """Return the content of a JSON file that the job wrote; otherwise as `read_json`."""
        return read_json(self.root / name, MAX_JOB_JSON)

    def write_json(self, name: str, value: Any) -> None:
        """Write a JSON file of the engine atomically, readable by this account alone.

        A plan contains a job's environment, which can have secrets.
        """
        durable.write_json(self.engine / name, value, durable=self.durable)

    def results(self) -> tuple[Result, ...]:
        """Return the files in the output directory, the log first.

        Ids are the paths relative to the output directory, so that they do
        not shift when something is added. Symbolic links are left out, and so
        are files that also have a name elsewhere (hard links): both could
        expose files that are not the job's.
        """
        found: list[tuple[str, os.stat_result]] = []
        links: dict[tuple[int, int], int] = {}
        for name, status in self._files():
            found.append((name, status))
            if status.st_nlink > 1:
                file = status.st_dev, status.st_ino
                links[file] = links.get(file, 0) + 1
        found.sort(key=lambda entry: (entry[0] != LOG_NAME, entry[0]))
        here = [
            (name, status)
            for name, status in found
            if links.get((status.st_dev, status.st_ino), status.st_nlink) == status.st_nlink
        ]
        top = self.output.absolute().as_uri()
        return tuple(
            Result(
                id=printable(name),
                uri=f"{top}/{quote(os.fsencode(name))}",
                size=status.st_size,
                mime_type=guess_mime_type(name),
            )
            for name, status in here[:MAX_RESULTS]
        )

    def _files(self) -> Iterator[tuple[str, os.stat_result]]:
        """List the regular files below the output directory, relative to it."""
        try:
            top = os.open(self.output, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except (FileNotFoundError, NotADirectoryError):
            # A link is refused as "not a directory" too.
            return
        left = ENTRY_LIMIT
        try:
            for folder, _, names, descriptor in os.fwalk(".", dir_fd=top, follow_symlinks=False):
                for name in names:
                    left -= 1
                    if left < 0:
                        return
                    with contextlib.suppress(FileNotFoundError):
                        status = os.stat(name, dir_fd=descriptor, follow_symlinks=False)
                        if stat.S_ISREG(status.st_mode):
                            yield os.path.normpath(os.path.join(folder, name)), status
        finally:
            os.close(top)

    def disk_usage(self) -> int:
        """Return how much (bytes) of the disk all files of the job take; 0 if it has none.

        A file with several names counts in part for each, because some may
        belong to others.
        """
        size = 0
        left = ENTRY_LIMIT
        for top in (self.root, self.engine):
            # The job may be deleted at the same time, and may have taken away rights to its own directories.
            with contextlib.suppress(FileNotFoundError, PermissionError):
                for _, _, names, descriptor in os.fwalk(top, follow_symlinks=False):
                    size += os.fstat(descriptor).st_blocks * 512
                    for name in names:
                        with contextlib.suppress(FileNotFoundError, PermissionError):
                            status = os.stat(name, dir_fd=descriptor, follow_symlinks=False)
                            size += status.st_blocks * 512 // (status.st_nlink or 1)
                    left -= len(names) + 1
                    if left < 0:
                        return size
        return size

    def tail(self, lines: int = 20, size: int = 16_384) -> list[str]:
        """Return the last lines of the log, at most ``size`` bytes of it."""
        try:
            descriptor = open_below(self.output, LOG_NAME)
        except OSError:
            return []
        with os.fdopen(descriptor, "rb") as file:
            length = file.seek(0, os.SEEK_END)
            file.seek(max(0, length - size))
            text = file.read(size).decode(errors="replace")
        return text.splitlines()[-lines:]


def _make_writable(top: Path) -> None:
    """Give this account all rights to a directory and those below it, which a job may have taken away."""
    top.chmod(0o700)
    for _, names, _, descriptor in os.fwalk(top, follow_symlinks=False):
        for name in names:
            with contextlib.suppress(OSError):
                if stat.S_ISDIR(os.stat(name, dir_fd=descriptor, follow_symlinks=False).st_mode):
                    os.chmod(name, 0o700, dir_fd=descriptor)


def printable(name: str) -> str:
    """Return a file name in which unprintable characters are replaced by escape sequences."""
    return "".join(
        char
        if char.isprintable()
        else char.encode("utf-8", "surrogateescape").decode("latin-1").encode("unicode_escape").decode()
        for char in name
    )


def guess_mime_type(name: str) -> str:
    """Return the media type for a file name."""
    suffix = os.path.splitext(name)[1].lower()
    return MIME_TYPES.get(suffix) or mimetypes.guess_type(name)[0] or "application/octet-stream"


class Workspaces:
    """All jobs' directories, below one work directory.

    Parameters
    ----------
    work_dir : `pathlib.Path`
        The work directory. One OCPS at a time may use it.
    durable : `bool`
        Whether what is written must survive a power cut.
    min_free_space : `int`
        Free space (bytes) on the work directory's file system below which
        no job is accepted or started.
    min_free_files : `int`
        The same for the number of files (inodes).
    """

    def __init__(
        self, work_dir: Path, *, durable: bool = True, min_free_space: int = 0, min_free_files: int = 0
    ) -> None:
        self.work_dir = work_dir
        self.durable = durable
        self.min_free_space = min_free_space
        self.min_free_files = min_free_files
        self._lock: IO[str] | None = None

    def open(self) -> None:
        """Create and lock the work directory, and remove temporary files that a crash left in it.

        Raises
        ------
        StoreError
            If it cannot be created, or another process uses it.
        """
        try:
            self.work_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
            for name in ("jobs", "engine"):
                (self.work_dir / name).mkdir(mode=0o700, exist_ok=True)
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
        # The process id is only information; a full disk must not keep OCPS from starting.
        with contextlib.suppress(OSError):
            lock.truncate(0)
            lock.write(str(os.getpid()))
            lock.flush()
        self._lock = lock
        for pattern in ("upload-*", f"jobs/{DRY_RUN_PREFIX}*", f"engine/{DRY_RUN_PREFIX}*"):
            for left in self.work_dir.glob(pattern):
                shutil.rmtree(left, ignore_errors=True)

    def close(self) -> None:
        """Release the lock."""
        if self._lock:
            # Closing flushes the process id again, which fails on a full disk.
            with contextlib.suppress(OSError):
                self._lock.close()
            self._lock = None

    def obstacle(self) -> str:
        """Return why no job can be accepted or started now; empty if jobs can."""
        if self._lock is None and not self.work_dir.exists():
            # Simulated jobs have no files, so the directory was never created.
            return ""
        try:
            file_system = os.statvfs(self.work_dir)
            mine = self._lock is None or os.path.samestat(
                os.stat(self.work_dir / "lock"), os.fstat(self._lock.fileno())
            )
        except FileNotFoundError:
            mine = False
        except OSError as error:
            return f"work_dir {self.work_dir}: {error.strerror}"
        if not mine:
            return f"work_dir {self.work_dir} was removed or replaced while OCPS ran; restart OCPS"
        space = file_system.f_bavail * file_system.f_frsize
        if space < self.min_free_space:
            needed = megabytes(self.min_free_space)
            return f"the disk of work_dir is nearly full: {megabytes(space)} free, {needed} needed"
        # File systems without a fixed number of inodes report 0.
        if file_system.f_files and file_system.f_favail < self.min_free_files:
            return (
                f"the disk of work_dir is nearly out of inodes: {file_system.f_favail} free,"
                f" {self.min_free_files} needed"
            )
        return ""

    def of(self, job_id: str, attempt: int = 1) -> Workspace:
        """Return the workspace of a job, or of a further attempt of it, which has one of its own."""
        name = check_job_id(job_id)
        root, engine = self.work_dir / "jobs" / name, self.work_dir / "engine" / name
        if attempt == 1:
            return Workspace(root, engine, self.durable)
        # No job's id has this character, so that no other directory has this name.
        below = f"{name}~{attempt}"
        return Workspace(root / below, engine / below, self.durable, root / "inputs")

    async def remove(self, job_id: str) -> None:
        """Remove a job's files without blocking the event loop."""
        await asyncio.to_thread(self.of(job_id).remove)

    def present(self) -> set[str]:
        """Return the ids of all jobs that have directories."""
        return {entry.name for top in ("jobs", "engine") for entry in os.scandir(self.work_dir / top)}


def megabytes(size: int) -> str:
    """Return a size (bytes) in words."""
    return f"{size / 2**20:.0f} MiB"
