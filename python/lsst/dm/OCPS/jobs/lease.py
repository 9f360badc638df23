# SPDX-License-Identifier: GPL-3.0-or-later
"""The lease of a job store: one engine at a time runs its jobs.

The holder renews a number in the store. Whoever wants the lease watches that
number for as long as a lease lasts, by a clock of its own that does not jump:
so no two clocks are compared. Every write checks who holds the lease, so that
an engine that was thought dead and comes back changes nothing.
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
        The work directory of this engine, which has locked it.
    log : `logging.Logger`
        Gets what goes wrong.
    """

    def __init__(self, store: JobStore, work_dir: Path, log: logging.Logger) -> None:
        self._store = store
        self._work_dir = work_dir
        self._log = log
        self._holder = uuid.uuid4().hex
        self._renewing: asyncio.Task[None] | None = None

    async def acquire(self) -> None:
        """Take the lease; wait up to `DURATION` where a crash may have left it.

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
        """Return whether the holder is known to have ended: it had locked what this process has locked."""
        path = self._store.path
        if path is not None and path.resolve().is_relative_to(self._work_dir.resolve()):
            return True
        return all(process.get(name) == me[name] for name in ("boot", "directory"))

    async def _read(self) -> sa.Row[Any] | None:
        found = await self._store.read(sa.select(leases).where(leases.c.name == NAME))
        return found[0] if found else None

    async def _watch(self, first: sa.Row[Any]) -> sa.Row[Any] | None:
        """Wait until a lease has ended; return it then. Raises `StoreError` if it is renewed."""
        begin = time.monotonic()
        self._log.warning(
            f"The job store {self._store.name} was used by {_words(first.process)}; "
            f"waiting up to {DURATION:g} s to see whether that one still runs"
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
        """Take the lease if it still is as it was found."""
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
            f"The job store {self._store.name} is in use by another OCPS: {other}. End that one, or use "
            f"another database; a lease that is not renewed any more ends after {DURATION:g} s"
        )


def _describe(work_dir: Path) -> dict[str, Any]:
    """Return what tells this process and its work directory from others."""
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
