# SPDX-License-Identifier: GPL-3.0-or-later
"""Stand-ins for the parts of salobj 8 that differ from salobj 6.

They are as strict as the real ones: unknown arguments and fields are errors.
Events are stamped when they are written, go out from a pool of threads in any
order, and a reader ignores what is older than what it has.
"""

from __future__ import annotations

import asyncio
import random
import time
import types
from concurrent.futures import ThreadPoolExecutor
from typing import Any


class Reader:
    """A remote's reader of one event."""

    def __init__(self) -> None:
        self.received: list[types.SimpleNamespace] = []
        self.ignored = 0
        self._last = 0

    def receive(self, data: types.SimpleNamespace) -> None:
        """Take a sample, unless it is older than the one before."""
        if data.private_sndStamp < self._last:
            self.ignored += 1
            return
        self._last = data.private_sndStamp
        self.received.append(data)


class Event:
    """A controller's event: ``set`` and ``set_write`` as in ``WriteTopic``.

    Parameters
    ----------
    reader : `Reader`
        Who hears it.
    *fields : `str`
        Its fields.
    """

    def __init__(self, reader: Reader, *fields: str) -> None:
        self.data = types.SimpleNamespace(**dict.fromkeys(fields, ""), private_sndStamp=0)
        self._reader = reader
        self._pool = ThreadPoolExecutor(max_workers=20)

    async def set_write(self, *, force_output: bool | None = None, **fields: Any) -> None:
        """Set fields and write the event; returns when the broker has it."""
        if unknown := fields.keys() - vars(self.data).keys():
            raise AttributeError(f"no fields {sorted(unknown)}")
        vars(self.data).update(fields)
        self.data.private_sndStamp = time.monotonic_ns()
        data = types.SimpleNamespace(**vars(self.data))
        loop = asyncio.get_running_loop()
        await loop.run_in_executor(self._pool, time.sleep, random.random() * 0.01)
        self._reader.receive(data)


class SalInfo:
    """What makes acknowledgements; it has no limit of length, and no argument for one."""

    def make_ackcmd(
        self, private_seqNum: int, ack: int, error: int = 0, result: str = "", timeout: float = 0
    ) -> types.SimpleNamespace:
        """Return an acknowledgement."""
        return types.SimpleNamespace(
            private_seqNum=private_seqNum, ack=ack, error=error, result=result, timeout=timeout
        )


class Command:
    """A controller's command."""

    def __init__(self) -> None:
        self.acks: list[tuple[Any, float, str]] = []

    async def ack_in_progress(self, data: Any, timeout: float, result: str = "") -> None:
        """Acknowledge as in progress."""
        self.acks.append((data, timeout, result))


class Csc:
    """A CSC, made with what salobj 8's command line passes, that a signal has called done."""

    def __init__(self, index: int, *, config_dir: Any = None, override: str = "") -> None:
        self.index = index
        self.override = override
        self.salinfo = SalInfo()
        self.done_task: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.faults: list[tuple[int, str]] = []
        self.closed = False
        self.duplicates_refused = False

    @classmethod
    def make_from_cmd_line(cls, index: Any, check_if_duplicate: bool = False, **kwargs: Any) -> Csc:
        """Return a CSC."""
        csc = cls(1, **kwargs)
        csc.duplicates_refused = check_if_duplicate
        return csc

    def signal_handler(self) -> None:
        """Do what salobj 8 does at SIGTERM."""
        self.done_task.set_result(None)

    async def close(self) -> None:
        """Close."""
        await asyncio.sleep(0)
        self.closed = True

    async def fault(self, code: int, report: str, traceback: str = "") -> None:
        """Go to FAULT."""
        self.faults.append((code, report))
