# SPDX-License-Identifier: GPL-3.0-or-later
"""How much of the disk the files of ended jobs take, and which of them must go."""

from __future__ import annotations

__all__ = ["KeptSpace"]

import asyncio
from collections.abc import Collection, Mapping
from functools import partial

import sqlalchemy as sa

from .model import TERMINAL, ExecutionPhase, Job
from .records import jobs, kept_files, needed
from .store import JobStore
from .times import now, to_ms
from .workspace import Workspaces, megabytes

PAGE = 100
"""How many jobs are measured or selected at a time."""

_ENDED = [str(phase) for phase in TERMINAL - {ExecutionPhase.ARCHIVED}]

_MEASURABLE = sa.select(
    # A float, because an integer of PostgreSQL is too small for milliseconds since 1970.
    jobs.c.id,
    jobs.c.owner,
    jobs.c.document["end_time"].as_float(),
).where(
    jobs.c.phase.in_(_ENDED),
    # The files of a result that has not been published yet are still needed.
    ~needed,
)


class KeptSpace:
    """The sizes of the files that ended jobs keep; they are stored beside the jobs' records.

    Parameters
    ----------
    store : `JobStore`
        Where the sizes are stored.
    workspaces : `Workspaces`
        The files.
    """

    def __init__(self, store: JobStore, workspaces: Workspaces) -> None:
        self._store = store
        self._workspaces = workspaces
        self._unmeasured: set[str] = set()

    def changed(self, old: Job | None, new: Job) -> None:
        """Note which jobs end, to measure their files; for `Ledger.observers`."""
        if new.terminal and old is not None and not old.terminal:
            self._unmeasured.add(new.id)

    async def look_for_unmeasured(self, job_ids: Collection[str]) -> None:
        """Note which of some jobs with files have not been measured, for example because of a crash."""
        measured = await self._store.read(sa.select(kept_files.c.id).where(kept_files.c.id.in_(job_ids)))
        self._unmeasured |= set(job_ids) - {row.id for row in measured}

    async def measure(self, live: Collection[str]) -> None:
        """Measure and store how much the files of ended jobs take that have not been measured.

        Parameters
        ----------
        live : `~collections.abc.Collection` [`str`]
            Ids of the jobs that have not ended; they are noted again when they end.
        """
        waiting = sorted(self._unmeasured.difference(live))
        self._unmeasured.clear()
        for start in range(0, len(waiting), PAGE):
            page = waiting[start : start + PAGE]
            try:
                sizes = await asyncio.to_thread(self._sizes, page)
                unpublished = await self._store.write(partial(_put, sizes=sizes))
            except BaseException:
                self._unmeasured.update(waiting[start:])
                raise
            self._unmeasured |= unpublished

    def _sizes(self, job_ids: Collection[str]) -> dict[str, int]:
        sizes = {job_id: self._workspaces.of(job_id).disk_usage() for job_id in job_ids}
        return {job_id: size for job_id, size in sizes.items() if size}

    async def removed(self, job_ids: Collection[str]) -> None:
        """Record that the files of some jobs have been removed."""
        if job_ids:
            delete = kept_files.delete().where(kept_files.c.id.in_(job_ids))
            await self._store.write(lambda connection: connection.execute(delete))

    async def excess(self, limit: int, owner_limit: int) -> dict[str, str]:
        """Return the jobs whose files must go, with the reason in words; those that ended first go first.

        Parameters
        ----------
        limit, owner_limit : `int`
            How much (bytes) the files of all ended jobs may take, and those
            of one owner; 0 for no limit.
        """
        total = sa.func.sum(kept_files.c.size).label("total")
        rows = await self._store.read(sa.select(kept_files.c.owner, total).group_by(kept_files.c.owner))
        totals = {row.owner: int(row.total) for row in rows}
        chosen: dict[str, str] = {}
        surplus = sum(totals.values()) - limit
        for owner, kept in totals.items() if owner_limit else ():
            whose = f"the ended jobs of {owner}" if owner else "ended jobs without an owner"
            reason = f"files removed: those of {whose} may take {megabytes(owner_limit)}"
            mine = kept_files.c.owner == owner
            surplus -= await self._choose(chosen, kept - owner_limit, reason, mine)
        if limit:
            reason = f"files removed: those of all ended jobs may take {megabytes(limit)}"
            await self._choose(chosen, surplus, reason, sa.true())
        return chosen

    async def _choose(
        self, chosen: dict[str, str], surplus: int, reason: str, condition: sa.ColumnElement[bool]
    ) -> int:
        """Add the oldest jobs to ``chosen`` that keep ``surplus`` or more together; return how much."""
        select = sa.select(kept_files.c.id, kept_files.c.size).where(condition)
        select = select.order_by(kept_files.c.end_ms, kept_files.c.id)
        freed = offset = 0
        while freed < surplus and (rows := await self._store.read(select.limit(PAGE).offset(offset))):
            for row in rows:
                if freed < surplus and row.id not in chosen:
                    chosen[row.id] = reason
                    freed += row.size
            offset += len(rows)
        return freed


def _put(connection: sa.Connection, *, sizes: Mapping[str, int]) -> set[str]:
    """Store sizes of jobs; return the ids of those whose result has not been published yet.

    The phase is read in the same transaction: a job that was archived
    meanwhile has no files any more.
    """
    found = connection.execute(_MEASURABLE.where(jobs.c.id.in_(sizes))).all()
    rows = [
        {"id": job_id, "owner": owner, "end_ms": int(end or to_ms(now())), "size": sizes[job_id]}
        for job_id, owner, end in found
    ]
    connection.execute(kept_files.delete().where(kept_files.c.id.in_([row["id"] for row in rows])))
    if rows:
        connection.execute(kept_files.insert(), rows)
    ended = sa.select(jobs.c.id).where(jobs.c.id.in_(sizes), jobs.c.phase.in_(_ENDED))
    return {row.id for row in connection.execute(ended)} - {row["id"] for row in rows}
