# SPDX-License-Identifier: GPL-3.0-or-later
"""Queries for jobs, and the entries of job lists."""

from __future__ import annotations

__all__ = ["JobEntry", "JobQuery", "JobSummary"]

import dataclasses
from collections.abc import Collection
from datetime import datetime
from typing import Any, NamedTuple, Self

import sqlalchemy as sa

from .errors import StoreError
from .model import ExecutionPhase, Progress, from_ms, to_ms
from .records import jobs, searchable


@dataclasses.dataclass(frozen=True, slots=True)
class JobQuery:
    """A selection of jobs; a job must fulfil all conditions.

    Parameters
    ----------
    definition, owner, origin : `str` or `None`
        Value of the job's field of this name.
    phases : `~collections.abc.Collection` [`ExecutionPhase`]
        Phases wanted; empty for all but ARCHIVED.
    after, before : `datetime.datetime` or `None`
        Only jobs created after, and before, this time.
    words : `~collections.abc.Collection` [`str`]
        Each must be part of one of the job's texts (ids, definition, owner,
        parameters, message of the error), or the name of its phase, whatever
        the case.
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
    before: datetime | None = None
    words: Collection[str] = ()
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
        if self.before is not None:
            select = select.where(jobs.c.creation_ms < to_ms(self.before))
        for word in self.words:
            found = jobs.c.words.contains(searchable(word), autoescape=True)
            if word.upper() in ExecutionPhase.__members__:
                found |= jobs.c.phase == word.upper()
            select = select.where(found)
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


class JobEntry(NamedTuple):
    """What tables show of a job."""

    id: str
    definition: str
    phase: ExecutionPhase
    owner: str
    run_id: str
    creation_time: datetime
    start_time: datetime | None
    end_time: datetime | None
    message: str
    progress: Progress
    attempt: int
    max_attempts: int

    @classmethod
    def from_row(cls, row: Any) -> Self:
        """Return the entry of a row of the table ``jobs``.

        Much faster than reading the whole record, which is not checked here.

        Raises
        ------
        StoreError
            If the row is damaged.
        """
        try:
            return cls._from_row(row)
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise StoreError(f"The record of job {row.id} is damaged: {error!r}") from None

    @classmethod
    def _from_row(cls, row: Any) -> Self:
        document = row.document
        error, progress = document.get("error") or {}, document.get("progress") or ()
        if isinstance(progress, dict):
            progress = (progress["done"], progress["failed"], progress["total"])
        start, end = document.get("start_time"), document.get("end_time")
        return cls(
            row.id,
            row.definition,
            ExecutionPhase(row.phase),
            row.owner,
            row.run_id,
            from_ms(row.creation_ms),
            None if start is None else from_ms(start),
            None if end is None else from_ms(end),
            error.get("message") or document.get("message", ""),
            Progress(*progress),
            document.get("attempt", 1),
            (document.get("retries") or {}).get("max", 0) + 1,
        )
