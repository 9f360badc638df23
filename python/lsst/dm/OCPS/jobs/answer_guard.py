# SPDX-License-Identifier: GPL-3.0-or-later
"""A bound for how long a PostgreSQL server that hangs can keep its clients waiting.

Its own time-outs do not count while it is stopped, and the network does not
notice: the kernel still accepts what is sent.
"""

from __future__ import annotations

__all__ = ["AnswerGuard"]

import asyncio
import contextlib
import os
import socket
import weakref
from collections.abc import Iterator
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncEngine

ANSWER_TIMEOUT = 20.0
"""How long (s) an operation may take; longer than the server's own bound of each statement."""


class AnswerGuard:
    """Cuts the connections to a server that does not answer.

    What waits for an answer then fails as if the server had closed the
    connection, and the server rolls back when it goes on.

    Parameters
    ----------
    engine : `sqlalchemy.ext.asyncio.AsyncEngine`
        The database, by the driver psycopg.
    """

    def __init__(self, engine: AsyncEngine) -> None:
        self._connections: weakref.WeakSet[Any] = weakref.WeakSet()
        sa.event.listen(engine.sync_engine, "connect", self._connected)

    def _connected(self, connection: Any, record: object) -> None:
        self._connections.add(connection.driver_connection)

    @contextlib.contextmanager
    def watch(self) -> Iterator[None]:
        """Cut all connections if what is done within takes longer than `ANSWER_TIMEOUT`."""
        timer = asyncio.get_running_loop().call_later(ANSWER_TIMEOUT, self._cut)
        try:
            yield
        finally:
            timer.cancel()

    def _cut(self) -> None:
        for connection in list(self._connections):
            if not connection.closed:
                with socket.socket(fileno=os.dup(connection.fileno())) as same, contextlib.suppress(OSError):
                    same.shutdown(socket.SHUT_RDWR)
