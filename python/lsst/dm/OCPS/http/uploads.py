# SPDX-License-Identifier: GPL-3.0-or-later
"""Limits on the disk space of uploaded files, per owner and in total."""

from __future__ import annotations

__all__ = ["Uploads"]

import asyncio
import contextlib
import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from aiohttp import web

from ..config import HttpConfig
from ..jobs.errors import JobError
from ..jobs.manager import JobManager

INPUTS = "inputs"
"""Name of the directory of uploaded files in a job's directory."""


class Uploads:
    """Counts the uploaded files of all jobs until these are archived or deleted.

    Parameters
    ----------
    manager : `JobManager`
        The engine.
    config : `HttpConfig`
        Has the limits.
    """

    def __init__(self, manager: JobManager, config: HttpConfig) -> None:
        self._manager = manager
        self._config = config
        self._kept: dict[str, tuple[str, int]] | None = None
        self._arriving: Counter[str] = Counter()
        self._lock = asyncio.Lock()

    async def check(self) -> None:
        """Update the count, because files are removed when their jobs are archived or deleted.

        Raises
        ------
        aiohttp.web.HTTPInsufficientStorage
            If the disk is nearly full.
        """
        async with self._lock:
            if self._kept is None:
                found = await asyncio.to_thread(_sizes, self._manager.workspaces.work_dir / "jobs")
                self._kept = {}
                for job_id, size in found.items():
                    with contextlib.suppress(JobError):
                        self._kept[job_id] = (await self._manager.get(job_id)).owner, size
            else:
                for job_id in await asyncio.to_thread(self._gone, list(self._kept)):
                    self._kept.pop(job_id, None)
        self._check_disk()

    def _check_disk(self) -> None:
        if obstacle := self._manager.workspaces.obstacle():
            raise web.HTTPInsufficientStorage(text=f"No files are accepted now: {obstacle}\n")

    def _gone(self, job_ids: list[str]) -> list[str]:
        return [job_id for job_id in job_ids if not self._folder(job_id).is_dir()]

    def _folder(self, job_id: str) -> Path:
        return self._manager.workspaces.of(job_id).root / INPUTS

    @contextlib.contextmanager
    def arriving(self, owner: str) -> Iterator[Upload]:
        """Count the files of a request while they are received."""
        upload = Upload(self, owner)
        try:
            yield upload
        finally:
            self._arriving[owner] -= upload.size

    def add(self, owner: str, size: int) -> None:
        """Count bytes that were received.

        Raises
        ------
        aiohttp.web.HTTPInsufficientStorage
            If the files of the owner, or of all owners, exceed their limit.
        """
        self._arriving[owner] += size
        kept = (self._kept or {}).values()
        mine = self._arriving[owner] + sum(length for name, length in kept if name == owner)
        everything = self._arriving.total() + sum(length for _, length in kept)
        for limit, used, whose in (
            (self._config.max_owner_uploads, mine, "your jobs keep"),
            (self._config.max_uploads, everything, "all jobs keep"),
        ):
            if limit and used > limit:
                raise web.HTTPInsufficientStorage(
                    text=f"With this file {whose} more than {limit} bytes of files; delete jobs\n"
                )
        self._check_disk()

    def keep(self, job_id: str, owner: str) -> None:
        """Count the files that a job keeps."""
        if self._kept is not None:
            self._kept[job_id] = owner, _size(self._folder(job_id))


class Upload:
    """The files of one request.

    Parameters
    ----------
    uploads : `Uploads`
        Counts all of them.
    owner : `str`
        Who sent the request.
    """

    def __init__(self, uploads: Uploads, owner: str) -> None:
        self._uploads = uploads
        self._owner = owner
        self.size = 0

    def add(self, size: int, limit: int) -> None:
        """Count bytes that were received; ``limit`` (bytes) applies to one request.

        Raises
        ------
        aiohttp.web.HTTPRequestEntityTooLarge, aiohttp.web.HTTPInsufficientStorage
            If a limit is exceeded.
        """
        self.size += size
        self._uploads.add(self._owner, size)
        if self.size > limit:
            raise web.HTTPRequestEntityTooLarge(limit, self.size)


def _sizes(jobs: Path) -> dict[str, int]:
    """Return the sizes (bytes) of the files of all jobs that have any; runs in a thread."""
    with contextlib.suppress(OSError):
        names = os.listdir(jobs)
        return {name: _size(jobs / name / INPUTS) for name in names if (jobs / name / INPUTS).is_dir()}
    return {}


def _size(folder: Path) -> int:
    with contextlib.suppress(OSError):
        return sum(entry.stat(follow_symlinks=False).st_size for entry in os.scandir(folder))
    return 0
