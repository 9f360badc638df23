# SPDX-License-Identifier: GPL-3.0-or-later
"""Reading from an SQLite database without locking it against writers.

Loaded by path by ``main.py`` and applied in the forked process only. A Butler
that can write begins every transaction with ``BEGIN IMMEDIATE``, also where it
only reads. One process at a time can do that; the others sleep and try
again. Transactions of methods that only read are begun with ``BEGIN`` instead,
as a Butler for reading does.
"""

from __future__ import annotations

import inspect
import sys
from types import CodeType, FrameType
from typing import Any

import sqlalchemy
from lsst.daf.butler.registry.collections.synthIntKey import SynthIntKeyCollectionManager
from lsst.daf.butler.registry.dimensions.static import StaticDimensionRecordStorageManager
from lsst.daf.butler.registry.interfaces import Database
from lsst.daf.butler.registry.sql_registry import SqlRegistry

_READING: tuple[Any, ...] = (
    SqlRegistry.refresh,
    SynthIntKeyCollectionManager._fetch,
    SynthIntKeyCollectionManager._query_recursive,
    StaticDimensionRecordStorageManager.fetch_cache_dict,
)
"""Methods that only read in the transactions that they begin."""

_QUERY: CodeType = inspect.unwrap(Database.query).__code__


def install(engine: Any) -> None:
    """Make an engine begin with a lock only where the Butler may write.

    Parameters
    ----------
    engine : `sqlalchemy.engine.Engine`
        The engine of a Butler that can write. One that is not as expected is
        left as it is.
    """
    listeners = list(engine.dispatch.begin)
    if engine.dialect.name != "sqlite" or len(listeners) != 1:
        return
    lock = listeners[0]
    reading = {inspect.unwrap(method).__code__ for method in _READING}

    def begin(connection: Any) -> Any:
        if _only_reads(sys._getframe(1), reading):
            connection.exec_driver_sql("BEGIN")
            return connection
        return lock(connection)

    sqlalchemy.event.remove(engine, "begin", lock)
    sqlalchemy.event.listen(engine, "begin", begin)


def _only_reads(frame: FrameType | None, reading: set[CodeType]) -> bool:
    """Return whether a transaction that begins below a frame is one that only reads."""
    while frame is not None:
        if frame.f_code in reading:
            return True
        if frame.f_code is _QUERY:
            # With a session, the transaction would outlast the query.
            return frame.f_locals["connection"] is not frame.f_locals["self"]._session_connection
        frame = frame.f_back
    return False
