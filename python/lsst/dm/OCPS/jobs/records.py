# SPDX-License-Identifier: GPL-3.0-or-later
"""How a `Job` is written in the store: the table and the JSON document.

What the store selects or sorts by has a column of its own; the rest is one
JSON document, so that a new field of `Job` needs no change of the table.
"""

from __future__ import annotations

__all__ = ["SCHEMA_VERSION", "from_document", "from_row", "jobs", "metadata", "state", "to_row"]

import dataclasses
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import sqlalchemy as sa

from .model import ErrorSummary, ExecutionPhase, Job, Progress, Result

SCHEMA_VERSION = 1
"""Grows when a program of today could not read what a newer one wrote."""

metadata = sa.MetaData()

state = sa.Table(
    "state",
    metadata,
    sa.Column("name", sa.String(128), primary_key=True),
    sa.Column("value", sa.Text, nullable=False),
)

jobs = sa.Table(
    "jobs",
    metadata,
    sa.Column("id", sa.String(128), primary_key=True),
    sa.Column("definition", sa.String(128), nullable=False),
    sa.Column("owner", sa.String(256), nullable=False),
    sa.Column("run_id", sa.Text, nullable=False),
    sa.Column("origin", sa.String(16), nullable=False),
    sa.Column("phase", sa.String(16), nullable=False),
    sa.Column("published", sa.Boolean, nullable=False),
    # Times are whole milliseconds since 1970, UTC: every database sorts them alike.
    sa.Column("creation_ms", sa.BigInteger, nullable=False),
    sa.Column("destruction_ms", sa.BigInteger),
    sa.Column("sequence", sa.BigInteger, nullable=False),
    sa.Column("document", sa.JSON, nullable=False),
    sa.Index("jobs_by_list", "definition", "creation_ms"),
    sa.Index("jobs_by_creation", "creation_ms"),
    sa.Index("jobs_by_phase", "phase", "creation_ms"),
    sa.Index("jobs_by_destruction", "destruction_ms"),
    sa.Index("jobs_by_sequence", "sequence", unique=True),
)

_COLUMNS = ("id", "definition", "owner", "run_id", "origin", "phase", "published", "sequence")
_TIMES = ("phase_time", "start_time", "end_time")
_PLAIN = (
    "parameters",
    "spec",
    "backend",
    "priority",
    "prerequisites",
    "execution_duration",
    "final_phase",
    "message",
    "exit_code",
    "handle",
    "dispatched",
    "abort_reason",
    "deadline_passed",
    "deleted",
    "info",
)


def to_ms(time: datetime | None) -> int | None:
    """Return a time as milliseconds since 1970."""
    return None if time is None else round(time.timestamp() * 1000)


def from_ms(ms: int | None) -> datetime | None:
    """Return milliseconds since 1970 as a time, UTC."""
    if ms is None:
        return None
    seconds, rest = divmod(ms, 1000)
    return datetime.fromtimestamp(seconds, UTC).replace(microsecond=rest * 1000)


def to_row(job: Job) -> dict[str, Any]:
    """Return the row of the table ``jobs`` that holds ``job``."""
    document: dict[str, Any] = {name: getattr(job, name) for name in _PLAIN}
    document |= {name: to_ms(getattr(job, name)) for name in _TIMES}
    document["error"] = dataclasses.asdict(job.error) if job.error else None
    document["results"] = [dataclasses.asdict(result) for result in job.results]
    document["progress"] = dataclasses.astuple(job.progress)
    row: dict[str, Any] = {name: getattr(job, name) for name in _COLUMNS}
    row["creation_ms"] = to_ms(job.creation_time)
    row["destruction_ms"] = to_ms(job.destruction)
    row["document"] = document
    return row


def from_document(document: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields of `Job` that are kept in a row's document."""
    fields = {name: document[name] for name in _PLAIN}
    fields |= {name: from_ms(document[name]) for name in _TIMES}
    fields["prerequisites"] = tuple(document["prerequisites"])
    final = document["final_phase"]
    fields["final_phase"] = ExecutionPhase(final) if final else None
    fields["error"] = ErrorSummary(**document["error"]) if document["error"] else None
    fields["results"] = tuple(Result(**result) for result in document["results"])
    fields["progress"] = Progress(*document["progress"])
    return fields


def from_row(row: Mapping[Any, Any]) -> Job:
    """Return the job that a row of the table ``jobs`` holds."""
    creation = from_ms(row["creation_ms"])
    assert creation is not None
    fields = {name: row[name] for name in _COLUMNS}
    fields["phase"] = ExecutionPhase(row["phase"])
    return Job(
        creation_time=creation,
        destruction=from_ms(row["destruction_ms"]),
        **fields,
        **from_document(row["document"]),
    )
