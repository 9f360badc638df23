# SPDX-License-Identifier: GPL-3.0-or-later
"""Group commit: writes that are requested at the same time share a transaction.

Every write is on disk before its caller continues, and hundreds of jobs per
second can still be accepted.
"""

from __future__ import annotations

__all__ = ["GroupWriter", "Operation"]

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import sqlalchemy as sa

from .errors import StoreError

Operation = Callable[[sa.Connection], Any]

Transaction = Callable[[Sequence[Operation]], Awaitable[list[Any]]]
"""Carries out operations in one transaction and returns what each returns; raises `StoreError`."""

Item = tuple[Operation, asyncio.Future[Any]]


class GroupWriter:
    """The one writer of a store.

    Parameters
    ----------
    transaction : `~collections.abc.Callable`
        Carries out operations in one transaction.
    """

    def __init__(self, transaction: Transaction) -> None:
        self._transaction = transaction
        self._waiting: list[Item] = []
        self._task: asyncio.Task[None] | None = None

    async def write(self, operation: Operation) -> Any:
        """Carry out an operation and return what it returns.

        An operation whose caller is cancelled before its transaction begins
        is not carried out.

        Raises
        ------
        StoreError
            If the database fails.
        """
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._waiting.append((operation, future))
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._write_all())
        return await future

    async def finish(self) -> None:
        """Carry out all operations that were requested."""
        if self._task:
            await self._task

    async def _write_all(self) -> None:
        while self._waiting:
            batch = [item for item in self._waiting if not item[1].done()]
            self._waiting = []
            try:
                await self._write(batch)
            except Exception as error:
                if len(batch) > 1 and not _is_of_store(error):
                    # One bad operation must not fail the others of its transaction.
                    for item in batch:
                        try:
                            await self._write([item])
                        except Exception as own_error:
                            _fail([item], own_error)
                    continue
                # Operations that were requested meanwhile would fail the same
                # way: fail them now, so that no caller waits longer than one
                # transaction may take.
                _fail(batch + self._waiting, error)
                self._waiting = []

    async def _write(self, batch: list[Item]) -> None:
        values = await self._transaction([operation for operation, _ in batch])
        for (_, future), value in zip(batch, values, strict=True):
            if not future.done():
                future.set_result(value)


def _is_of_store(error: Exception) -> bool:
    """Return whether the store failed, and not one of the operations: it is locked, full or gone."""
    failures = (sa.exc.OperationalError, sa.exc.InterfaceError, sa.exc.InternalError, OSError)
    return error.__cause__ is None or isinstance(error.__cause__, failures)


def _fail(items: Sequence[Item], error: Exception) -> None:
    for _, future in items:
        if not future.done():
            future.set_exception(StoreError(str(error)))
