# SPDX-License-Identifier: GPL-3.0-or-later
"""The job store: what is written here survives everything but the disk.

SQLite (WAL) by default, another database by URL. Writes of callers that come
at the same time share one transaction, so that a write is on the disk before
its caller goes on and hundreds of jobs a second can still be accepted.
"""

from __future__ import annotations

__all__ = ["JobQuery", "JobStore", "JobSummary"]

import asyncio
import contextlib
import dataclasses
from collections.abc import AsyncIterator, Callable, Collection, Sequence
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from . import records
from .errors import StoreError
from .model import LIVE, TERMINAL, ExecutionPhase, Job
from .records import from_ms, from_row, jobs, state, to_ms, to_row

Operation = Callable[[sa.Connection], Any]

BUSY_TIMEOUT = 5.0
"""How long (s) to wait for a SQLite file that something else has locked."""


@dataclasses.dataclass(frozen=True, slots=True)
class JobQuery:
    """Which jobs to list; everything given must hold.

    Parameters
    ----------
    definition, owner, origin : `str` or `None`
        The job's own.
    phases : `~collections.abc.Collection` [`ExecutionPhase`]
        Phases wanted; empty for all but ARCHIVED.
    after : `datetime.datetime` or `None`
        Only jobs created after this time.
    last : `int` or `None`
        Only the newest so many, newest first; without it all, oldest first.
    published : `bool` or `None`
        Whether the result has gone out.
    run_id : `str` or `None`
        The caller's own name.
    nothing : `bool`
        Whether no job at all can be meant.
    """

    definition: str | None = None
    owner: str | None = None
    origin: str | None = None
    phases: Collection[ExecutionPhase] = ()
    after: datetime | None = None
    last: int | None = None
    published: bool | None = None
    run_id: str | None = None
    nothing: bool = False

    def apply(self, select: sa.Select[Any], end: tuple[int, str] | None = None) -> sa.Select[Any]:
        """Return ``select`` narrowed to these jobs, in their order.

        Parameters
        ----------
        select : `sqlalchemy.sql.Select`
            Of the table of jobs.
        end : `tuple` or `None`
            Creation time (ms) and id of the job after which to begin.
        """
        phases = (
            () if self.nothing else self.phases or (frozenset(ExecutionPhase) - {ExecutionPhase.ARCHIVED})
        )
        select = select.where(jobs.c.phase.in_([str(phase) for phase in phases]))
        for name in ("definition", "owner", "origin", "published", "run_id"):
            value = getattr(self, name)
            if value is not None:
                select = select.where(jobs.c[name] == value)
        if self.after is not None:
            select = select.where(jobs.c.creation_ms > to_ms(self.after))
        key = sa.tuple_(jobs.c.creation_ms, jobs.c.id)
        if self.last is not None:
            if end is not None:
                select = select.where(key < sa.tuple_(*end))
            return select.order_by(jobs.c.creation_ms.desc(), jobs.c.id.desc()).limit(self.last)
        if end is not None:
            select = select.where(key > sa.tuple_(*end))
        return select.order_by(jobs.c.creation_ms, jobs.c.id)


@dataclasses.dataclass(frozen=True, slots=True)
class JobSummary:
    """What a list shows of a job."""

    id: str
    definition: str
    phase: ExecutionPhase
    owner: str
    run_id: str
    creation_time: datetime


class JobStore:
    """All jobs, on disk.

    Use `open` to get one. Every method raises `StoreError` with the reason
    when the database cannot do its part; then nothing was changed.
    """

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine
        self._waiting: list[tuple[Operation, asyncio.Future[Any]]] = []
        self._writer: asyncio.Task[None] | None = None
        # A store in memory has one connection, hence one transaction at a time.
        self._alone: contextlib.AbstractAsyncContextManager[object] = (
            asyncio.Lock() if isinstance(engine.pool, sa.pool.StaticPool) else contextlib.nullcontext()
        )

    @classmethod
    async def open(cls, url: str = "sqlite+aiosqlite://") -> JobStore:
        """Open a store, making its tables where there are none.

        Parameters
        ----------
        url : `str`
            SQLAlchemy URL with an asynchronous driver; the default is a
            store in memory.

        Raises
        ------
        StoreError
            If it cannot be opened, or a newer program has written it.
        """
        options: dict[str, Any] = {}
        if url.startswith("sqlite"):
            options["connect_args"] = {"timeout": BUSY_TIMEOUT}
        engine = create_async_engine(url, **options)
        if engine.dialect.name == "sqlite":
            sa.event.listen(engine.sync_engine, "connect", _prepare_sqlite)
        store = cls(engine)
        try:
            with _explained("opened"):
                async with engine.begin() as connection:
                    await connection.run_sync(_prepare_schema)
        except BaseException:
            await engine.dispose()
            raise
        return store

    async def close(self) -> None:
        """Finish what was asked for and let go of the database."""
        if self._writer:
            await self._writer
        await self._engine.dispose()

    async def last_sequence(self) -> int:
        """Return the largest ``sequence`` ever given, 0 in an empty store."""
        async with self._reading() as connection:
            return await connection.scalar(sa.select(sa.func.max(jobs.c.sequence))) or 0

    async def remember(self, name: str, value: str) -> None:
        """Keep a text under a name, in the place of what was there."""

        def put(connection: sa.Connection) -> None:
            connection.execute(state.delete().where(state.c.name == name))
            connection.execute(state.insert(), {"name": name, "value": value})

        await self._write(put)

    async def recall(self, name: str) -> str | None:
        """Return what was kept under a name, `None` if nothing was."""
        async with self._reading() as connection:
            value = await connection.scalar(sa.select(state.c.value).where(state.c.name == name))
            return None if value is None else str(value)

    async def insert(self, job: Job) -> None:
        """Add a new job."""
        row = to_row(job)
        await self._write(lambda connection: connection.execute(jobs.insert(), row))

    async def replace(self, old: Job, new: Job) -> bool:
        """Put ``new`` in the place of ``old``, if the store still has ``old``.

        Returns
        -------
        replaced : `bool`
            `False` if the record had been changed by somebody else.
        """
        row = to_row(new)
        update = jobs.update().where(
            jobs.c.id == sa.bindparam("this_id"), jobs.c.sequence == sa.bindparam("old_sequence")
        )
        key = {"this_id": old.id, "old_sequence": old.sequence}
        count = await self._write(lambda connection: connection.execute(update, row | key).rowcount)
        return bool(count == 1)

    async def delete(self, job_id: str) -> None:
        """Remove a job's record; no error if there is none."""
        delete = jobs.delete().where(jobs.c.id == job_id)
        await self._write(lambda connection: connection.execute(delete))

    async def get(self, job_id: str) -> Job | None:
        """Return a job, or `None` if there is none of this id."""
        found = await self._select(sa.select(jobs).where(jobs.c.id == job_id))
        return found[0] if found else None

    async def find(self, query: JobQuery) -> list[Job]:
        """Return the jobs that ``query`` asks for."""
        return await self._select(query.apply(sa.select(jobs)))

    async def pages(self, query: JobQuery, size: int = 1000) -> AsyncIterator[list[JobSummary]]:
        """Return what a list shows of the jobs that ``query`` asks for, page by page.

        Each page is a query of its own: a slow reader holds nothing open,
        and the event loop has its turn in between.
        """
        names = ("id", "definition", "phase", "owner", "run_id", "creation_ms")
        async for rows in self._pages(query, sa.select(*(jobs.c[name] for name in names)), size):
            yield [_summary(row) for row in rows]

    async def job_pages(self, query: JobQuery, size: int = 200) -> AsyncIterator[list[Job]]:
        """Return the jobs that ``query`` asks for, page by page as `pages` does."""
        async for rows in self._pages(query, sa.select(jobs), size):
            yield [from_row(row._mapping) for row in rows]

    async def _pages(
        self, query: JobQuery, select: sa.Select[Any], size: int
    ) -> AsyncIterator[Sequence[sa.Row[Any]]]:
        left, end = query.last, None
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
        """Return all jobs that still have their end before them, oldest first."""
        return await self.find(JobQuery(phases=LIVE))

    async def changed_since(self, sequence: int, limit: int) -> list[Job]:
        """Return up to ``limit`` jobs changed after ``sequence``, in order of change."""
        select = sa.select(jobs).where(jobs.c.sequence > sequence)
        return await self._select(select.order_by(jobs.c.sequence).limit(limit))

    async def doomed(self, before: datetime, limit: int = 100) -> list[Job]:
        """Return jobs, not yet archived, whose destruction time has come."""
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
            return from_ms(await connection.scalar(select))

    async def oldest_ended(self, keep: int) -> list[Job]:
        """Return the ended jobs beyond the newest ``keep``, not yet archived."""
        phases = [str(phase) for phase in TERMINAL - {ExecutionPhase.ARCHIVED}]
        select = sa.select(jobs).where(jobs.c.phase.in_(phases))
        return await self._select(select.order_by(jobs.c.creation_ms.desc()).offset(keep).limit(100))

    async def _select(self, select: sa.Select[Any]) -> list[Job]:
        async with self._reading() as connection:
            result = await connection.execute(select)
            return [from_row(row) for row in result.mappings()]

    @contextlib.asynccontextmanager
    async def _reading(self) -> AsyncIterator[AsyncConnection]:
        with _explained("read"):
            async with self._alone, self._engine.connect() as connection:
                yield connection

    async def _write(self, operation: Operation) -> Any:
        """Carry out ``operation`` in a transaction and return what it returns.

        The caller may be cancelled; the operation is carried out all the same.
        """
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._waiting.append((operation, future))
        if self._writer is None or self._writer.done():
            self._writer = asyncio.create_task(self._write_all())
        return await future

    async def _write_all(self) -> None:
        while self._waiting:
            batch, self._waiting = self._waiting, []
            try:
                await self._transaction(batch)
            except Exception as error:
                if len(batch) == 1:
                    _settle(batch[0][1], error)
                    continue
                # One bad write must not spoil those that only came with it.
                for item in batch:
                    try:
                        await self._transaction([item])
                    except Exception as own_error:
                        _settle(item[1], own_error)

    async def _transaction(self, batch: list[tuple[Operation, asyncio.Future[Any]]]) -> None:
        def run(connection: sa.Connection) -> list[Any]:
            return [operation(connection) for operation, _ in batch]

        with _explained("written"):
            async with self._alone, self._engine.begin() as connection:
                values = await connection.run_sync(run)
        for (_, future), value in zip(batch, values, strict=True):
            if not future.done():
                future.set_result(value)


_PHASES = {str(phase): phase for phase in ExecutionPhase}


def _summary(row: Any) -> JobSummary:
    creation = from_ms(row[5])
    assert creation is not None
    return JobSummary(row[0], row[1], _PHASES[row[2]], row[3], row[4], creation)


def _settle(future: asyncio.Future[Any], error: Exception) -> None:
    if not future.done():
        future.set_exception(error)


@contextlib.contextmanager
def _explained(what: str) -> Any:
    """Turn what a database says into a `StoreError`."""
    try:
        yield
    except (sa.exc.SQLAlchemyError, OSError, ValueError, OverflowError) as error:
        reason = getattr(error, "orig", None) or error
        raise StoreError(f"The job store could not be {what}: {reason}") from error


def _prepare_sqlite(connection: Any, _: Any) -> None:
    cursor = connection.cursor()
    # FULL: what was acknowledged survives a power cut, not only a crash.
    for pragma in ("journal_mode=WAL", "synchronous=FULL"):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


def _prepare_schema(connection: sa.Connection) -> None:
    records.metadata.create_all(connection, tables=[state])
    version = connection.scalar(sa.select(state.c.value).where(state.c.name == "schema_version"))
    if version is None:
        connection.execute(state.insert(), {"name": "schema_version", "value": str(records.SCHEMA_VERSION)})
    elif int(version) > records.SCHEMA_VERSION:
        raise StoreError(
            f"The job store {connection.engine.url!r} has schema version {version}; "
            f"this program knows {records.SCHEMA_VERSION}. Use the newer program, or another work_dir."
        )
    records.metadata.create_all(connection)
