# SPDX-License-Identifier: GPL-3.0-or-later
"""Write the database rows of all datasets of a quantum in one transaction.

Loaded by path by ``main.py`` and applied in the forked process only. A Butler
commits the rows of each dataset separately, and holds the lock of an SQLite
database while it writes the dataset's file. In a run that this process has
created, files are written immediately, and the rows of all datasets of a
quantum in one transaction after its log has been stored. A job that is killed
leaves complete quanta, and no row without its file.

Pending rows are written before this process uses the database for anything
else, so every query finds them.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from types import FrameType
from typing import Any

import sqlalchemy.exc
from lsst.daf.butler import DatasetRef
from lsst.daf.butler.datastores.fileDatastore import FileDatastore
from lsst.daf.butler.direct_butler import DirectButler
from lsst.daf.butler.registry.datasets.byDimensions import ByDimensionsDatasetRecordStorageManagerUUID
from lsst.daf.butler.registry.interfaces import Database, DatabaseInsertMode


@dataclass
class Put:
    """The rows that one ``put`` or ``ingest`` adds to the database."""

    butler: Any
    completes_quantum: bool
    imports: list[tuple[Any, ...]] = field(default_factory=list)
    files: list[Any] = field(default_factory=list)

    def ids(self) -> set[Any]:
        """Return the ids of the datasets."""
        return {ref.id for _, refs, *_ in self.imports for ref in refs}


class PendingRows:
    """The rows that have not been written yet.

    Parameters
    ----------
    runs : `NewRuns`
        The runs that this process has created; see ``savings.py``.
    """

    def __init__(self, runs: Any) -> None:
        self._runs = runs
        self._puts: list[Put] = []
        self._put: Put | None = None
        self._import_guarded: Any = None
        self._register: Any = None

    def install(self) -> None:
        """Wrap methods of the Butler's classes in this process.

        Only methods through which no ordinary exception passes are wrapped,
        so that tracebacks are the same as those of a command typed by hand.
        """
        self._collect_puts()
        self._collect_rows()
        self._write_in_time()

    def _collect_puts(self) -> None:
        """Make ``put`` and ``ingest`` write files without a database transaction."""
        butler_class: Any = DirectButler
        transaction = butler_class.transaction
        # The code of ``put`` is that of a decorator, which other methods have too.
        put, ingest = butler_class.put, butler_class.ingest

        def transaction_of_caller(butler: Any) -> AbstractContextManager[None]:
            caller = sys._getframe(1)
            if caller.f_code is put.__code__ and caller.f_locals["func"] is put.__wrapped__:
                collected = self._put_of(butler, _refs_of_put(caller))
            elif caller.f_code is ingest.__code__:
                refs = [ref for dataset in caller.f_locals["datasets"] for ref in dataset.refs]
                collected = self._put_of(butler, refs)
            else:
                collected = None
            usual: AbstractContextManager[None] = transaction(butler)
            return usual if collected is None else self._collect(collected)

        butler_class.transaction = transaction_of_caller

    def _put_of(self, butler: Any, refs: list[Any]) -> Put | None:
        """Return a new `Put` for these datasets; `None` if the Butler must write their rows itself.

        Rows are collected for datasets of one new run, in a Butler whose
        classes are known here.
        """
        runs = {ref.run for ref in refs}
        if type(butler) is not DirectButler or self._put is not None or len(runs) != 1:
            return None
        managers, database = butler._registry._managers, butler._registry._db
        usual = (
            (database._engine, *runs) in self._runs.records
            and type(butler._datastore) is FileDatastore
            and type(managers.datasets) is ByDimensionsDatasetRecordStorageManagerUUID
            and managers.obscore is None
            and not database.isInTransaction()
        )
        if not usual:
            return None
        # The log is the last dataset that a quantum stores.
        log = any(ref.datasetType.storageClass_name == "ButlerLogRecords" for ref in refs)
        return Put(butler, completes_quantum=log)

    @contextlib.contextmanager
    def _collect(self, put: Put) -> Iterator[None]:
        if self._puts and self._puts[0].butler is not put.butler:
            self.write()
        self._put = put
        try:
            with put.butler._datastore.transaction():
                yield
            self._puts.append(put)
        finally:
            self._put = None
        if put.completes_quantum:
            self.write()

    def _collect_rows(self) -> None:
        """Collect the rows that ``put`` and ``ingest`` would write."""
        manager: Any = ByDimensionsDatasetRecordStorageManagerUUID
        datastore: Any = FileDatastore
        self._import_guarded, self._register = manager._import_guarded, datastore._register_datasets

        def import_later(datasets: Any, run: Any, refs: list[Any], *others: Any) -> None:
            current = self._put
            if current is None or current.butler._registry._managers.datasets is not datasets:
                self._import_guarded(datasets, run, refs, *others)
            elif {ref.id for ref in refs} & {id for put in self._puts for id in put.ids()}:
                # Let the Butler find the duplicate and refuse it.
                self.write()
                self._import_guarded(datasets, run, refs, *others)
            else:
                current.imports.append((run, refs, *others))
                self._runs.datasets.update(ref.id for ref in refs)

        def register_later(
            files: Any, refs_and_infos: Any, insert_mode: Any = DatabaseInsertMode.INSERT
        ) -> None:
            current = self._put
            collected = current is not None and current.imports and current.butler._datastore is files
            if current is not None and collected and insert_mode is DatabaseInsertMode.INSERT:
                current.files += refs_and_infos
            else:
                self._register(files, refs_and_infos, insert_mode)

        manager._import_guarded = import_later
        datastore._register_datasets = register_later

    def _write_in_time(self) -> None:
        """Make every other use of the database write the pending rows first."""
        database: Any = Database
        butler_class: Any = DirectButler
        session, close = database._session, butler_class.close

        def session_after_writing(database: Any) -> Any:
            if self._put is None:
                self.write()
            return session(database)

        def write_and_close(butler: Any) -> None:
            self.write()
            close(butler)

        database._session = session_after_writing
        butler_class.close = write_and_close

    def write(self) -> None:
        """Write the pending rows."""
        puts, self._puts = self._puts, []
        if not puts:
            return
        butler = puts[0].butler
        datasets, datastore = butler._registry._managers.datasets, butler._datastore
        try:
            with datasets._db.transaction():
                for together in _by_table(puts):
                    datasets._import_new(*together)
                self._register(datastore, [file for put in puts for file in put.files])
        except sqlalchemy.exc.IntegrityError:
            # Some exist already: write each put separately, as the Butler does.
            for put in puts:
                with datasets._db.transaction():
                    for each in put.imports:
                        self._import_guarded(datasets, *each)
                    self._register(datastore, put.files)


def _refs_of_put(frame: FrameType) -> list[Any]:
    """Return the dataset reference that ``put`` was called with; empty if it was not called with one."""
    arguments = frame.f_locals["args"]
    return [arguments[1]] if len(arguments) > 1 and isinstance(arguments[1], DatasetRef) else []


def _by_table(puts: list[Put]) -> Iterator[tuple[Any, ...]]:
    """Return the arguments of imports, merged for each run and table."""
    groups: dict[Any, list[tuple[Any, ...]]] = {}
    for put in puts:
        for each in put.imports:
            run, _, _, _, table, _, _ = each
            groups.setdefault((run.name, table.name), []).append(each)
    for group in groups.values():
        run, _, _, _, table, _, timestamp = group[-1]
        refs = [ref for each in group for ref in each[1]]
        storage = {name: item for each in group for name, item in each[3].items()}
        tags_rows = [row for each in group for row in each[5]]
        yield run, refs, storage, table, tags_rows, timestamp
