# SPDX-License-Identifier: GPL-3.0-or-later
"""Tools for integration tests: a CSC in a separate process, and a script that commands it.

The demo, the tests and the benchmarks of OCPS use them; other packages may too.
"""

from __future__ import annotations

__all__ = ["CscProcess", "Script", "private_bus"]

import asyncio
import contextlib
import json
import os
import random
import signal
import sys
import uuid
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any, Self

from lsst.ts import salobj

from .sal.compat import SALOBJ_MAJOR

START_TIMEOUT = 90.0
"""How long (s) a CSC may take to start; imports are slow on a loaded machine."""

FINAL_ACKS = frozenset(salobj.SalRetCode) - {
    salobj.SalRetCode.CMD_ACK,
    salobj.SalRetCode.CMD_INPROGRESS,
}


def private_bus(environ: dict[str, str] | os._Environ[str] = os.environ) -> None:
    """Set the variables of SAL (DDS and Kafka) so that other programs on the bus are not heard.

    Parameters
    ----------
    environ : `dict` [`str`, `str`]
        Where to set them.

    Raises
    ------
    RuntimeError
        If salobj 8 is installed and ``LSST_KAFKA_BROKER_ADDR`` does not say
        where its broker is.
    """
    if SALOBJ_MAJOR >= 7 and not os.environ.get("LSST_KAFKA_BROKER_ADDR"):
        raise RuntimeError("salobj 8 needs a broker; export LSST_KAFKA_BROKER_ADDR, such as localhost:9092")
    name = f"ocps_{uuid.uuid4().hex[:12]}"
    environ["LSST_DDS_PARTITION_PREFIX"] = name
    environ["LSST_TOPIC_SUBNAME"] = name
    environ["LSST_SITE"] = "test"
    # Also another DDS domain, so that discovery of other participants costs no time.
    environ["LSST_DDS_DOMAIN_ID"] = str(random.randint(1, 100))


class CscProcess:
    """``run_OCPS.py`` in a separate process; an asynchronous context manager.

    Parameters
    ----------
    *arguments : `str`
        Command line.
    environment : `~collections.abc.Mapping` [`str`, `str`], optional
        Environment variables beyond those of this process.
    log : `pathlib.Path` or `None`
        File for standard output and error; `None` to discard them.
    """

    def __init__(
        self, *arguments: str, environment: Mapping[str, str] | None = None, log: Path | None = None
    ) -> None:
        self.arguments = arguments
        self.environment = {**os.environ, **(environment or {})}
        self.log = log
        self.process: asyncio.subprocess.Process | None = None

    async def __aenter__(self) -> CscProcess:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    @property
    def pid(self) -> int:
        """The process id."""
        assert self.process is not None
        return self.process.pid

    async def start(self) -> None:
        """Start the process, without waiting until the CSC can be heard."""
        with open(self.log or os.devnull, "ab") as log:
            self.process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-c",
                "from lsst.dm.OCPS.sal.main import main; main()",
                *self.arguments,
                env=self.environment,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )

    async def stop(self, number: int = signal.SIGTERM, timeout: float = 30.0) -> int:
        """End the process by a signal and return its exit code; kill it after ``timeout`` (s)."""
        assert self.process is not None
        if self.process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                self.process.send_signal(number)
            try:
                await asyncio.wait_for(self.process.wait(), timeout)
            except TimeoutError:
                self.process.kill()
        return await self.process.wait()

    async def kill(self) -> None:
        """Kill the process, to simulate a crash."""
        await self.stop(signal.SIGKILL)


class Script:
    """An observing script that commands an OCPS and records all events about jobs.

    Parameters
    ----------
    remote : `lsst.ts.salobj.Remote`
        A started remote of the OCPS.

    Attributes
    ----------
    job_ids, results : `list`
        Every ``job_id`` and ``job_result`` event, in the order of arrival.
    """

    def __init__(self, remote: Any) -> None:
        self.remote = remote
        self.job_ids: list[Any] = []
        self.results: list[Any] = []
        self._news = asyncio.Condition()
        remote.evt_job_id.callback = self._heard_id
        remote.evt_job_result.callback = self._heard_result

    @classmethod
    @contextlib.asynccontextmanager
    async def connect(cls, index: int = 1, *, wait: bool = True) -> AsyncIterator[Self]:
        """Create a remote, and wait until the OCPS can be heard unless ``wait`` is `False`."""
        async with salobj.Domain() as domain:
            remote = salobj.Remote(domain, "OCPS", index=index)
            await remote.start_task
            script = cls(remote)
            if wait:
                await script.wait_for_csc()
            yield script

    async def wait_for_csc(self) -> Any:
        """Wait for the summary state of the OCPS and return it."""
        data = await self.remote.evt_summaryState.aget(timeout=START_TIMEOUT)
        return salobj.State(data.summaryState)

    async def set_state(self, state: Any, settings: str = "") -> None:
        """Bring the OCPS to a state, and wait until it has published that state.

        Parameters
        ----------
        state : `lsst.ts.salobj.State`
            The state.
        settings : `str`
            Configuration to use on the way from STANDBY to DISABLED.

        Raises
        ------
        RuntimeError
            If a command on the way is refused.
        """
        name = "settingsToApply" if SALOBJ_MAJOR < 7 else "override"
        await salobj.set_summary_state(self.remote, state, timeout=60, **{name: settings})
        # On Kafka an acknowledgement can be heard before the event that was written before it.
        async with asyncio.timeout(60):
            while self.remote.evt_summaryState.get().summaryState != state:
                await asyncio.sleep(0.01)

    async def execute(self, pipeline: str, timeout: float = 30.0, **fields: str) -> Execution:
        """Command a pipeline without waiting for its end.

        Parameters
        ----------
        pipeline : `str`
            The pipeline.
        timeout : `float`
            How long the first answers may take (s).
        **fields
            Other fields of ``execute``.

        Returns
        -------
        execution : `Execution`
            The running command.

        Raises
        ------
        lsst.ts.salobj.AckError
            If the command is refused.
        """
        command = self.remote.cmd_execute
        every_field = dict.fromkeys(
            ("version", "config", "data_query", "prereq_jobs", "output_dataset_types"), ""
        )
        command.set(pipeline=pipeline, **(every_field | fields))
        ack = await command.start(timeout=timeout, wait_done=False)
        acks = [ack]
        while ack.ack != salobj.SalRetCode.CMD_INPROGRESS:
            ack = await command.next_ackcmd(ack, timeout=timeout, wait_done=False)
            acks.append(ack)
        return Execution(self, json.loads(ack.result)["job_id"], acks)

    async def result(self, job_id: str, timeout: float = 120.0) -> Any:
        """Wait for the ``job_result`` of a job, at most ``timeout`` (s), and return it."""

        def found() -> Any:
            return next((data for data in self.results if data.job_id == job_id), None)

        async with asyncio.timeout(timeout), self._news:
            await self._news.wait_for(found)
        return found()

    async def _heard_id(self, data: Any) -> None:
        async with self._news:
            self.job_ids.append(data)
            self._news.notify_all()

    async def _heard_result(self, data: Any) -> None:
        async with self._news:
            self.results.append(data)
            self._news.notify_all()


class Execution:
    """A running ``execute``, whose acknowledgements are read as they arrive.

    A remote of salobj 6 forgets a command at its final acknowledgement, so
    that acknowledgement cannot be requested later.

    Parameters
    ----------
    script : `Script`
        The script that sent the command.
    job_id : `str`
        The job's id.
    acks : `list`
        Acknowledgements so far.
    """

    def __init__(self, script: Script, job_id: str, acks: list[Any]) -> None:
        self.script = script
        self.job_id = job_id
        self.acks = acks
        self._following = asyncio.create_task(self._follow())

    async def _follow(self) -> None:
        command = self.script.remote.cmd_execute
        while self.acks[-1].ack not in FINAL_ACKS:
            try:
                ack = await command.next_ackcmd(self.acks[-1], timeout=3600, wait_done=False)
            except salobj.AckError as error:
                ack = error.ackcmd
            self.acks.append(ack)

    async def done(self, timeout: float = 120.0) -> Any:
        """Wait for the final acknowledgement and return it, even if the command failed."""
        await asyncio.wait_for(asyncio.shield(self._following), timeout)
        return self.acks[-1]

    async def result(self, timeout: float = 120.0) -> dict[str, Any]:
        """Wait for the result; return its JSON with ``exit_code`` added."""
        data = await self.script.result(self.job_id, timeout)
        return {**json.loads(data.result), "exit_code": data.exit_code}
