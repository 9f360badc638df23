# SPDX-License-Identifier: GPL-3.0-or-later
"""Butlers that are opened in the preloaded process, and cloned in each job.

Loaded by path by ``main.py``. Opening a Butler takes 0.1 to 0.2 s, and a
pipeline opens three. Most of that goes into what does not change:
configuration, dimensions, table definitions. A clone shares these, and reads
collections, dataset types and records from the database as a fresh Butler
does.

A clone is used only where it behaves exactly as a fresh Butler. A fresh one
is opened if the repository is not a local directory, if its configuration can
come from elsewhere, if its database is neither SQLite nor PostgreSQL, or if
its tables were replaced since it was opened.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import sqlalchemy
from lsst.daf.butler import Butler, ButlerMetrics
from lsst.daf.butler.direct_butler import DirectButler

# What identifies the tables of a database: their definitions, or their object ids.
_TABLES = {
    "sqlite": "SELECT name, sql FROM sqlite_master WHERE type = 'table'",
    "postgresql": (
        "SELECT relname, CAST(oid AS text) FROM pg_class"
        " WHERE relkind = 'r' AND relnamespace = CAST(:namespace AS regnamespace)"
    ),
}
# Versions of the schema and the definition of all dimensions.
_ATTRIBUTES = "SELECT name, value FROM {}butler_attributes"


MAX_ATTEMPTS = 3
"""How often to try; each attempt may keep a job waiting."""


class Butlers:
    """The Butlers of one repository.

    Parameters
    ----------
    repo : `str`
        The repository, written as in the commands of jobs.
    """

    def __init__(self, repo: str) -> None:
        self.repo = repo
        self.opened: dict[bool, DirectButler] = {}
        self._known: dict[str, str] = {}
        self._attempts = 0

    @property
    def wanted(self) -> bool:
        """Whether Butlers are still to be opened, and can be."""
        return (
            not self.opened
            and self._attempts < MAX_ATTEMPTS
            and os.path.isabs(self.repo)
            and os.path.isdir(self.repo)
            # This variable names directories in which configuration files may appear at any time.
            and not os.environ.get("DAF_BUTLER_CONFIG_PATH")
        )

    def open(self) -> None:
        """Open a Butler for reading and one for writing."""
        self._attempts += 1
        opened = {}
        for writeable in (False, True):
            butler = Butler.from_config(self.repo, writeable=writeable)
            if type(butler) is not DirectButler or butler._registry._db.dialect.name not in _TABLES:
                return
            butler.registry.refresh()
            _load_tables(butler)
            self._known = fingerprint(butler)
            # No connection may be shared with a child.
            butler.registry.resetConnectionPool()
            opened[writeable] = butler
        self.opened = opened

    def compile_statements(self, statements: Any, warmup: Any) -> bool:
        """Make SQLAlchemy compile and cache the statements that jobs use.

        If that fails, each job compiles them itself.

        Parameters
        ----------
        statements, warmup : `types.ModuleType`
            The modules of these names.

        Returns
        -------
        done : `bool`
            Whether the trial pipeline was run with the Butlers.
        """
        if not self.opened or not all(statements.can_copy(butler) for butler in self.opened.values()):
            return False
        with (
            contextlib.suppress(Exception),
            tempfile.TemporaryDirectory() as name,
        ):
            folder = Path(name, "repo")
            folder.mkdir()
            with (
                statements.empty_copy(self.opened, folder) as move,
                replaced(str(folder), self.opened, move),
            ):
                statements.compile_inserts(self.opened[True])
                warmup.run_in(folder)
                return True
        return False

    def same(self) -> bool:
        """Return whether the repository still has the tables that it had when it was opened."""
        butler = self.opened[False]
        try:
            return fingerprint(butler).items() >= self._known.items()
        finally:
            butler.registry.resetConnectionPool()

    def install(self) -> bool:
        """Make ``Butler.from_config`` in this forked process clone the open Butlers.

        Returns
        -------
        certain : `bool`
            `False` if the repository was replaced or cannot be read; then
            this process should not run the job.
        """
        if not self.opened:
            return True
        try:
            for butler in self.opened.values():
                # Any connections belong to the parent process.
                butler._registry._db._engine.dispose(close=False)
            if not self.same():
                return False
        except Exception:
            return False
        _replace_from_config(self.repo, self.opened)
        return True


def fingerprint(butler: DirectButler) -> dict[str, str]:
    """Return the tables and the schema versions of a repository's database, which may only grow."""
    db = butler._registry._db
    namespace = db.namespace
    prefix = f'"{namespace}".' if namespace else ""
    attributes = _ATTRIBUTES.format(prefix)
    tables = _TABLES[db.dialect.name]
    if db.dialect.name == "sqlite":
        # Ten times faster than through SQLAlchemy.
        uri = f"{Path(db.filename).absolute().as_uri()}?mode=ro"
        with contextlib.closing(sqlite3.connect(uri, uri=True)) as connection:
            rows = connection.execute(tables).fetchall(), connection.execute(attributes).fetchall()
    else:
        arguments = {"namespace": namespace or "public"}
        with db.session():
            with db.query(sqlalchemy.text(tables), arguments) as result:
                found_tables = result.fetchall()
            with db.query(sqlalchemy.text(attributes)) as result:
                rows = found_tables, result.fetchall()
    return {f"{kind} {name}": str(value) for kind, of_kind in enumerate(rows) for name, value in of_kind}


def _load_tables(butler: DirectButler) -> None:
    """Load the table definitions of all dataset types, which a Butler otherwise loads on first use."""
    datasets: Any = butler._registry._managers.datasets
    for dataset_type in butler.registry.queryDatasetTypes():
        tables = datasets._find_storage(dataset_type.name).dynamic_tables
        datasets._get_tags_table(tables)
        if tables.calibs_name is not None:
            datasets._get_calibs_table(tables)


@contextlib.contextmanager
def replaced(
    repo: str, opened: Mapping[bool, DirectButler], adjust: Callable[[DirectButler], None]
) -> Iterator[None]:
    """Make ``Butler.from_config`` return clones within the context; ``adjust`` is called with each."""
    original = Butler.__dict__["from_config"]
    _replace_from_config(repo, opened, adjust)
    try:
        yield
    finally:
        Butler.from_config = original  # type: ignore[method-assign]


def _replace_from_config(
    repo: str,
    opened: Mapping[bool, DirectButler],
    adjust: Callable[[DirectButler], None] = lambda clone: None,
) -> None:
    open_afresh = Butler.from_config

    def from_config(
        cls: type[Butler],
        config: Any = None,
        *,
        collections: Any = None,
        run: str | None = None,
        searchPaths: Any = None,
        writeable: bool | None = None,
        inferDefaults: bool = True,
        without_datastore: bool = False,
        metrics: ButlerMetrics | None = None,
        **kwargs: Any,
    ) -> Butler:
        usual = isinstance(config, str) and config == repo and cls is Butler
        if not usual or searchPaths is not None or without_datastore or "butler" in kwargs:
            return open_afresh(
                config,
                collections=collections,
                run=run,
                searchPaths=searchPaths,
                writeable=writeable,
                inferDefaults=inferDefaults,
                without_datastore=without_datastore,
                metrics=metrics,
                **kwargs,
            )
        template = opened[run is not None if writeable is None else writeable]
        butler = template.clone(
            collections=collections,
            run=run,
            inferDefaults=inferDefaults,
            dataId=kwargs,
            metrics=metrics if metrics is not None else ButlerMetrics(),
        )
        adjust(butler)
        butler.registry.refresh()
        # Otherwise closing it would leave its connection open.
        butler._registry._is_clone = False
        return butler

    Butler.from_config = classmethod(from_config)  # type: ignore[arg-type]
