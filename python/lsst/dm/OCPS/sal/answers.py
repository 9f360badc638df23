# SPDX-License-Identifier: GPL-3.0-or-later
"""Acknowledgement of commands: in time, with a reason if refused, and paced for salobj 6."""

from __future__ import annotations

__all__ = ["ConfigValidator", "OpenCommand", "acknowledged_work", "offline", "refusals"]

import asyncio
import contextlib
from collections.abc import Coroutine, Iterator
from types import TracebackType
from typing import Any, Self, TypeVar

from lsst.ts import salobj

from ..config import ConfigError, validate
from ..jobs.errors import JobError, RequestError
from . import compat as salobj_compat
from .request import FIELD_NAMES

T = TypeVar("T")

ACK_PAUSE = 0.25
"""Least time (s) between a final acknowledgement and the one before it.

A remote of salobj 6 forgets a command at its final acknowledgement; a script
that requests the next one a moment later would get an error.
"""

START_PATIENCE = 0.5
"""How long (s) ``start`` and ``enable`` may take before they are acknowledged as in progress."""

START_ACK_TIMEOUT = 60.0
"""Timeout (s) in such an acknowledgement; it is repeated before that."""


class ConfigValidator:
    """Validates a configuration in place of salobj, whose messages have many lines."""

    def validate(self, document: Any) -> dict[str, Any]:
        """Return the document; raise `ConfigError` if it is not valid."""
        if document:
            validate(document)
        return dict(document or {})


class OpenCommand:
    """An asynchronous context in which a command is answered.

    Refusals are put into words, and the final acknowledgement is kept away
    from the one before it.

    Parameters
    ----------
    others : `set` [`asyncio.Task`]
        The tasks of all commands that are being answered; the current task is
        among them until it ends, which is when salobj has sent the answer.
    """

    def __init__(self, others: set[asyncio.Task[Any]]) -> None:
        self._others = others
        task = asyncio.current_task()
        assert task is not None
        self.task = task
        # salobj 6 has just sent CMD_ACK by itself; salobj 8 sends none.
        sent = salobj_compat.SALOBJ_MAJOR < 7
        self._next = asyncio.get_running_loop().time() + ACK_PAUSE if sent else 0.0

    def acknowledged(self) -> None:
        """Start the pause now, because an acknowledgement was sent."""
        self._next = asyncio.get_running_loop().time() + ACK_PAUSE

    def in_progress(self) -> None:
        """Let the answer be sent at once, because it is not the final acknowledgement."""
        self._next = 0.0

    async def __aenter__(self) -> Self:
        self._others.add(self.task)
        self.task.add_done_callback(self._others.discard)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await asyncio.sleep(max(0.0, self._next - asyncio.get_running_loop().time()))
        if error is not None:
            with refusals():
                raise error


async def acknowledged_work(command: Any, data: Any, work: Coroutine[Any, Any, T]) -> T:
    """Do the work of a command, and acknowledge it as in progress if that takes long; return its result.

    Parameters
    ----------
    command : ``lsst.ts.salobj.topics.ControllerCommand``
        The command.
    data : ``command.DataType``
        The sample; its number is 0 if nobody sent it, as at the start of the
        program.
    work : `~collections.abc.Coroutine`
        The work; cancelled with the command.
    """
    task = asyncio.ensure_future(work)
    try:
        while not (await asyncio.wait({task}, timeout=START_PATIENCE))[0]:
            if data.private_seqNum:
                await salobj_compat.ack_in_progress(command, data, START_ACK_TIMEOUT, "checking")
            await asyncio.wait({task}, timeout=START_ACK_TIMEOUT / 2)
        return task.result()
    finally:
        task.cancel()


@contextlib.contextmanager
def refusals() -> Iterator[None]:
    """Turn errors of the engine and of the configuration into a refused command."""
    try:
        yield
    except RequestError as error:
        raise salobj.ExpectedError(" ".join(str(error.renamed(FIELD_NAMES)).split())) from None
    except (JobError, ConfigError) as error:
        raise salobj.ExpectedError(" ".join(str(error).split())) from None


def offline(job_id: str, *, simulated: bool) -> str:
    """Return the answer to a command whose job has not ended when OCPS ends."""
    ending = "is not simulated any further" if simulated else "continues"
    return f"OCPS going offline; job {job_id} {ending}"
