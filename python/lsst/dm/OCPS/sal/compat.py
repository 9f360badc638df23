# SPDX-License-Identifier: GPL-3.0-or-later
"""Every difference between salobj 6 (DDS) and salobj 8 (Kafka), and nothing else."""

from __future__ import annotations

__all__ = [
    "SALOBJ_MAJOR",
    "ack_in_progress",
    "check_environment",
    "csc_arguments",
    "enter_fault",
    "field",
    "leave_process",
    "make_ackcmd",
    "make_acks_atomic",
    "make_csc",
    "put",
    "run_csc",
    "send_ack",
    "settings_field",
    "settings_of",
]

import asyncio
import functools
import inspect
import logging
import os
import signal
import sys
import threading
import weakref
from collections.abc import Callable
from typing import Any

from lsst.ts import salobj

from ..config import ConfigError

SALOBJ_MAJOR = int(salobj.__version__.split(".")[0]) if salobj.__version__[:1].isdigit() else 8
"""Major version of salobj; an unreleased one counts as the newer interface."""


CLOSE_TIMEOUT = 30.0
"""How long (s) a CSC of salobj 8 may take to close after a signal."""


def make_acks_atomic(csc: Any) -> None:
    """Write the acknowledgements of a CSC one at a time.

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


_write_locks: weakref.WeakKeyDictionary[Any, asyncio.Lock] = weakref.WeakKeyDictionary()
"""A lock for each event of salobj 8 that was written."""


async def put(event: Any, **fields: Any) -> None:
    """Write an event, even if it has not changed.

    Notes
    -----
    salobj 8 stamps an event at the call and then writes it in one of many
    threads. Of two writes of the same event the later one could be sent
    first, and remotes would ignore the other as too old. So each event is
    written once at a time.
    """
    if hasattr(event, "set_write"):
        async with _write_locks.setdefault(event, asyncio.Lock()):
            await event.set_write(force_output=True, **fields)
    else:
        event.set_put(force_output=True, **fields)


async def ack_in_progress(command: Any, data: Any, timeout: float, result: str) -> None:
    """Acknowledge a command as in progress; the next acknowledgement follows within ``timeout`` (s)."""
    answer = command.ack_in_progress(data=data, timeout=timeout, result=result)
    if inspect.isawaitable(answer):
        await answer


def make_ackcmd(csc: Any, data: Any, ack: Any, error: int, result: str, timeout: float = 0) -> Any:
    """Return an acknowledgement of a command; salobj 6 limits the length of ``result``."""
    limited = {"truncate_result": True} if SALOBJ_MAJOR < 7 else {}
    return csc.salinfo.make_ackcmd(
        private_seqNum=data.private_seqNum, ack=ack, error=error, result=result, timeout=timeout, **limited
    )


async def send_ack(command: Any, data: Any, ackcmd: Any) -> None:
    """Send an acknowledgement that `make_ackcmd` returned."""
    answer = command.ack(data, ackcmd)
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


def settings_field() -> str:
    """Return the name of the field of ``start`` that names a configuration."""
    return "settingsToApply" if SALOBJ_MAJOR < 7 else "configurationOverride"


def settings_of(data: Any) -> str:
    """Return the configuration that a ``start`` names."""
    return str(getattr(data, settings_field(), ""))


def field(data: Any, name: str) -> str:
    """Return a field of a command, empty where the interface is too old to have it."""
    return str(getattr(data, name, "") or "").strip()


def check_environment() -> None:
    """Check the environment variables without which salobj does not start.

    Raises
    ------
    ConfigError
        If one is not set, or is empty.
    """
    if SALOBJ_MAJOR < 7:
        needed = {"LSST_DDS_PARTITION_PREFIX": "your SAL partition"}
    else:
        needed = {"LSST_TOPIC_SUBNAME": "your set of SAL topics", "LSST_SITE": "your site"}
    for name, what in needed.items():
        if not os.environ.get(name, "").strip():
            raise ConfigError(f"{name} is not set or empty; export the name of {what}, such as test")


def make_csc(csc_class: Any, index: Any) -> Any:
    """Return the CSC that the command line describes.

    As salobj 8's own main function does, a CSC there refuses to run beside
    another one with the same index.
    """
    checks = {} if SALOBJ_MAJOR < 7 else {"check_if_duplicate": True}
    return csc_class.make_from_cmd_line(index=index, **checks)


async def run_csc(csc: Any) -> None:
    """Wait until a CSC has ended, by command or by SIGTERM or SIGINT, and close it.

    salobj 6 does not handle these signals. salobj 8 sets ``done_task`` on
    them; its tasks end and its open commands are answered only when it is
    closed. Its own handler prints to standard output, and fails if a signal
    comes twice.
    """

    def end() -> None:
        if SALOBJ_MAJOR < 7:
            asyncio.ensure_future(csc.close())
        elif not csc.done_task.done():
            csc.done_task.set_result(None)

    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, end)
    await csc.done_task
    if SALOBJ_MAJOR >= 7:
        try:
            await asyncio.wait_for(csc.close(), CLOSE_TIMEOUT)
        except TimeoutError:
            csc.log.error(f"OCPS could not leave the bus within {CLOSE_TIMEOUT:g} s")


def leave_process(code: int) -> None:
    """End this process without waiting for threads of salobj 8.

    These can wait without bound for a broker that does not answer, and Python
    would wait for them.
    """
    if SALOBJ_MAJOR >= 7:
        logging.shutdown()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
