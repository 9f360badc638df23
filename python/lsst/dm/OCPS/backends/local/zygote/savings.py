# SPDX-License-Identifier: GPL-3.0-or-later
"""Shorter ways through the Butler for a run that this process has made itself.

Loaded by path by ``main.py`` and applied in the forked process only. Each
leaves the database and the files as the Butler's own way does, and gives way
to it where that is not certain: in a run that was there before, with another
class of Butler or datastore, and with versions that were not tested.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.metadata
from collections.abc import Iterator
from typing import Any

import sqlalchemy.exc
from lsst.daf.butler import CollectionType
from lsst.daf.butler.datastores.fileDatastore import FileDatastore
from lsst.daf.butler.registry.collections.synthIntKey import SynthIntKeyCollectionManager
from lsst.daf.butler.registry.datasets.byDimensions import ByDimensionsDatasetRecordStorageManagerUUID

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
    """The RUN collections that this process has made, and the datasets it has registered in them."""

    def __init__(self) -> None:
        self._records: dict[tuple[Any, str], Any] = {}
        self._datasets: set[Any] = set()

    def offer(self) -> None:
        """Replace methods of the Butler's classes in this process."""
        self._remember_runs()
        self._insert_as_new()
        self._know_what_is_new()
        self._expect_no_outputs()

    def _remember_runs(self) -> None:
        """Look a run's record up once."""
        manager: Any = SynthIntKeyCollectionManager
        register, find, remove = manager.register, manager.find, manager.remove

        def register_and_remember(collections: Any, name: str, type: Any, doc: Any = None) -> Any:
            record, registered = register(collections, name, type, doc)
            if registered and record.type is CollectionType.RUN:
                self._records[collections._db._engine, name] = record
            return record, registered

        def find_remembered(collections: Any, name: str) -> Any:
            record = self._records.get((collections._db._engine, name))
            return find(collections, name) if record is None else record

        def remove_and_forget(collections: Any, name: str) -> None:
            self._records.pop((collections._db._engine, name), None)
            remove(collections, name)

        manager.register, manager.find, manager.remove = (
            register_and_remember,
            find_remembered,
            remove_and_forget,
        )

    def _insert_as_new(self) -> None:
        """Insert the rows of datasets as new ones first.

        The Butler's own way compares them in a temporary table with those
        that exist. Its name differs each time, so that none of the six
        statements that use it comes from SQLAlchemy's cache. It is taken if a
        constraint says that a row is not new.
        """
        manager: Any = ByDimensionsDatasetRecordStorageManagerUUID
        import_ = manager.import_

        def import_as_new(datasets: Any, run: Any, refs: list[Any], assume_new: bool = False) -> None:
            key = datasets._db._engine, run.name
            if assume_new or not refs or key not in self._records:
                import_(datasets, run, refs, assume_new)
                return
            try:
                with savepoint(datasets._db):
                    import_(datasets, run, refs, True)
            except sqlalchemy.exc.IntegrityError:
                # Perhaps the run is not there any more: look, as the Butler does.
                del self._records[key]
                import_(datasets, datasets._collections.find(run.name), refs)
            else:
                self._datasets.update(ref.id for ref in refs)

        manager.import_ = import_as_new

    def _know_what_is_new(self) -> None:
        """Do not look in the datastore for a dataset that was registered just now."""
        datastore: Any = FileDatastore
        knows = datastore.knows

        def knows_unless_new(files: Any, ref: Any) -> bool:
            if ref.id in self._datasets:
                self._datasets.remove(ref.id)
                return False
            return bool(knows(files, ref))

        datastore.knows = knows_unless_new

    def _expect_no_outputs(self) -> None:
        """Do not look for outputs of a quantum in a new run."""
        # The package has a function of the same name.
        run_script: Any = importlib.import_module("lsst.ctrl.mpexec.cli.script.run")
        executor = run_script.SingleQuantumExecutor

        def make_executor(*, butler: Any, **settings: Any) -> Any:
            database = getattr(getattr(butler, "_registry", None), "_db", None)
            new = database is not None and (database._engine, butler.run) in self._records
            if new and not settings.get("skip_existing_in") and not settings.get("clobber_outputs"):
                settings["assume_no_existing_outputs"] = True
            return executor(butler=butler, **settings)

        run_script.SingleQuantumExecutor = make_executor
