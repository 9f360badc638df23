# SPDX-License-Identifier: GPL-3.0-or-later
"""Queries for jobs, and the entries of job lists."""

from __future__ import annotations

__all__ = ["JobQuery", "JobSummary"]

import dataclasses
from collections.abc import Collection
from datetime import datetime
from typing import Any, NamedTuple

import sqlalchemy as sa

from .model import ExecutionPhase, to_ms
from .records import jobs


@dataclasses.dataclass(frozen=True, slots=True)
class JobQuery:
    """A selection of jobs; a job must fulfil all conditions.

    Parameters
    ----------
    definition, owner, origin : `str` or `None`
        Value of the job's field of this name.
    phases : `~collections.abc.Collection` [`ExecutionPhase`]
        Phases wanted; empty for all but ARCHIVED.
    after : `datetime.datetime` or `None`
        Only jobs created after this time.
    last : `int` or `None`
        Only this many of the newest, newest first; `None` for all, oldest first.
    published : `bool` or `None`
        Whether the result has been published.
    deleted : `bool` or `None`
        Whether the job was deleted and its record will be removed.
    run_id : `str` or `None`
        The caller's own name for the job.
    nothing : `bool`
        Select no job.
    start : `tuple` or `None`
        Creation time (ms) and id of the job after which to begin, in the
        order of the list.
    """

    definition: str | None = None
    owner: str | None = None
    origin: str | None = None
    phases: Collection[ExecutionPhase] = ()
    after: datetime | None = None
    last: int | None = None
    published: bool | None = None
    deleted: bool | None = False
    run_id: str | None = None
    nothing: bool = False
    start: tuple[int, str] | None = None

    def apply(self, select: sa.Select[Any], end: tuple[int, str] | None = None) -> sa.Select[Any]:
        """Return ``select`` with the conditions and the order of this query.

        Parameters
        ----------
        select : `sqlalchemy.sql.Select`
            A selection from the table of jobs.
        end : `tuple` or `None`
            Creation time (ms) and id of the job after which to begin.
        """
        if self.phases or self.nothing:
            phases = () if self.nothing else self.phases
            select = select.where(jobs.c.phase.in_([str(phase) for phase in phases]))
        else:
            # Not a list of all others: the database would read them phase by phase, and sort them.
            select = select.where(jobs.c.phase != str(ExecutionPhase.ARCHIVED))
        for name in ("definition", "owner", "origin", "published", "deleted", "run_id"):
            value = getattr(self, name)
            if value is not None:
                select = select.where(jobs.c[name] == value)
        if self.after is not None:
            select = select.where(jobs.c.creation_ms > to_ms(self.after))
        key = sa.tuple_(jobs.c.creation_ms, jobs.c.id)
        if self.last is not None:
            if end is not None:
                # With the first condition the database can start in the middle of an index.
                select = select.where(jobs.c.creation_ms <= end[0], key < sa.tuple_(*end))
            return select.order_by(jobs.c.creation_ms.desc(), jobs.c.id.desc()).limit(self.last)
        if end is not None:
            select = select.where(jobs.c.creation_ms >= end[0], key > sa.tuple_(*end))
        return select.order_by(jobs.c.creation_ms, jobs.c.id)


class JobSummary(NamedTuple):
    """The entry of a job in a list."""

    id: str
    definition: str
    phase: ExecutionPhase
    owner: str
    run_id: str
    creation_time: datetime
