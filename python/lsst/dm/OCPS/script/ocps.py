# SPDX-License-Identifier: GPL-3.0-or-later
"""The interface to an OCPS for observing scripts."""

from __future__ import annotations

__all__ = ["Job", "Ocps"]

import asyncio
import contextlib
import json
import logging
import time
from collections.abc import AsyncIterator, Sequence
from typing import Any, Self

from lsst.ts import salobj

from .errors import OcpsError, RefusedError, UnavailableError
from .inbox import Inbox
from .result import DryRun, JobResult

AVAILABLE_TIMEOUT = 15.0
"""How long (s) to wait for a heartbeat before an OCPS counts as not running."""

HEARTBEAT_AGE = 10.0
"""Age (s) of a heartbeat above which the next one is awaited."""

ACCEPT_TIMEOUT = 60.0
"""How long (s) OCPS may take to accept or refuse a job."""

CHECK_TIMEOUT = 330.0
"""How long (s) a dry run may take; OCPS itself stops it after 300 s."""

RUN_TIMEOUT = 3600.0
"""How long (s) a job may take if a script does not say otherwise."""

ABORT_TIMEOUT = 30.0
"""How long (s) OCPS may take to stop a job."""

ACK_GRACE = 10.0
"""How long (s) to wait for the final acknowledgement after the result."""

FIELDS = ("pipeline", "version", "config", "data_query", "prereq_jobs", "output_dataset_types")
"""Fields of ``execute``; older interfaces lack the two last ones."""

_UNDER_WAY = (salobj.SalRetCode.CMD_ACK, salobj.SalRetCode.CMD_INPROGRESS)

_log = logging.getLogger(__name__)


class Ocps:
    """An OCPS on which a script runs jobs.

    It has its own SAL remote, so that it does not interfere with other users
    of a remote. Any number of jobs can run at once:
    ``await asyncio.gather(ocps.run(…), ocps.run(…))``.

    Parameters
    ----------
    domain : `lsst.ts.salobj.Domain`
        SAL domain of the script.
    index : `int`
        SAL index of the OCPS: 1 LATISS, 2 LSSTComCam, 3 LSSTCam.

    Notes
    -----
    It is an asynchronous context manager; or call `start` and `close`.
    """

    def __init__(self, domain: Any, index: int = 1) -> None:
        self.index = index
        self.remote = salobj.Remote(
            domain, "OCPS", index=index, include=["heartbeat", "job_result", "summaryState"]
        )
        self._heartbeat = 0.0
        self._beats = asyncio.Event()
        self._inbox = Inbox()
        self._accepting = asyncio.Lock()
        self._tasks: set[asyncio.Task[Any]] = set()
        self.remote.evt_job_result.callback = self._inbox.hear
        self.remote.evt_heartbeat.callback = self._hear_heartbeat

    @classmethod
    @contextlib.asynccontextmanager
    async def connect(cls, index: int = 1) -> AsyncIterator[Self]:
        """Connect a program that has no SAL domain."""
        async with salobj.Domain() as domain, cls(domain, index) as ocps:
            yield ocps

    async def start(self) -> None:
        """Wait until the remote can read and write."""
        await self.remote.start_task

    async def close(self) -> None:
        """Close the remote; jobs continue."""
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self.remote.close()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def assert_enabled(self, timeout: float = AVAILABLE_TIMEOUT) -> None:
        """Check that OCPS is running and accepts jobs.

        Parameters
        ----------
        timeout : `float`
            How long to wait for a heartbeat (s).

        Raises
        ------
        UnavailableError
            If it is not running, or in another state than ENABLED.
        """
        if time.monotonic() - self._heartbeat > HEARTBEAT_AGE:
            self._beats.clear()
            try:
                await asyncio.wait_for(self._beats.wait(), timeout)
            except TimeoutError:
                words = f"OCPS:{self.index} is not running: not heard for {timeout:g} s"
                raise UnavailableError(words) from None
        try:
            data = await self.remote.evt_summaryState.aget(timeout=timeout)
        except TimeoutError:
            raise UnavailableError(f"OCPS:{self.index} does not say what state it is in") from None
        if data.summaryState != salobj.State.ENABLED:
            state = salobj.State(data.summaryState).name
            raise UnavailableError(f"OCPS:{self.index} is in state {state}; it takes jobs when ENABLED")

    async def submit(
        self,
        pipeline: str,
        *,
        data_query: str = "",
        config: str = "",
        version: str = "",
        prereq_jobs: Sequence[str] = (),
        output_dataset_types: Sequence[str] = (),
        timeout: float = ACCEPT_TIMEOUT,
    ) -> Job:
        """Submit a job, without waiting for its end.

        Parameters
        ----------
        pipeline : `str`
            The pipeline's address, or ``job:`` and the name of a definition.
        data_query : `str`
            Which data to process; an expression as the Butler takes it.
        config : `str`
            Options of ``pipetask run``, or parameters of a definition.
        version : `str`
            Environment of the Science Pipelines; empty for the default.
        prereq_jobs : `~collections.abc.Sequence` [`str`]
            Ids of jobs that must end first.
        output_dataset_types : `~collections.abc.Sequence` [`str`]
            Globs of what to capture; empty for the configured ones.
        timeout : `float`
            How long OCPS may take to accept it (s).

        Returns
        -------
        job : `Job`
            The accepted job.

        Raises
        ------
        UnavailableError
            If OCPS is not running or not ENABLED.
        RefusedError
            If OCPS refuses the job.
        OcpsError
            If it does not answer in time.
        """
        await self.assert_enabled()
        command = self.remote.cmd_execute
        fields = self._fields(
            pipeline=pipeline,
            version=version,
            config=config,
            data_query=data_query,
            prereq_jobs=prereq_jobs,
            output_dataset_types=output_dataset_types,
        )
        try:
            async with asyncio.timeout(timeout):
                async with self._accepting:
                    ack = await command.set_start(**fields, timeout=timeout, wait_done=False)
                # salobj 6 itself says CMD_ACK first.
                while ack.ack != salobj.SalRetCode.CMD_INPROGRESS:
                    ack = await command.next_ackcmd(ack, timeout=timeout, wait_done=False)
        except (TimeoutError, salobj.AckTimeoutError):
            raise OcpsError(f"OCPS:{self.index} did not answer execute within {timeout:g} s") from None
        except salobj.AckError as error:
            raise RefusedError(_reason(error)) from None
        return Job(self, json.loads(ack.result)["job_id"], ack)

    def _fields(self, **given: str | Sequence[str]) -> dict[str, str]:
        """Return all fields of ``execute``: a remote keeps those of the command before."""
        data = self.remote.cmd_execute.data
        given = {**dict.fromkeys(FIELDS, ""), **given}
        fields = {name: value if isinstance(value, str) else ",".join(value) for name, value in given.items()}
        return {name: value for name, value in fields.items() if value or hasattr(data, name)}

    async def check(self, pipeline: str, *, timeout: float = CHECK_TIMEOUT, **fields: Any) -> DryRun:
        """Check a job as `submit` does, and find out what it would do; nothing is run.

        For a pipeline the quantum graph is built, which can take a while.

        Parameters
        ----------
        pipeline : `str`
            The pipeline's address, or ``job:`` and the name of a definition.
        timeout : `float`
            How long it may take (s).
        **fields
            Further arguments of `submit`.

        Returns
        -------
        found : `DryRun`
            How many quanta of which tasks there would be, or which command
            line would run.

        Raises
        ------
        UnavailableError
            If OCPS is not running or not ENABLED.
        RefusedError
            If OCPS would refuse the job, or knows that it would fail.
        OcpsError
            If it does not answer in time.
        """
        await self.assert_enabled()
        try:
            async with asyncio.timeout(timeout):
                ack = await self.remote.cmd_execute.set_start(
                    **self._fields(pipeline=f"dry-run:{pipeline}", **fields), timeout=timeout
                )
        except (TimeoutError, salobj.AckTimeoutError):
            raise OcpsError(f"OCPS:{self.index} did not answer a dry run within {timeout:g} s") from None
        except salobj.AckError as error:
            raise RefusedError(_reason(error)) from None
        try:
            return DryRun.from_ack(ack.result)
        except ValueError as error:
            raise OcpsError(f"OCPS:{self.index}: {error}") from None

    async def run(self, pipeline: str, *, timeout: float = RUN_TIMEOUT, **fields: Any) -> JobResult:
        """Run a job and wait for its end, in whatever phase.

        If the script is cancelled or ``timeout`` runs out, the job is aborted.

        Parameters
        ----------
        pipeline : `str`
            The pipeline's address, or ``job:`` and the name of a definition.
        timeout : `float`
            How long the job may take, waiting included (s).
        **fields
            Further arguments of `submit`.

        Returns
        -------
        result : `JobResult`
            How it ended; see `JobResult.raise_for_failure`.

        Raises
        ------
        TimeoutError
            If time is over.
        OcpsError
            As `submit` does.
        """
        submitting: asyncio.Task[Job] = self._spawn(self.submit(pipeline, **fields))
        try:
            # A command that has been sent cannot be called back: its job is aborted once its id is known.
            job = await asyncio.shield(submitting)
            return await job.result(timeout)
        except (asyncio.CancelledError, TimeoutError):
            await asyncio.wait({self._spawn(self._abandon(submitting))}, timeout=2 * ABORT_TIMEOUT)
            raise

    async def _abandon(self, submitting: asyncio.Task[Job]) -> None:
        """Abort the job that a submission leads to, if any."""
        try:
            await (await submitting).abort()
        except OcpsError as error:
            _log.warning(f"The job of a cancelled script could not be aborted: {error}")

    async def abort(self, job_id: str) -> None:
        """Abort a job; return when none of its processes runs any more.

        Raises
        ------
        RefusedError
            If there is no such job, or it has ended already.
        OcpsError
            If OCPS does not answer in time.
        """
        try:
            await self.remote.cmd_abort_job.set_start(job_id=job_id, timeout=ABORT_TIMEOUT)
        except salobj.AckTimeoutError:
            raise OcpsError(f"OCPS:{self.index} did not stop job {job_id} in {ABORT_TIMEOUT:g} s") from None
        except salobj.AckError as error:
            raise RefusedError(_reason(error)) from None

    async def _hear_heartbeat(self, data: Any) -> None:
        self._heartbeat = time.monotonic()
        self._beats.set()

    def _spawn(self, coroutine: Any) -> asyncio.Task[Any]:
        task = asyncio.create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        # Its error is for whoever awaits it, if anybody does.
        task.add_done_callback(lambda task: task.cancelled() or task.exception())
        return task


class Job:
    """A job that OCPS has accepted.

    Parameters
    ----------
    ocps : `Ocps`
        The OCPS.
    job_id : `str`
        The job's id.
    ack : acknowledgement
        The one that told the id.
    """

    def __init__(self, ocps: Ocps, job_id: str, ack: Any) -> None:
        self.ocps = ocps
        self.id = job_id
        self.progress: dict[str, Any] = {}
        """``done``, ``failed`` and ``total`` quanta, as OCPS tells them every few minutes."""
        self._result = ocps._inbox.expect(job_id)
        self._acks = ocps._spawn(self._follow(ack))

    async def result(self, timeout: float = RUN_TIMEOUT) -> JobResult:
        """Wait for the job's end; cancelling the wait does not abort the job.

        Parameters
        ----------
        timeout : `float`
            How long to wait (s).

        Raises
        ------
        TimeoutError
            If it has not ended by then.

        Notes
        -----
        On Kafka the final acknowledgement may be heard before the result or
        after it. Only the result counts: it comes even if OCPS was restarted
        meanwhile and the command is never answered.
        """
        try:
            result = await asyncio.wait_for(asyncio.shield(self._result), timeout)
        except TimeoutError:
            raise TimeoutError(f"Job {self.id} has not ended within {timeout:g} s") from None
        await asyncio.wait({self._acks}, timeout=ACK_GRACE)
        return result

    async def abort(self) -> None:
        """Stop the job; see `Ocps.abort` for errors. A job that has ended is left as it is."""
        if not self._result.done():
            try:
                await self.ocps.abort(self.id)
            except RefusedError:
                # It may have ended at the same moment: then its result is on its way.
                await asyncio.wait({self._result}, timeout=ACK_GRACE)
                if not self._result.done():
                    raise

    async def _follow(self, ack: Any) -> None:
        """Read acknowledgements up to the final one."""
        while ack.ack in _UNDER_WAY:
            with contextlib.suppress(ValueError, TypeError):
                self.progress = {
                    name: value for name, value in json.loads(ack.result).items() if name != "job_id"
                }
            try:
                ack = await self.ocps.remote.cmd_execute.next_ackcmd(
                    ack, timeout=ack.timeout + ACCEPT_TIMEOUT, wait_done=False
                )
            except (salobj.AckError, RuntimeError):
                # Final, or OCPS is away: the result tells how the job ended.
                return


def _reason(error: salobj.AckError) -> str:
    """Return why a command failed, without salobj's prefix."""
    return str(error.ackcmd.result).removeprefix("Failed: ") or "no reason given"
