# SPDX-License-Identifier: GPL-3.0-or-later
"""Butlers that are opened before a job comes, and cloned in it.

Loaded by path by ``zygote.py``. Opening a Butler takes 0.1 to 0.2 s, and a
pipeline opens three. What takes long is what does not change: configuration,
dimensions, table definitions. A clone shares these, and reads collections,
dataset types and records from the database as a fresh Butler does.

A clone is given only where it cannot be told from a fresh Butler. In any
doubt none is: the repository is not a local directory, its configuration can
come from elsewhere, its database is of a kind not known here, or its tables
are not those that were there before.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import sqlalchemy
from lsst.daf.butler import Butler, ButlerMetrics
from lsst.daf.butler.direct_butler import DirectButler

# What makes tables the same as before: how they were made, or which they are.
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
        The repository, as jobs name it.
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
            # What lies there may come to be without anything else changing.
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
            self._known = fingerprint(butler)
            # No connection may be shared with a child.
            butler.registry.resetConnectionPool()
            opened[writeable] = butler
        self.opened = opened

    def same(self) -> bool:
        """Tell whether the repository's tables are those that were there when it was opened."""
        butler = self.opened[False]
        try:
            return fingerprint(butler).items() >= self._known.items()
        finally:
            butler.registry.resetConnectionPool()

    def offer(self) -> bool:
        """Let this process, a forked one, clone the Butlers instead of opening its own.

        Returns
        -------
        certain : `bool`
            `False` if the repository is another one by now; then nothing
            that was loaded for it should be used.
        """
        if not self.opened:
            return True
        try:
            for butler in self.opened.values():
                # The connections, if any, are the parent's.
                butler._registry._db._engine.dispose(close=False)
            if not self.same():
                return False
        except Exception:
            return False
        _replace_from_config(self.repo, self.opened)
        return True


def fingerprint(butler: DirectButler) -> dict[str, str]:
    """Return what must be in a database for it to be the same as before; it may grow."""
    db = butler._registry._db
    namespace = db.namespace
    tables = sqlalchemy.text(_TABLES[db.dialect.name])
    arguments = {}
    if db.dialect.name == "postgresql":
        arguments = {"namespace": namespace or "public"}
    prefix = f'"{namespace}".' if namespace else ""
    attributes = sqlalchemy.text(_ATTRIBUTES.format(prefix))
    found: dict[str, str] = {}
    with db.session():
        with db.query(tables, arguments) as result:
            found |= {f"table {name}": str(value) for name, value in result.fetchall()}
        with db.query(attributes) as result:
            found |= {f"attribute {name}": str(value) for name, value in result.fetchall()}
    return found


def _replace_from_config(repo: str, opened: Mapping[bool, DirectButler]) -> None:
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
        butler.registry.refresh()
        # Else closing it would leave its connection open.
        butler._registry._is_clone = False
        return butler

    Butler.from_config = classmethod(from_config)  # type: ignore[arg-type]
