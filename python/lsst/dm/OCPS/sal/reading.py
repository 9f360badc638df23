# SPDX-License-Identifier: GPL-3.0-or-later
"""Protect the reading thread of salobj 6 from samples that it cannot use.

salobj 6 reads all topics of a component in one thread. An exception there
ends the thread: the heartbeat continues, but the component receives no more
commands. The DDS layer drops samples that cannot be decoded; this module
drops those on which salobj itself fails, such as a command without a number.
"""

from __future__ import annotations

__all__ = ["ReadingGuard"]

import asyncio
import contextlib
import functools
import logging
import time
from collections.abc import Callable
from typing import Any

from .compat import SALOBJ_MAJOR

LOG_INTERVAL = 60.0
"""Shortest time (s) between two log messages about errors in reading."""

RETRY = 0.1
"""Pause (s) before reading is started again after an error outside a sample."""


class ReadingGuard:
    """Protects the reading thread of a CSC, and counts the samples that it cannot use.

    Does nothing on salobj 8, which has no reading thread.

    Parameters
    ----------
    csc : `lsst.ts.salobj.BaseCsc`
        The CSC, not started yet.
    """

    def __init__(self, csc: Any) -> None:
        self._log = csc.log
        self._dropped = 0
        self._logged = -LOG_INTERVAL
        self._readers: list[Any] = []
        self._forwarder: _Forwarder | None = None
        if SALOBJ_MAJOR >= 7:
            return
        self._loop = asyncio.get_running_loop()
        self._readers = list(csc.salinfo._reader_dict.values())
        for reader in self._readers:
            reader._queue_one_item = self._guard_item(reader._queue_one_item, reader.sal_name)
        csc.salinfo._read_loop_thread = self._guard_loop(csc.salinfo)
        # Publish the log messages of the DDS layer as the CSC's own.
        self._forwarder = _Forwarder(csc._sal_log_handler, self._loop)
        logging.getLogger("dds").addHandler(self._forwarder)

    def close(self) -> None:
        """Stop forwarding the log of the DDS layer."""
        if self._forwarder:
            logging.getLogger("dds").removeHandler(self._forwarder)

    @property
    def dropped(self) -> int:
        """Number of samples dropped so far, including those that could not be decoded."""
        # OpenSplice's readers do not count.
        counters = (getattr(reader._reader, "dropped", None) for reader in self._readers)
        undecodable: int = sum(counter.count for counter in counters if counter)
        return self._dropped + undecodable

    def _guard_item(self, queue: Callable[[Any], None], topic: str) -> Callable[[Any], None]:
        @functools.wraps(queue)
        def guarded(data: Any) -> None:
            try:
                queue(data)
            except Exception as error:
                self._dropped += 1
                # repr escapes control characters of the sample.
                words = f"{topic}: dropped a sample that cannot be used: {error!r:.200}"
                self._warn(f"{words} ({self._dropped} so far)")

        return guarded

    def _guard_loop(self, salinfo: Any) -> Callable[[Any], None]:
        read = salinfo._read_loop_thread

        @functools.wraps(read)
        def guarded(loop: Any) -> None:
            while salinfo.isopen:
                try:
                    read(loop)
                except Exception as error:
                    self._warn(f"Reading SAL failed and begins again: {error!r:.200}")
                    time.sleep(RETRY)

        return guarded

    def _warn(self, words: str) -> None:
        """Log a warning, at most once in `LOG_INTERVAL`."""
        now = time.monotonic()
        if now - self._logged < LOG_INTERVAL:
            return
        self._logged = now
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._log.warning, words)


class _Forwarder(logging.Handler):
    """Passes log records of any thread to another handler, in the event loop.

    Parameters
    ----------
    handler : `logging.Handler`
        Gets the records; it may be called only in the event loop.
    loop : `asyncio.AbstractEventLoop`
        The event loop.
    """

    def __init__(self, handler: logging.Handler, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__()
        self._handler = handler
        self._loop = loop

    def emit(self, record: logging.LogRecord) -> None:
        """Pass a record on, unless the event loop has ended."""
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._handler.handle, record)
