# SPDX-License-Identifier: GPL-3.0-or-later
"""How a `Job` is stored: the tables and the JSON document.

Fields by which jobs are selected or sorted have columns; the others are in
one JSON document, so that a new field of `Job` needs no change of the table.
"""

from __future__ import annotations

__all__ = [
    "SCHEMA_VERSION",
    "from_row",
    "jobs",
    "kept_files",
    "leases",
    "metadata",
    "needed",
    "prepare_schema",
    "searchable",
    "state",
    "to_row",
    "without_words",
    "words_of",
]

import contextlib
import json
from collections.abc import Mapping
from typing import Any

import sqlalchemy as sa
from pydantic import TypeAdapter, ValidationError

from .errors import StoreError
from .model import Job, to_ms

SCHEMA_VERSION = 2
"""Version of the schema; incremented when older programs could not read the store any more."""

metadata = sa.MetaData()

state = sa.Table(
    "state",
    metadata,
    sa.Column("name", sa.String(128), primary_key=True),
    sa.Column("value", sa.Text, nullable=False),
)

leases = sa.Table(
    "leases",
    metadata,
    sa.Column("name", sa.String(128), primary_key=True),
    sa.Column("holder", sa.String(64), nullable=False),
    # Incremented with every renewal, so that clocks of two machines are never compared.
    sa.Column("beat", sa.BigInteger, nullable=False),
    sa.Column("process", sa.JSON, nullable=False),
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
    # Times are whole milliseconds since 1970 (UTC), which all databases sort in the same way.
    sa.Column("creation_ms", sa.BigInteger, nullable=False),
    sa.Column("destruction_ms", sa.BigInteger),
    sa.Column("sequence", sa.BigInteger, nullable=False),
    sa.Column("deleted", sa.Boolean, nullable=False, server_default=sa.false()),
    sa.Column("document", sa.JSON, nullable=False),
    # What is searched, in lower case; see `words_of`.
    sa.Column("words", sa.Text, nullable=False, server_default=""),
    # Lists are sorted by creation time and id: with these nothing is left to be sorted. SQLite searches
    # texts in the index, without reading the documents, which are much longer. PostgreSQL keeps those
    # elsewhere, and limits the length of what is in an index.
    sa.Index("jobs_of_definition", "definition", "creation_ms", "id"),
    sa.Index("jobs_in_order_with_words", "creation_ms", "id", "words").ddl_if("sqlite"),
    sa.Index("jobs_in_order", "creation_ms", "id").ddl_if("postgresql"),
    sa.Index("jobs_by_phase", "phase", "creation_ms"),
    sa.Index("jobs_by_destruction", "destruction_ms"),
    sa.Index("jobs_by_sequence", "sequence", unique=True),
    sa.Index("jobs_by_run_id", "run_id"),
)

needed = ~jobs.c.published & sa.func.coalesce(
    jobs.c.document["keep_until_published"].as_boolean(), sa.false()
)
"""Whether a record must be kept, see `Job.record_needed`."""

kept_files = sa.Table(
    "kept_files",
    metadata,
    sa.Column("id", sa.String(128), primary_key=True),
    sa.Column("owner", sa.String(256), nullable=False),
    sa.Column("end_ms", sa.BigInteger, nullable=False),
    # How much (bytes) of the disk the files of an ended job take.
    sa.Column("size", sa.BigInteger, nullable=False),
    sa.Index("kept_files_by_owner", "owner", "end_ms", "size"),
    sa.Index("kept_files_by_end", "end_ms"),
)

_deleted_index = sa.Index(
    "jobs_deleted", jobs.c.deleted, sqlite_where=jobs.c.deleted, postgresql_where=jobs.c.deleted
)

# Earlier programs ignore the column, and leave it empty; a job's words contain at least its id. This is no
# parameter: with one, no database would use the index.
_without_words = jobs.c.words == sa.literal_column("''")

_index_without_words = sa.Index(
    "jobs_without_words", jobs.c.id, sqlite_where=_without_words, postgresql_where=_without_words
)

MAX_WORDS = 4000
"""How much (characters) of a job's texts is searched."""

FORMER_INDEXES = ("jobs_by_list", "jobs_by_creation")
"""Indexes of earlier versions that others have replaced."""

_COLUMNS = ("id", "definition", "owner", "run_id", "origin", "phase", "published", "sequence", "deleted")
_IN_COLUMNS = {*_COLUMNS, "creation_time", "destruction"}

_adapter = TypeAdapter(Job)


def to_row(job: Job) -> dict[str, Any]:
    """Return the row of the table ``jobs`` that holds ``job``."""
    row: dict[str, Any] = {name: getattr(job, name) for name in _COLUMNS}
    row["creation_ms"] = to_ms(job.creation_time)
    row["destruction_ms"] = None if job.destruction is None else to_ms(job.destruction)
    row["document"] = document = _adapter.dump_python(job, mode="json", exclude=_IN_COLUMNS)
    row["words"] = words_of(job.id, job.run_id, job.definition, job.owner, document)
    return row


def words_of(job_id: str, run_id: str, definition: str, owner: str, document: Mapping[str, Any]) -> str:
    """Return the texts of a job that are searched: ids, definition, owner, error, message, parameters."""
    error = document.get("error") or {}
    parameters = document.get("parameters") or {}
    texts = [job_id, run_id, definition, owner, *(str(each.get("message", "")) for each in (error, document))]
    texts += [f"{name}={value}" for name, value in parameters.items()]
    return searchable("\n".join(texts))


def searchable(text: str) -> str:
    """Return a text in lower case, without what databases do not store in a text."""
    return text[:MAX_WORDS].replace("\0", " ").encode(errors="replace").decode().lower()


def from_row(row: Mapping[Any, Any]) -> Job:
    """Return the job that a row of the table ``jobs`` holds.

    Raises
    ------
    StoreError
        If the row is damaged.
    """
    fields = {name: row[name] for name in _COLUMNS}
    fields |= {"creation_time": row["creation_ms"], "destruction": row["destruction_ms"]}
    try:
        return _adapter.validate_python(_upgraded(row) | fields)
    except ValidationError as error:
        reason = "; ".join(f"{'/'.join(map(str, item['loc']))}: {item['msg']}" for item in error.errors()[:3])
    except (KeyError, TypeError, ValueError) as error:
        reason = repr(error)
    raise StoreError(f"The record of job {row['id']} is damaged: {reason}")


def _upgraded(row: Mapping[Any, Any]) -> dict[str, Any]:
    """Return the document of a row, converted to the present version of the schema."""
    document = dict(row["document"])
    if "keep_until_published" not in document:
        # Version 1 had no such fields: they were implied by the origin.
        document |= dict.fromkeys(("keep_until_published", "reserved"), row["origin"] == "sal")
        document["progress"] = dict(zip(("done", "failed", "total"), document["progress"], strict=True))
    return document


def prepare_schema(connection: sa.Connection) -> None:
    """Create the tables if they do not exist, and upgrade older ones.

    Raises
    ------
    StoreError
        If the store was written by a newer version.
    """
    metadata.create_all(connection, tables=[state])
    found = connection.scalar(sa.select(state.c.value).where(state.c.name == "schema_version"))
    version = SCHEMA_VERSION if found is None else int(found)
    if version > SCHEMA_VERSION:
        raise StoreError(
            f"The job store {connection.engine.url!r} has schema version {version}; "
            f"this program knows {SCHEMA_VERSION}. Use the newer program, or another work_dir."
        )
    if version == 1:
        connection.execute(sa.text("ALTER TABLE jobs ADD COLUMN deleted BOOLEAN DEFAULT FALSE NOT NULL"))
        deleted = jobs.c.document["deleted"].as_boolean()
        connection.execute(jobs.update().where(deleted).values(deleted=sa.true()))
    metadata.create_all(connection)
    if "words" not in {column["name"] for column in sa.inspect(connection).get_columns("jobs")}:
        connection.execute(sa.text("ALTER TABLE jobs ADD COLUMN words TEXT DEFAULT '' NOT NULL"))
    # At every start: SQLite keeps a new column even if what follows fails.
    _index_without_words.create(connection, checkfirst=True)
    _fill_words(connection)
    # An index changes nothing for other versions, so it needs no version of its own.
    for index in jobs.indexes:
        index.create(connection, checkfirst=True)
    in_order = ("jobs_in_order",) if connection.dialect.name == "sqlite" else ()
    for name in (*FORMER_INDEXES, *in_order):
        connection.execute(sa.text(f"DROP INDEX IF EXISTS {name}"))
    if version != SCHEMA_VERSION or found is None:
        connection.execute(state.delete().where(state.c.name == "schema_version"))
        connection.execute(state.insert(), {"name": "schema_version", "value": str(SCHEMA_VERSION)})


def without_words(last: str) -> sa.Select[Any]:
    """Select the next 1000 records after the id ``last`` of which nothing is searched yet.

    An earlier program has written them, or filling them was interrupted.
    """
    names = ("id", "run_id", "definition", "owner")
    select = sa.select(*(jobs.c[name] for name in names), sa.cast(jobs.c.document, sa.Text))
    return select.where(_without_words, jobs.c.id > last).order_by(jobs.c.id).limit(1000)


def _fill_words(connection: sa.Connection) -> None:
    """Fill the column of searched texts where it is empty."""
    # Another engine may be writing the same record.
    update = jobs.update().where(jobs.c.id == sa.bindparam("this_id"), _without_words)
    last = ""
    while rows := connection.execute(without_words(last)).all():
        last = rows[-1].id
        filled = []
        for row in rows:
            # A damaged record is reported when it is read.
            with contextlib.suppress(ValueError, AttributeError, RecursionError):
                words = words_of(row.id, row.run_id, row.definition, row.owner, json.loads(row[-1]))
                filled.append({"this_id": row.id, "words": words})
        if filled:
            connection.execute(update, filled)
