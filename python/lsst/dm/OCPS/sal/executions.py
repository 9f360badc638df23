# SPDX-License-Identifier: GPL-3.0-or-later
"""Open commands ``execute``: their acknowledgements, while their jobs last and when these have ended."""

from __future__ import annotations

__all__ = ["Execution", "Executions"]

import asyncio
import contextlib
import json
import sys
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

from lsst.ts import salobj

from ..jobs.errors import UnknownJobError
from ..jobs.manager import JobManager
from ..jobs.model import Job
from . import compat as salobj_compat
from .answers import ACK_PAUSE

ACK_TIMEOUT = 600.0
"""Timeout (s) in an acknowledgement in progress: how long the remote waits for the next one."""

ACK_INTERVAL = 240.0
"""How often (s) to repeat it; a remote's queue holds only four acknowledgements."""

CLOSE_TIMEOUT = 3.0
"""How long (s) final acknowledgements may take when OCPS closes, where the bus does not accept them."""

FinalAck = Callable[["Execution", Job], Awaitable[Any]]
"""Returns the final acknowledgement of a command whose job has ended."""


class Execution:
    """What the acknowledgements of an ``execute`` need of its sample.

    salobj reads the three attributes ``private_…`` of whatever it is given to
    acknowledge. Thousands of commands may be open: hence no sample, no task
    and no future for each of them.

    Parameters
    ----------
    data : ``cmd_execute.DataType``
        The sample.
    """

    __slots__ = ("last", "private_identity", "private_origin", "private_seqNum")

    def __init__(self, data: Any) -> None:
        self.private_seqNum: int = data.private_seqNum
        # A few senders send all commands: each name is kept once.
        self.private_identity = sys.intern(data.private_identity)
        self.private_origin: int = data.private_origin
        self.last = 0.0
        """When it was acknowledged last (s, time of the event loop)."""
        self.acknowledged()

    def acknowledged(self) -> None:
        """Record that an acknowledgement is being sent now."""
        self.last = asyncio.get_running_loop().time()


class Executions:
    """The commands ``execute`` that were accepted and whose jobs have not ended, by job id.

    One task repeats the acknowledgements of all.

    Parameters
    ----------
    csc : `lsst.ts.salobj.BaseCsc`
        The CSC that got the commands.
    final_ack : `~collections.abc.Callable`
        Returns the final acknowledgement of a command whose job has ended.
    """

    def __init__(self, csc: Any, final_ack: FinalAck) -> None:
        self._csc = csc
        self._final_ack = final_ack
        self._open: dict[str, Execution] = {}
        self._renewal: asyncio.Task[None] | None = None
        self._finishing: set[asyncio.Task[None]] = set()

    def __len__(self) -> int:
        return len(self._open)

    async def begin(self, manager: JobManager, job_id: str, data: Any) -> Any:
        """Follow a command until `finish` or `fail_all`; return its acknowledgement as in progress.

        The caller sends that; all later ones are sent from here.
        """
        text = await _progress(manager, job_id)
        self._open[job_id] = Execution(data)
        if self._renewal is None or self._renewal.done():
            self._renewal = asyncio.create_task(self._renew(manager))
        kind = salobj.SalRetCode.CMD_INPROGRESS
        return salobj_compat.make_ackcmd(self._csc, data, kind, 0, text, ACK_TIMEOUT)

    def acknowledged(self, job_id: str) -> None:
        """Record that the acknowledgement that `begin` returned has been sent."""
        if execution := self._open.get(job_id):
            execution.acknowledged()

    def finish(self, job: Job) -> None:
        """Send the final acknowledgement of the command, if it is open, whose job has ended."""
        if execution := self._open.pop(job.id, None):
            self._spawn(self._finish(execution, job))

    async def fail_all(self, words: Callable[[str], str]) -> None:
        """Fail all open commands; send their final acknowledgements for at most `CLOSE_TIMEOUT`.

        Parameters
        ----------
        words : `~collections.abc.Callable`
            Returns the reason for a job id.
        """
        if self._renewal:
            self._renewal.cancel()
            self._renewal = None
        while self._open:
            job_id, execution = self._open.popitem()
            self._spawn(self._send(execution, self._failure(execution, words(job_id))))
        if self._finishing:
            await asyncio.wait(self._finishing, timeout=CLOSE_TIMEOUT)

    async def _finish(self, execution: Execution, job: Job) -> None:
        try:
            ackcmd = await self._final_ack(execution, job)
        except Exception as error:
            if not isinstance(error, salobj.ExpectedError):
                self._csc.log.exception(f"Job {job.id}: its end could not be handled")
            ackcmd = self._failure(execution, str(error))
        await self._send(execution, ackcmd)

    def _failure(self, execution: Execution, words: str) -> Any:
        kind = salobj.SalRetCode.CMD_FAILED
        return salobj_compat.make_ackcmd(self._csc, execution, kind, 1, f"Failed: {words}")

    async def _send(self, execution: Execution, ackcmd: Any) -> None:
        """Send a final acknowledgement, not too soon after the one before."""
        await asyncio.sleep(max(0.0, execution.last + ACK_PAUSE - asyncio.get_running_loop().time()))
        await salobj_compat.send_ack(self._csc.cmd_execute, execution, ackcmd)

    async def _renew(self, manager: JobManager) -> None:
        """Repeat the acknowledgement of each open command about every `ACK_INTERVAL`."""
        loop = asyncio.get_running_loop()
        while self._open:
            await asyncio.sleep(ACK_INTERVAL / 4)
            for job_id, execution in list(self._open.items()):
                if loop.time() - execution.last > ACK_INTERVAL * 0.7:
                    await self._acknowledge(manager, job_id, execution)
                    # Other tasks, such as the heartbeat, do not wait for thousands of these.
                    await asyncio.sleep(0)

    async def _acknowledge(self, manager: JobManager, job_id: str, execution: Execution) -> None:
        """Send an acknowledgement in progress, unless the command has been finished."""
        try:
            text = await _progress(manager, job_id)
            if job_id in self._open:
                await salobj_compat.ack_in_progress(self._csc.cmd_execute, execution, ACK_TIMEOUT, text)
        except Exception:
            self._csc.log.exception(f"Job {job_id}: its command could not be acknowledged")
        execution.acknowledged()

    def _spawn(self, coroutine: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(coroutine)
        self._finishing.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._finishing.discard(task)
        if not task.cancelled() and (error := task.exception()):
            self._csc.log.error("A command could not be acknowledged", exc_info=error)


async def _progress(manager: JobManager, job_id: str) -> str:
    """Return what an acknowledgement in progress says: JSON with the job's id and progress."""
    answer: dict[str, Any] = {"job_id": job_id}
    with contextlib.suppress(UnknownJobError):
        progress = (await manager.get(job_id)).progress
        if progress.total:
            answer |= {"done": progress.done, "failed": progress.failed, "total": progress.total}
    return json.dumps(answer)
