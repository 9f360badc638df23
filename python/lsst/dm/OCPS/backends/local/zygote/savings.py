# SPDX-License-Identifier: GPL-3.0-or-later
"""Shorter ways through the Butler for a run that this process has made itself.

Loaded by path by ``main.py`` and applied in the forked process only. Each
leaves the database and the files as the Butler's own way does, and gives way
to it where that is not certain: in a run that was there before, with another
class of Butler or datastore, and with versions that were not tested.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
from collections.abc import Iterator
from typing import Any

import sqlalchemy.exc
from lsst.daf.butler import CollectionType
from lsst.daf.butler.datastores.fileDatastore import FileDatastore
from lsst.daf.butler.registry.collections.synthIntKey import SynthIntKeyCollectionManager
from lsst.daf.butler.registry.datasets.byDimensions import ByDimensionsDatasetRecordStorageManagerUUID
from lsst.pipe.base.mp_graph_executor import MPGraphExecutor
from lsst.pipe.base.single_quantum_executor import SingleQuantumExecutor

TESTED = {
    "lsst-ctrl-mpexec": {"30.2026.500"},
    "lsst-daf-butler": {"30.2026.4300"},
    "lsst-pipe-base": {"30.2026.500"},
}
"""The versions for which the results were compared with those of the Butler's own way."""


def untested() -> str:
    """Return what is installed in a version that was not tested; empty if nothing is."""
    installed = {name: importlib.metadata.version(name) for name in TESTED}
    return ", ".join(f"{name} {found}" for name, found in installed.items() if found not in TESTED[name])


@contextlib.contextmanager
def savepoint(database: Any) -> Iterator[None]:
    """Undo what is done within if it fails, and nothing else.

    One savepoint, where ``database.transaction(savepoint=True)`` would have
    one more for each statement within.
    """
    if not database.isInTransaction():
        with database.transaction():
            yield
        return
    connection = database._session_connection
    connection.exec_driver_sql("SAVEPOINT ocps_import")
    try:
        yield
    except BaseException:
        connection.exec_driver_sql("ROLLBACK TO SAVEPOINT ocps_import")
        raise
    finally:
        connection.exec_driver_sql("RELEASE SAVEPOINT ocps_import")


class NewRuns:
    """The RUN collections that this process has made.

    Attributes
    ----------
    records : `dict`
        The record of each, by engine and name.
    datasets : `set`
        Ids of datasets that are new and for which the datastore was not
        asked yet.
    """

    def __init__(self) -> None:
        self.records: dict[tuple[Any, str], Any] = {}
        self.datasets: set[Any] = set()

    def offer(self) -> None:
        """Replace methods of the Butler's classes in this process.

        Only such methods are replaced, and wrapped, that no usual exception
        passes through: tracebacks are to be those of a typed command.
        """
        self._remember_runs()
        self._insert_as_new()
        self._know_what_is_new()
        self._expect_no_outputs()

    def made(self, butler: Any) -> bool:
        """Tell whether this process has made the run that a Butler writes to."""
        database = getattr(getattr(butler, "_registry", None), "_db", None)
        return database is not None and (database._engine, butler.run) in self.records

    def _remember_runs(self) -> None:
        """Look a run's record up once."""
        manager: Any = SynthIntKeyCollectionManager
        register, look_up, remove = manager.register, manager._getByName, manager._removeCachedRecord

        def register_and_remember(collections: Any, name: str, type: Any, doc: Any = None) -> Any:
            record, registered = register(collections, name, type, doc)
            if registered and record.type is CollectionType.RUN:
                self.records[collections._db._engine, name] = record
            return record, registered

        def look_up_once(collections: Any, name: str) -> Any:
            return self.records.get((collections._db._engine, name)) or look_up(collections, name)

        def forget_removed(collections: Any, record: Any) -> None:
            self.records.pop((collections._db._engine, record.name), None)
            remove(collections, record)

        manager.register = register_and_remember
        manager._getByName = look_up_once
        manager._removeCachedRecord = forget_removed

    def _insert_as_new(self) -> None:
        """Insert the rows of datasets as new ones first.

        The Butler's own way compares them in a temporary table with those
        that exist. Its name differs each time, so that none of the six
        statements that use it comes from SQLAlchemy's cache. It is taken if a
        constraint says that a row is not new.
        """
        manager: Any = ByDimensionsDatasetRecordStorageManagerUUID
        import_guarded = manager._import_guarded

        def import_as_new(
            datasets: Any,
            run: Any,
            refs: list[Any],
            dimensions: Any,
            storage: Any,
            tags_table: Any,
            tags_rows: Any,
            timestamp: Any,
        ) -> None:
            arguments = refs, dimensions, storage, tags_table, tags_rows, timestamp
            if (datasets._db._engine, run.name) in self.records:
                try:
                    with savepoint(datasets._db):
                        datasets._import_new(run, refs, storage, tags_table, tags_rows, timestamp)
                except sqlalchemy.exc.IntegrityError:
                    # Perhaps the run is not there any more: look, as the Butler does.
                    self.records.pop((datasets._db._engine, run.name), None)
                    import_guarded(datasets, datasets._collections.find(run.name), *arguments)
                else:
                    self.datasets.update(ref.id for ref in refs)
            else:
                import_guarded(datasets, run, *arguments)

        manager._import_guarded = import_as_new

    def _know_what_is_new(self) -> None:
        """Do not look in the datastore for a dataset that was registered just now."""
        datastore: Any = FileDatastore
        knows = datastore.knows

        def knows_unless_new(files: Any, ref: Any) -> bool:
            if ref.id in self.datasets:
                self.datasets.remove(ref.id)
                return False
            return bool(knows(files, ref))

        datastore.knows = knows_unless_new

    def _expect_no_outputs(self) -> None:
        """Do not look for outputs of a quantum in a new run."""
        graph_executor: Any = MPGraphExecutor
        initialize = graph_executor.__init__

        def initialize_for_new_run(self_: Any, *args: Any, quantum_executor: Any, **kwargs: Any) -> None:
            if (
                type(quantum_executor) is SingleQuantumExecutor
                and self.made(quantum_executor._butler)
                and not quantum_executor._skip_existing
                and not quantum_executor._clobber_outputs
            ):
                quantum_executor._assume_no_existing_outputs = True
            initialize(self_, *args, quantum_executor=quantum_executor, **kwargs)

        graph_executor.__init__ = initialize_for_new_run
