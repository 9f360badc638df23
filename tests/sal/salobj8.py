# SPDX-License-Identifier: GPL-3.0-or-later
"""Stand-ins for the parts of salobj 8 that differ from salobj 6, written after salobj 8.2.9.

They are as strict as the real ones: unknown arguments and fields are errors.
Events are stamped when they are written, go out from a pool of threads in any
order, and a reader drops what is older than what it has.
"""

from __future__ import annotations

import asyncio
import random
import threading
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
        self._lock = threading.Lock()

    def receive(self, data: types.SimpleNamespace) -> None:
        """Take a sample, unless it is older than the one before."""
        with self._lock:
            if data.private_sndStamp < self._last:
                self.ignored += 1
                return
            self._last = data.private_sndStamp
            self.received.append(data)


class Event:
    """A controller's event: ``set_write`` as in ``WriteTopic``.

    There are no ``put`` and ``set_put``, which salobj 6 has.

    Parameters
    ----------
    reader : `Reader`
        Who hears it.
    *fields : `str`
        Its fields.
    """

    def __init__(self, reader: Reader, *fields: str) -> None:
        self.data = types.SimpleNamespace(**dict.fromkeys(fields, ""), private_sndStamp=0)
        self.has_data = False
        self.running = True
        self._reader = reader
        self._pool = ThreadPoolExecutor(max_workers=20)

    async def set_write(self, *, force_output: bool | None = None, **fields: Any) -> types.SimpleNamespace:
        """Set fields and write the event if they changed or if forced; returns when the broker has it.

        Raises
        ------
        AttributeError
            If the event does not have one of the fields.
        RuntimeError
            If it is not running.
        """
        if unknown := fields.keys() - vars(self.data).keys():
            raise AttributeError(f"no fields {sorted(unknown)}")
        # None leaves a field as it is.
        fields = {name: value for name, value in fields.items() if value is not None}
        changed = not self.has_data or any(
            getattr(self.data, name) != value for name, value in fields.items()
        )
        vars(self.data).update(fields)
        self.has_data = True
        if written := changed or bool(force_output):
            if not self.running:
                raise RuntimeError("Not running")
            self.data.private_sndStamp = time.monotonic_ns()
            sample = types.SimpleNamespace(**vars(self.data))
            await asyncio.get_running_loop().run_in_executor(self._pool, self._write, sample)
        return types.SimpleNamespace(did_change=changed, was_written=written, data=self.data)

    def _write(self, sample: types.SimpleNamespace) -> None:
        """Write from one of the threads, sooner or later."""
        time.sleep(random.random() * 0.01)
        self._reader.receive(sample)


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
        self.sent: list[tuple[int, Any]] = []

    async def ack(self, data: Any, ackcmd: Any) -> None:
        """Send an acknowledgement to who sent the command."""
        assert isinstance(data.private_identity, str)
        assert isinstance(data.private_origin, int)
        await asyncio.sleep(0)
        self.sent.append((data.private_seqNum, ackcmd))

    async def ack_in_progress(self, data: Any, timeout: float, result: str = "") -> None:
        """Acknowledge as in progress."""
        self.acks.append((data, timeout, result))


def make_configurable(
    name: str,
    index: int | None,
    config_schema: dict[str, Any],
    config_dir: Any = None,
    check_if_duplicate: bool = False,
    initial_state: Any = None,
    override: str = "",
    simulation_mode: int = 0,
    extra_commands: frozenset[str] = frozenset(),
    discard_out_of_order_telemetry: bool = True,
    discard_out_of_order_events: bool = True,
) -> dict[str, Any]:
    """Take the arguments of ``ConfigurableCsc``, and return those that salobj 6 knows by its names."""
    return {
        "name": name,
        "config_schema": config_schema,
        "config_dir": config_dir,
        "index": index,
        "initial_state": initial_state,
        "settings_to_apply": override,
        "simulation_mode": simulation_mode,
    }


class Csc:
    """A CSC, made with what salobj 8's command line passes, that a signal has called done."""

    def __init__(self, index: int, *, config_dir: Any = None, override: str = "") -> None:
        self.index = index
        self.override = override
        self.salinfo = SalInfo()
        self.cmd_execute = Command()
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
        """Do what salobj 8 does at SIGTERM; a second one fails."""
        print("signal_handler")
        self.done_task.set_result(None)

    async def close(self) -> None:
        """Close."""
        await asyncio.sleep(0)
        self.closed = True

    async def fault(self, code: int, report: str, traceback: str = "") -> None:
        """Go to FAULT."""
        self.faults.append((code, report))
