# SPDX-License-Identifier: GPL-3.0-or-later
"""Compile SQL statements before jobs need them.

Loaded by path by ``main.py``. SQLAlchemy caches compiled statements in the
engine, which the clones of a Butler share. So a throw-away pipeline is run
with the Butlers that jobs will clone. It must leave no trace in the
repository, so while it runs the Butlers use an empty copy of the database and
another directory for files. Supports SQLite only, where the copy is a file.
"""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from lsst.daf.butler.datastores.fileDatastore import FileDatastore
from lsst.daf.butler.direct_butler import DirectButler
from lsst.resources import ResourcePath

# The rows of these tables determine the names of other tables, so the copy needs them.
_COPIED = ("butler_attributes", "dimension_graph_key", "dimension_graph_definition", "opaque_meta")


@contextlib.contextmanager
def empty_copy(
    butlers: Mapping[bool, DirectButler], folder: Path
) -> Iterator[Callable[[DirectButler], None]]:
    """Make Butlers use an empty copy of their database within the context.

    Parameters
    ----------
    butlers : `~collections.abc.Mapping`
        The Butlers, by whether they can write.
    folder : `pathlib.Path`
        Where to put the copy.

    Yields
    ------
    move : `~collections.abc.Callable`
        Function that makes a clone of one of the Butlers write its files
        into the folder.
    """
    database = folder / "gen3.sqlite3"
    _copy_schema(Path(butlers[False]._registry._db.filename), database)
    with contextlib.ExitStack() as undo:
        for butler in butlers.values():
            undo.enter_context(_other_database(butler, database))

        def move(clone: DirectButler) -> None:
            datastore: Any = clone._datastore
            datastore.root = ResourcePath(folder, forceDirectory=True)
            datastore.locationFactory = type(datastore.locationFactory)(datastore.root)

        yield move


def compile_inserts(butler: DirectButler) -> None:
    """Compile the statements that insert datasets of all dimensions the repository has."""
    database: Any = butler._registry._db
    for table in list(butler._registry._managers.datasets._cache.tables._cache.values()):
        # The database refuses the row, which has no values, but only after the statement was compiled.
        with contextlib.suppress(Exception):
            database.insert(table, dict.fromkeys(table.columns.keys()))


def can_copy(butler: DirectButler) -> bool:
    """Return whether `empty_copy` supports this kind of Butler."""
    database = butler._registry._db
    return (
        database.dialect.name == "sqlite"
        and bool(database.filename)
        and type(butler._datastore) is FileDatastore
    )


def _copy_schema(source: Path, target: Path) -> None:
    with contextlib.closing(sqlite3.connect(target, isolation_level=None)) as copy:
        uri = f"{source.absolute().as_uri()}?mode=ro"
        with contextlib.closing(sqlite3.connect(uri, uri=True)) as original:
            schema = original.execute(
                "SELECT sql FROM sqlite_master WHERE sql IS NOT NULL AND name NOT LIKE 'sqlite_%'"
                " ORDER BY type = 'table' DESC"
            ).fetchall()
            copy.execute("BEGIN")
            for (sql,) in schema:
                copy.execute(sql)
            for table in _COPIED:
                rows = original.execute(f"SELECT * FROM {table}").fetchall()
                if rows:
                    places = ", ".join("?" * len(rows[0]))
                    copy.executemany(f"INSERT INTO {table} VALUES ({places})", rows)
            copy.execute("COMMIT")


@contextlib.contextmanager
def _other_database(butler: DirectButler, path: Path) -> Iterator[None]:
    """Connect a Butler's engine to another file within the context.

    At the end, definitions of tables that exist only in that file are
    removed from the Butler's cache.
    """
    database: Any = butler._registry._db
    engine, metadata = database._engine, database._metadata
    tables = butler._registry._managers.datasets._cache.tables._cache
    known, cached = set(metadata._tables), dict(tables)
    own = engine.pool._creator

    def connect() -> sqlite3.Connection:
        return sqlite3.connect(path, check_same_thread=False)

    engine.pool._creator = connect
    engine.dispose()
    try:
        yield
    finally:
        engine.pool._creator = own
        engine.dispose()
        for name in set(metadata._tables) - known:
            metadata.remove_table(name)
        tables.clear()
        tables.update(cached)
