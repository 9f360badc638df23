# SPDX-License-Identifier: GPL-3.0-or-later
"""Files and processes of others, which OCPS must not touch whatever happens to it."""

from __future__ import annotations

import contextlib
import hashlib
import os
import secrets
import signal
import subprocess
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self


class Bystanders:
    """Files in some folders, and a process that looks like a job's; a context manager.

    Parameters
    ----------
    folders : sequence of `pathlib.Path`
        Where to put the files.
    """

    def __init__(self, folders: Sequence[Path]) -> None:
        self._folders = folders
        self._before: dict[Path, tuple[object, ...]] = {}
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        for folder in self._folders:
            for name in ("answer", "jobs.sqlite3", "status.json", ".supervisor.json"):
                path = folder / secrets.token_hex(16) / name
                path.parent.mkdir(parents=True)
                path.write_bytes(secrets.token_bytes(1000))
        self._before = self._state()
        self._process = subprocess.Popen(["sh", "-c", "sleep 100000; :"], start_new_session=True)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._process:
            # With the sleep that the shell waits for.
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()

    @property
    def pid(self) -> int:
        """Process id of their process."""
        assert self._process
        return self._process.pid

    def wait(self) -> None:
        """Wait until their process has ended."""
        assert self._process
        self._process.wait()

    def harm(self) -> list[str]:
        """Return what has happened to them, in words."""
        now = self._state()
        found = [
            f"{path}, a file of others, was changed"
            for path in self._before
            if now.get(path) != self._before[path]
        ]
        found += [f"{path} was put among files of others" for path in now if path not in self._before]
        if self._process is None or self._process.poll() is not None:
            found.append("a process of others was killed")
        return found

    def _state(self) -> dict[Path, tuple[object, ...]]:
        state: dict[Path, tuple[object, ...]] = {}
        for folder in self._folders:
            for path in sorted(folder.rglob("*")):
                status = path.lstat()
                digest = hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else ""
                state[path] = (status.st_mode, status.st_uid, status.st_mtime_ns, status.st_ino, digest)
        return state
