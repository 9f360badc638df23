# SPDX-License-Identifier: GPL-3.0-or-later
"""Every difference between salobj 6 (DDS) and salobj 8 (Kafka), and nothing else."""

from __future__ import annotations

__all__ = [
    "SALOBJ_MAJOR",
    "ack_in_progress",
    "csc_arguments",
    "enter_fault",
    "field",
    "handle_sigterm",
    "make_acks_atomic",
    "put",
    "settings_of",
]

import asyncio
import functools
import inspect
import signal
import threading
from collections.abc import Callable
from typing import Any

from lsst.ts import salobj

SALOBJ_MAJOR = int(salobj.__version__.split(".")[0]) if salobj.__version__[:1].isdigit() else 8
"""Major version of salobj; an unreleased one counts as the newer interface."""


def make_acks_atomic(csc: Any) -> None:
    """Let no acknowledgement of a CSC change while another is being written.

    salobj 6 sends CMD_ACK from its reading thread and all others from the
    event loop, through one writer with one message in it: an acknowledgement
    could go out with the number of one command and the words of another.
    salobj 8 has no reading thread.
    """
    if SALOBJ_MAJOR >= 7:
        return
    lock = threading.Lock()

    def atomic(ack: Callable[..., None]) -> Callable[..., None]:
        @functools.wraps(ack)
        def locked(*arguments: Any, **named: Any) -> None:
            with lock:
                ack(*arguments, **named)

        return locked

    for name in csc.salinfo.command_names:
        command = getattr(csc, f"cmd_{name}")
        command.ack = atomic(command.ack)


async def put(event: Any, **fields: Any) -> None:
    """Write an event, also if nothing in it has changed."""
    if hasattr(event, "set_write"):
        await event.set_write(force_output=True, **fields)
    else:
        event.set_put(force_output=True, **fields)


async def ack_in_progress(command: Any, data: Any, timeout: float, result: str) -> None:
    """Acknowledge a command as in progress; ``timeout`` (s) until the next acknowledgement."""
    answer = command.ack_in_progress(data=data, timeout=timeout, result=result)
    if inspect.isawaitable(answer):
        await answer


async def enter_fault(csc: Any, code: int, report: str) -> None:
    """Bring a CSC to FAULT."""
    answer = csc.fault(code=code, report=report)
    if inspect.isawaitable(answer):
        await answer


def csc_arguments(settings: str) -> dict[str, str]:
    """Return the constructor's argument that names the configuration to start with."""
    return {"settings_to_apply" if SALOBJ_MAJOR < 7 else "override": settings}


def settings_of(data: Any) -> str:
    """Return the configuration that a ``start`` names."""
    return str(getattr(data, "settingsToApply" if SALOBJ_MAJOR < 7 else "configurationOverride", ""))


def field(data: Any, name: str) -> str:
    """Return a field of a command, empty where the interface is too old to have it."""
    return str(getattr(data, name, "") or "").strip()


def handle_sigterm(csc: Any) -> None:
    """Close a CSC on SIGTERM; salobj 8 does that by itself."""
    if SALOBJ_MAJOR < 7:
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGTERM, lambda: asyncio.ensure_future(csc.close()))
        loop.add_signal_handler(signal.SIGINT, lambda: asyncio.ensure_future(csc.close()))
