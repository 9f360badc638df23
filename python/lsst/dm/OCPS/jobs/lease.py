# SPDX-License-Identifier: GPL-3.0-or-later
"""The lease of a job store: one engine at a time runs its jobs.

The holder increments a number in the store at regular intervals. An engine
that wants the lease watches that number for as long as a lease lasts, by its
own monotonic clock, so that clocks of two machines are never compared. Every
write checks who holds the lease, so that an engine that was believed dead
cannot change anything when it resumes.
"""

from __future__ import annotations

__all__ = ["Lease"]

import asyncio
import logging
import os
import socket
import time
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from .errors import StoreError
from .records import leases
from .store import JobStore

DURATION = 15.0
"""How long (s) a lease lasts that is not renewed."""

RENEWAL = 3.0
"""How often (s) it is renewed."""

NAME = "engine"
"""Name of the lease."""


class Lease:
    """The lease of one engine.

    Parameters
    ----------
    store : `JobStore`
        The store.
    work_dir : `pathlib.Path`
        The work directory, locked by this engine.
    log : `logging.Logger`
        Gets errors.
    """

    def __init__(self, store: JobStore, work_dir: Path, log: logging.Logger) -> None:
        self._store = store
        self._work_dir = work_dir
        self._log = log
        self._holder = uuid.uuid4().hex
        self._renewing: asyncio.Task[None] | None = None

    async def acquire(self) -> None:
        """Acquire the lease; wait up to `DURATION` if its holder may have crashed.

        Raises
        ------
        StoreError
            If another engine holds it.
        """
        me = _describe(self._work_dir)
        found = await self._read()
        if found and not self._has_ended(found.process, me):
            found = await self._watch(found)
        if not await self._store.write(lambda connection: self._take(connection, found, me)):
            raise self._refusal(await self._read() or found)
        self._store.fence(NAME, self._holder)
        self._renewing = asyncio.create_task(self._renew_forever())

    async def release(self) -> None:
        """Release the lease, so that another engine can take it at once."""
        if self._renewing is None:
            return
        self._renewing.cancel()
        await asyncio.gather(self._renewing, return_exceptions=True)
        mine = leases.delete().where(leases.c.name == NAME, leases.c.holder == self._holder)
        try:
            await self._store.write(lambda connection: connection.execute(mine))
        except StoreError as error:
            self._log.warning(f"The lease of the job store could not be released: {error}")

    def _has_ended(self, process: Mapping[str, Any], me: Mapping[str, Any]) -> bool:
        """Return whether the holder is known to have ended, because this process has its work directory."""
        path = self._store.path
        if path is not None and path.resolve().is_relative_to(self._work_dir.resolve()):
            return True
        return all(process.get(name) == me[name] for name in ("boot", "directory"))

    async def _read(self) -> sa.Row[Any] | None:
        found = await self._store.read(sa.select(leases).where(leases.c.name == NAME))
        return found[0] if found else None

    async def _watch(self, first: sa.Row[Any]) -> sa.Row[Any] | None:
        """Wait until a lease has expired, and return it; raise `StoreError` if it is renewed."""
        begin = time.monotonic()
        self._log.warning(
            f"The job store {self._store.name} was used by {_words(first.process)}; "
            f"waiting up to {DURATION:g} s to see whether that process still runs"
        )
        while time.monotonic() - begin < DURATION:
            await asyncio.sleep(DURATION / 15)
            found = await self._read()
            if found is None:
                return None
            if (found.holder, found.beat) != (first.holder, first.beat):
                raise self._refusal(found)
        return first

    def _take(self, connection: sa.Connection, found: sa.Row[Any] | None, me: dict[str, Any]) -> bool:
        """Acquire the lease if it has not changed since it was read as ``found``; return whether it was."""
        mine = {"name": NAME, "holder": self._holder, "beat": 0, "process": me}
        if found is None:
            there = connection.scalar(sa.select(leases.c.holder).where(leases.c.name == NAME))
            if there is None:
                connection.execute(leases.insert(), mine)
            return there is None
        same = (leases.c.name == NAME, leases.c.holder == found.holder, leases.c.beat == found.beat)
        return connection.execute(leases.update().where(*same).values(mine)).rowcount == 1

    async def _renew_forever(self) -> None:
        mine = leases.update().where(leases.c.name == NAME, leases.c.holder == self._holder)
        renewal = mine.values(beat=leases.c.beat + 1)
        while True:
            await asyncio.sleep(RENEWAL)
            try:
                await self._store.write(lambda connection: connection.execute(renewal))
            except StoreError as error:
                self._log.error(f"The lease of the job store could not be renewed: {error}")

    def _refusal(self, found: sa.Row[Any] | None) -> StoreError:
        other = _words(found.process) if found else "another process"
        return StoreError(
            f"The job store {self._store.name} is in use by another OCPS: {other}. End that process, or use "
            f"another database; the lease of a process that has crashed expires after {DURATION:g} s"
        )


def _describe(work_dir: Path) -> dict[str, Any]:
    """Return a description that identifies this process and its work directory."""
    status = work_dir.stat()
    return {
        "host": socket.gethostname(),
        "pid": os.getpid(),
        "work_dir": str(work_dir),
        "boot": Path("/proc/sys/kernel/random/boot_id").read_text().strip(),
        "directory": f"{status.st_dev}:{status.st_ino}",
    }


def _words(process: Mapping[str, Any]) -> str:
    return f"process {process['pid']} on {process['host']} with work_dir {process['work_dir']}"
