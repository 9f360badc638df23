# SPDX-License-Identifier: GPL-3.0-or-later
"""The job store: a database of all jobs that survives crashes and power cuts.

SQLite (in WAL mode) by default; PostgreSQL by URL.
"""

from __future__ import annotations

__all__ = ["JobQuery", "JobStore", "JobSummary"]

import asyncio
import contextlib
import logging
import time
from collections.abc import (
    AsyncGenerator,
    AsyncIterator,
    Callable,
    Collection,
    Iterable,
    Iterator,
    Mapping,
    Sequence,
)
from datetime import datetime
from pathlib import Path
from typing import Any, TypeVar

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from .answer_guard import AnswerGuard
from .errors import StoreError
from .model import LIVE, TERMINAL, ExecutionPhase, Job, from_ms, to_ms
from .query import JobEntry, JobQuery, JobSummary
from .records import from_row, jobs, kept_files, leases, needed, prepare_schema, state, to_row
from .sqlite_file import SqliteFile, ThreadedWriting, prepare_connection
from .writer import GroupWriter, Operation

BUSY_TIMEOUT = 5.0
"""How long (s) to wait for a database that another program has locked."""

R = TypeVar("R")
T = TypeVar("T")

_INSERT = jobs.insert()
_UPDATE = jobs.update().where(
    jobs.c.id == sa.bindparam("this_id"), jobs.c.sequence == sa.bindparam("old_sequence")
)

_SEQUENCE = "last_sequence"
"""Name under which the number of the last deleted change is kept."""


class JobStore:
    """The database of all jobs.

    Use `open` to get one. Every method raises `StoreError` with the reason
    if the database fails; then nothing was changed.

    Parameters
    ----------
    engine : `sqlalchemy.ext.asyncio.AsyncEngine`
        The database.
    name : `str`
        The database in messages: its file, or its URL without password.
    log : `logging.Logger`
        Gets damaged records.
    file : `SqliteFile` or `None`
        The file of a SQLite database.
    """

    def __init__(
        self, engine: AsyncEngine, name: str, log: logging.Logger, file: SqliteFile | None = None
    ) -> None:
        self.name = name
        self.log = log
        self._engine = engine
        self._file = file
        self._writer = GroupWriter(self._transaction)
        self._writing = ThreadedWriting(file.path, BUSY_TIMEOUT) if file else None
        self._guard = AnswerGuard(engine) if engine.dialect.driver == "psycopg" else None
        self._fence: tuple[sa.Select[Any], str] | None = None
        self.on_written: Callable[[float], None] | None = None
        """Called with the time (s) that each transaction took, for statistics."""
        self._damaged: set[str] = set()
        # A store in memory has one connection, hence one transaction at a time.
        self._alone: contextlib.AbstractAsyncContextManager[object] = (
            asyncio.Lock() if isinstance(engine.pool, sa.pool.StaticPool) else contextlib.nullcontext()
        )

    @classmethod
    async def open(
        cls,
        url: str = "sqlite+aiosqlite://",
        *,
        may_be_empty: bool = True,
        log: logging.Logger | None = None,
    ) -> JobStore:
        """Open a store; create its tables if they do not exist.

        Parameters
        ----------
        url : `str`
            SQLAlchemy URL with an asynchronous driver; the default is a
            store in memory.
        may_be_empty : `bool`
            Whether an existing SQLite file may be empty; `False` if jobs are
            known to have been stored in it.
        log : `logging.Logger`, optional
            Gets damaged records.

        Raises
        ------
        StoreError
            If it cannot be opened, is damaged, or was written by a newer version.
        """
        parsed = sa.make_url(url)
        name, file = parsed.render_as_string(), None
        options: dict[str, Any] = {}
        if parsed.get_backend_name() == "sqlite":
            options["connect_args"] = {"timeout": BUSY_TIMEOUT}
            if parsed.database:
                name = parsed.database
                file = SqliteFile(Path(name))
                await asyncio.to_thread(file.prepare, may_be_empty)
        elif parsed.get_driver_name() == "psycopg":
            bound = round(BUSY_TIMEOUT * 1000)
            options["connect_args"] = {
                "connect_timeout": round(BUSY_TIMEOUT),
                "options": f"-c lock_timeout={bound} -c statement_timeout={2 * bound}",
                "tcp_user_timeout": 2 * bound,
            }
            # After a restart of PostgreSQL no operation is refused because a kept connection was cut.
            options["pool_pre_ping"] = True
        engine = create_async_engine(url, **options)
        if engine.dialect.name == "sqlite":
            sa.event.listen(engine.sync_engine, "connect", prepare_connection)
        store = cls(engine, name, log or logging.getLogger(__name__), file)
        try:
            with store._explained("opened"):
                async with engine.begin() as connection:
                    if file:
                        await connection.run_sync(file.check_integrity)
                    await connection.run_sync(prepare_schema)
            if file:
                file.opened()
        except BaseException:
            await engine.dispose()
            raise
        return store

    @property
    def path(self) -> Path | None:
        """The file of a SQLite database, else `None`."""
        return self._file.path if self._file else None

    async def close(self) -> None:
        """Finish the writes that were requested and release the database."""
        await self._writer.finish()
        if self._writing:
            await self._writing.close()
        await self._engine.dispose()

    def fence(self, lease: str, holder: str) -> None:
        """Refuse every write from now on while ``lease`` has another holder.

        Parameters
        ----------
        lease, holder : `str`
            Name of the lease, and who must hold it.
        """
        # The row is locked (in PostgreSQL), so that the lease cannot be taken before the transaction ends.
        select = sa.select(leases.c.holder).where(leases.c.name == lease).with_for_update(read=True)
        self._fence = (select, holder)

    async def last_sequence(self) -> int:
        """Return the largest ``sequence`` ever stored, also of deleted records; 0 in a new store."""
        deleted = int(await self.recall(_SEQUENCE) or 0)
        async with self._reading() as connection:
            return max(deleted, await connection.scalar(sa.select(sa.func.max(jobs.c.sequence))) or 0)

    async def remember(self, name: str, value: str) -> None:
        """Store a text under a name; it replaces the one that was there."""
        await self.write(lambda connection: _put_state(connection, name, value))

    async def recall(self, name: str) -> str | None:
        """Return the text that is stored under a name, `None` if there is none."""
        async with self._reading() as connection:
            value = await connection.scalar(sa.select(state.c.value).where(state.c.name == name))
            return None if value is None else str(value)

    async def insert(self, job: Job) -> None:
        """Add a new job."""
        row = to_row(job)
        await self.write(lambda connection: connection.execute(_INSERT, row))

    async def replace(self, old: Job, new: Job) -> bool:
        """Replace ``old`` by ``new``, if the store still has ``old``.

        Returns
        -------
        replaced : `bool`
            `False` if the store has another record.
        """
        row = to_row(new)
        key = {"this_id": old.id, "old_sequence": old.sequence}
        count = await self.write(lambda connection: connection.execute(_UPDATE, row | key).rowcount)
        return bool(count == 1)

    async def delete(self, job_id: str) -> None:
        """Remove a job's record; no error if there is none."""
        found = sa.select(jobs.c.sequence).where(jobs.c.id == job_id)
        delete = jobs.delete().where(jobs.c.id == job_id)

        def run(connection: sa.Connection) -> None:
            # Readers of changes resume by number, so a number must not be used twice.
            sequence = connection.scalar(found) or 0
            known = connection.scalar(sa.select(state.c.value).where(state.c.name == _SEQUENCE))
            if sequence > int(known or 0):
                _put_state(connection, _SEQUENCE, str(sequence))
            connection.execute(delete)
            connection.execute(kept_files.delete().where(kept_files.c.id == job_id))

        await self.write(run)

    async def withdraw(self, job: Job) -> None:
        """Remove the first record of a job if it was stored although its insertion failed."""
        delete = jobs.delete().where(jobs.c.id == job.id, jobs.c.sequence == job.sequence)
        await self.write(lambda connection: connection.execute(delete))

    async def get(self, job_id: str) -> Job | None:
        """Return a job, or `None` if there is none of this id."""
        async with self._reading() as connection:
            row = (await connection.execute(sa.select(jobs).where(jobs.c.id == job_id))).mappings().first()
        return from_row(row) if row else None

    async def find(self, query: JobQuery) -> list[Job]:
        """Return the jobs that ``query`` selects."""
        return await self._select(query.apply(sa.select(jobs)))

    async def pages(self, query: JobQuery, size: int = 1000) -> AsyncGenerator[list[JobSummary], None]:
        """Return summaries of the jobs that ``query`` selects, page by page.

        Each page is a query of its own: a slow reader keeps no transaction
        open, and does not block the event loop.
        """
        names = ("id", "definition", "phase", "owner", "run_id", "creation_ms")
        async for rows in self._pages(query, sa.select(*(jobs.c[name] for name in names)), size):
            yield [_summary(row) for row in rows]

    async def entry_pages(self, query: JobQuery, size: int = 1000) -> AsyncGenerator[list[JobEntry], None]:
        """Return what tables show of the jobs that ``query`` selects, page by page as `pages` does."""
        names = ("id", "definition", "phase", "owner", "run_id", "creation_ms", "document")
        async for rows in self._pages(query, sa.select(*(jobs.c[name] for name in names)), size):
            yield self._read(rows, JobEntry.from_row)

    async def job_pages(self, query: JobQuery, size: int = 200) -> AsyncGenerator[list[Job], None]:
        """Return the jobs that ``query`` selects, page by page as `pages` does."""
        async for rows in self._pages(query, sa.select(jobs), size):
            yield self._jobs(row._mapping for row in rows)

    async def _pages(
        self, query: JobQuery, select: sa.Select[Any], size: int
    ) -> AsyncIterator[Sequence[sa.Row[Any]]]:
        left, end = query.last, query.start
        while left is None or left > 0:
            wanted = size if left is None else min(size, left)
            async with self._reading() as connection:
                rows = (await connection.execute(query.apply(select, end).limit(wanted))).all()
            yield rows
            if len(rows) < wanted:
                return
            end = (rows[-1].creation_ms, rows[-1].id)
            left = None if left is None else left - len(rows)

    async def live(self) -> list[Job]:
        """Return all jobs that have not ended, oldest first."""
        return await self.find(JobQuery(phases=LIVE))

    async def changed_since(self, sequence: int, limit: int) -> list[Job]:
        """Return up to ``limit`` jobs that changed after change number ``sequence``, in order of change."""
        select = sa.select(jobs).where(jobs.c.sequence > sequence)
        return await self._select(select.order_by(jobs.c.sequence).limit(limit))

    async def doomed(self, before: datetime, limit: int = 100) -> list[Job]:
        """Return jobs that are not archived and whose destruction time has come."""
        select = sa.select(jobs).where(
            jobs.c.destruction_ms <= to_ms(before), jobs.c.phase != str(ExecutionPhase.ARCHIVED)
        )
        return await self._select(select.order_by(jobs.c.destruction_ms).limit(limit))

    async def next_destruction(self) -> datetime | None:
        """Return the earliest destruction time of a job not yet archived."""
        select = sa.select(sa.func.min(jobs.c.destruction_ms)).where(
            jobs.c.phase != str(ExecutionPhase.ARCHIVED)
        )
        async with self._reading() as connection:
            found = await connection.scalar(select)
        return None if found is None else from_ms(found)

    async def archived(self, job_ids: Collection[str]) -> set[str]:
        """Return which of some jobs are archived."""
        archived = sa.select(jobs.c.id).where(
            jobs.c.id.in_(job_ids), jobs.c.phase == str(ExecutionPhase.ARCHIVED)
        )
        return {row.id for row in await self.read(archived)}

    async def oldest_ended(self, keep: int) -> list[Job]:
        """Return ended jobs, older than the newest ``keep``, that are not archived."""
        phases = [str(phase) for phase in TERMINAL - {ExecutionPhase.ARCHIVED}]
        select = sa.select(jobs).where(jobs.c.phase.in_(phases))
        return await self._select(select.order_by(jobs.c.creation_ms.desc()).offset(keep).limit(100))

    async def oldest_archived(self, keep: int) -> list[str]:
        """Return ids of archived jobs, older than the newest ``keep``, whose records are not needed."""
        archived = sa.select(jobs.c.id).where(jobs.c.phase == str(ExecutionPhase.ARCHIVED), ~needed)
        rows = await self.read(archived.order_by(jobs.c.creation_ms.desc()).offset(keep).limit(100))
        return [row.id for row in rows]

    async def _select(self, select: sa.Select[Any]) -> list[Job]:
        async with self._reading() as connection:
            result = await connection.execute(select)
            return self._jobs(result.mappings())

    def _jobs(self, rows: Iterable[Mapping[Any, Any]]) -> list[Job]:
        return self._read(rows, from_row)

    def _read(self, rows: Iterable[R], read: Callable[[R], T]) -> list[T]:
        """Return what ``read`` makes of rows; leave out damaged ones, which are logged once."""
        found = []
        for row in rows:
            try:
                found.append(read(row))
            except StoreError as error:
                if str(error) not in self._damaged:
                    self._damaged.add(str(error))
                    self.log.error(f"The job store {self.name}: {error}. The job is left out")
        return found

    async def read(self, select: sa.Select[Any]) -> list[sa.Row[Any]]:
        """Return the rows of a query on any of the tables."""
        async with self._reading() as connection:
            return list((await connection.execute(select)).all())

    @contextlib.asynccontextmanager
    async def _reading(self) -> AsyncIterator[AsyncConnection]:
        with self._explained("read"):
            if self._file:
                self._file.check_present()
            async with self._alone, self._engine.connect() as connection:
                yield connection

    async def write(self, operation: Operation) -> Any:
        """Carry out an operation in a transaction, together with others; return what it returns."""
        return await self._writer.write(operation)

    async def _transaction(self, operations: Sequence[Operation]) -> list[Any]:
        """Carry out operations in one transaction; return what each returns."""

        def run(connection: sa.Connection) -> list[Any]:
            if self._fence and connection.scalar(self._fence[0]) != self._fence[1]:
                raise StoreError("another OCPS has taken over the job store; this one must be restarted")
            return [operation(connection) for operation in operations]

        start = time.perf_counter()
        with self._explained("written"):
            if self._file and self._writing:
                values = await self._writing.transaction(run)
                self._file.check_present()
            else:
                async with self._alone, self._engine.begin() as connection:
                    values = await connection.run_sync(run)
        if self.on_written:
            self.on_written(time.perf_counter() - start)
        return values

    @contextlib.contextmanager
    def _explained(self, what: str) -> Iterator[None]:
        """Turn errors of the database into `StoreError`; bound how long it may hang."""
        try:
            with self._guard.watch() if self._guard else contextlib.nullcontext():
                yield
        except (sa.exc.SQLAlchemyError, OSError, ValueError, OverflowError) as error:
            reason = getattr(error, "orig", None) or error
            raise StoreError(f"The job store {self.name} could not be {what}: {reason}") from error


_PHASES = {str(phase): phase for phase in ExecutionPhase}


def _summary(row: Any) -> JobSummary:
    return JobSummary(row[0], row[1], _PHASES[row[2]], row[3], row[4], from_ms(row[5]))


def _put_state(connection: sa.Connection, name: str, value: str) -> None:
    connection.execute(state.delete().where(state.c.name == name))
    connection.execute(state.insert(), {"name": name, "value": value})
