# SPDX-License-Identifier: GPL-3.0-or-later
"""Faster ways to use the Butler for a run that this process has created itself.

Loaded by path by ``main.py`` and applied in the forked process only. Each
stores the same rows and files as the unchanged Butler. Where that is not
certain the Butler is used unchanged: in a run that existed before, with
another class of Butler or datastore, and with versions that were not tested.
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
"""The versions with which the results were compared with those of the unchanged Butler."""


def untested() -> str:
    """Return the installed packages whose versions were not tested, in words; empty if there are none."""
    installed = {name: importlib.metadata.version(name) for name in TESTED}
    return ", ".join(f"{name} {found}" for name, found in installed.items() if found not in TESTED[name])


@contextlib.contextmanager
def savepoint(database: Any) -> Iterator[None]:
    """Roll back the context alone if it fails, by a savepoint.

    This sets one savepoint; ``database.transaction(savepoint=True)`` would
    set another one for each statement within.
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
    """The RUN collections that this process has created.

    Attributes
    ----------
    records : `dict`
        The record of each run, by database engine and name.
    datasets : `set`
        Ids of new datasets, until the datastore is first asked for them.
    """

    def __init__(self) -> None:
        self.records: dict[tuple[Any, str], Any] = {}
        self.datasets: set[Any] = set()

    def install(self) -> None:
        """Wrap methods of the Butler's classes in this process.

        Only methods through which no ordinary exception passes are wrapped,
        so that tracebacks are the same as those of a command typed by hand.
        """
        self._remember_runs()
        self._insert_as_new()
        self._know_what_is_new()
        self._expect_no_outputs()

    def made(self, butler: Any) -> bool:
        """Return whether this process has created the run that a Butler writes to."""
        database = getattr(getattr(butler, "_registry", None), "_db", None)
        return database is not None and (database._engine, butler.run) in self.records

    def _remember_runs(self) -> None:
        """Keep the records of new runs, so that each is looked up once."""
        manager: Any = SynthIntKeyCollectionManager
        register, look_up, remove = manager.register, manager._getByName, manager._removeCachedRecord

        def register_and_remember(collections: Any, name: str, type: Any, doc: Any = None) -> Any:
            record, registered = register(collections, name, type, doc)
            if registered and record.type is CollectionType.RUN:
                self.records[collections._db._engine, name] = record
            return record, registered

        def look_up_once(collections: Any, name: str) -> Any:
            return self.records.get((collections._db._engine, name)) or look_up(collections, name)

        def drop_removed(collections: Any, record: Any) -> None:
            self.records.pop((collections._db._engine, record.name), None)
            remove(collections, record)

        manager.register = register_and_remember
        manager._getByName = look_up_once
        manager._removeCachedRecord = drop_removed

    def _insert_as_new(self) -> None:
        """Insert the rows of datasets directly, without first comparing them with existing rows.

        The unchanged Butler compares them through a temporary table. The
        table's name differs each time, so SQLAlchemy cannot cache any of the
        six statements that use it. This comparison is still made when a
        constraint of the database shows that a row is not new.
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
                    # The run may have been removed: look it up again, as the Butler does.
                    self.records.pop((datasets._db._engine, run.name), None)
                    import_guarded(datasets, datasets._collections.find(run.name), *arguments)
                else:
                    self.datasets.update(ref.id for ref in refs)
            else:
                import_guarded(datasets, run, *arguments)

        manager._import_guarded = import_as_new

    def _know_what_is_new(self) -> None:
        """Do not search the datastore for a dataset that has just been registered."""
        datastore: Any = FileDatastore
        knows = datastore.knows

        def knows_unless_new(files: Any, ref: Any) -> bool:
            if ref.id in self.datasets:
                self.datasets.remove(ref.id)
                return False
            return bool(knows(files, ref))

        datastore.knows = knows_unless_new

    def _expect_no_outputs(self) -> None:
        """Do not search a new run for existing outputs of a quantum."""
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
