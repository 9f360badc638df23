# SPDX-License-Identifier: GPL-3.0-or-later
"""The file of a SQLite job store: creation, checks for damage and removal, and writing."""

from __future__ import annotations

__all__ = ["SqliteFile", "ThreadedWriting", "prepare_connection"]

import asyncio
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

import sqlalchemy as sa

from .errors import StoreError

T = TypeVar("T")

_ADVICE = (
    "Restore it from a backup, or save what can be read with: "
    "sqlite3 '{path}' .recover | sqlite3 recovered.sqlite3"
)


class SqliteFile:
    """The file of a job store.

    Parameters
    ----------
    path : `pathlib.Path`
        Where it is.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._inode: int | None = None

    def prepare(self, may_be_empty: bool) -> None:
        """Create the file if it does not exist, readable by this account alone.

        It contains the environment variables of jobs.

        Raises
        ------
        StoreError
            If it cannot be created, or is empty although it must not be.
        """
        try:
            size = self.path.stat().st_size
        except FileNotFoundError:
            try:
                self.path.touch(0o600)
            except OSError as error:
                raise StoreError(f"The job store {self.path} could not be opened: {error}") from error
            return
        if size == 0 and not may_be_empty:
            raise StoreError(
                f"The job store {self.path} is empty, but there are jobs' files beside it. "
                "Restore it from a backup, or remove the empty file to begin without those jobs."
            )

    def check_integrity(self, connection: sa.Connection) -> None:
        """Check the file for damage.

        Raises
        ------
        StoreError
            If it is damaged; the text says what can be done.
        """
        try:
            found = connection.exec_driver_sql("PRAGMA quick_check(3)").scalars().all()
        except sa.exc.OperationalError:
            raise
        except sa.exc.DatabaseError as error:
            found = [str(error.orig)]
        if found != ["ok"]:
            advice = _ADVICE.format(path=self.path)
            raise StoreError(f"The job store {self.path} is damaged: {'; '.join(found)}. {advice}")

    def opened(self) -> None:
        """Remember the identity of the file that was opened."""
        self._inode = os.stat(self.path).st_ino

    def check_present(self) -> None:
        """Check that the file that was opened is still there.

        A removed file can be written as long as it is open, but its content
        is lost afterwards.

        Raises
        ------
        StoreError
            If it was removed or replaced.
        """
        try:
            inode = os.stat(self.path).st_ino
        except OSError:
            inode = None
        if self._inode is not None and inode != self._inode:
            raise StoreError(
                f"The job store {self.path} was removed or replaced while OCPS runs; restart OCPS"
            )


class ThreadedWriting:
    """Carries out the transactions of a job store in one thread, with a connection of its own.

    The asynchronous driver would pass each statement to its thread and back,
    five times and more in a transaction. That cost more than the statements.

    Parameters
    ----------
    path : `pathlib.Path`
        The file.
    busy_timeout : `float`
        How long (s) to wait for a database that another program has locked.
    """

    def __init__(self, path: Path, busy_timeout: float) -> None:
        url = sa.URL.create("sqlite", database=str(path))
        self._engine = sa.create_engine(url, connect_args={"timeout": busy_timeout})
        sa.event.listen(self._engine, "connect", prepare_connection)
        self._thread = ThreadPoolExecutor(1, "ocps-store")

    async def transaction(self, run: Callable[[sa.Connection], T]) -> T:
        """Return what ``run`` returns in a transaction, when that is on the disk."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, self._transaction, run)

    def _transaction(self, run: Callable[[sa.Connection], T]) -> T:
        with self._engine.begin() as connection:
            return run(connection)

    async def close(self) -> None:
        """Close the connection after the last transaction.

        A later transaction would open it again. The thread ends when this
        object is not used any more.
        """
        await asyncio.get_running_loop().run_in_executor(self._thread, self._engine.dispose)


def prepare_connection(connection: Any, _: Any) -> None:
    """Set up a new connection of a SQLite database."""
    cursor = connection.cursor()
    # FULL: stored changes survive a power cut, not only a crash.
    for pragma in ("journal_mode=WAL", "synchronous=FULL"):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()
