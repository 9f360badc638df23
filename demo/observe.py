# SPDX-License-Identifier: GPL-3.0-or-later

"""The demo: an observing script commands real pipelines over SAL.

Makes a Butler with DemoCam data, starts OCPS as a process of its own, and
plays the script. Everything it makes is below ``.demo``.
"""

from __future__ import annotations

import asyncio
import os
import sys
import time
from pathlib import Path
from typing import Any

from lsst.dm.OCPS.backends.local.pipetask_progress import ProgressReader
from lsst.dm.OCPS.cli.table import jobs_table
from lsst.dm.OCPS.client import Client, ClientError
from lsst.dm.OCPS.script import Job, JobResult, Ocps, OcpsError
from lsst.dm.OCPS.testing import CscProcess, Script
from lsst.ts import salobj
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from setting import FOLDER, ROOT, observations, prepare

PIPELINES = "$DEMOCAM_DIR/pipelines"
REGISTER = "--register-dataset-types"
TIMEOUT = 300.0
"""How long (s) the whole demo may take."""

EXPECTED = {
    "bias": "completed",
    "focusSweep": "completed",
    "broken": "error",
    "aborted": "aborted",
    "survived": "completed",
}

console = Console(highlight=False, soft_wrap=True)


async def show_over_http() -> None:
    """Show the same jobs as any client over HTTP sees them, and as ``ocps list`` and ``ocps watch`` do."""
    url = os.environ["OCPS_URL"]
    async with Client(url) as client:
        jobs = await client.jobs()
    console.print(f"The same jobs over HTTP, as ocps list --url {url} shows them:", markup=False)
    console.print(jobs_table(jobs), soft_wrap=False)


def workspace_output(job_id: str) -> Path:
    """Return where a job's log and outputs are."""
    return FOLDER / "work" / "jobs" / job_id / "output"


class Board:
    """A bar for each job, read from the log in its workspace."""

    def __init__(self) -> None:
        self._progress = Progress(
            TextColumn("  {task.description:<12}"),
            BarColumn(bar_width=30),
            MofNCompleteColumn(),
            TextColumn("quanta"),
            TimeElapsedColumn(),
            TextColumn("{task.fields[state]}"),
            console=console,
        )
        self._bars: dict[str, tuple[Any, ProgressReader]] = {}

    def add(self, name: str, job_id: str) -> None:
        """Show a job."""
        bar = self._progress.add_task(name, total=None, state="")
        self._bars[job_id] = bar, ProgressReader(workspace_output(job_id) / "ocps.log")

    def finish(self, job_id: str, state: str) -> None:
        """Show how a job has ended."""
        bar, _ = self._bars[job_id]
        self._read(job_id)
        self._progress.update(bar, state=state)
        self._progress.stop_task(bar)

    async def __aenter__(self) -> Board:
        self._progress.start()
        self._reading = asyncio.create_task(self._read_all())
        return self

    async def __aexit__(self, *_: object) -> None:
        self._reading.cancel()
        self._progress.stop()

    async def _read_all(self) -> None:
        while True:
            for job_id in list(self._bars):
                self._read(job_id)
            await asyncio.sleep(0.2)

    def _read(self, job_id: str) -> None:
        bar, reader = self._bars[job_id]
        if seen := reader.read():
            self._progress.update(bar, total=seen.total or None, completed=seen.done + seen.failed)


class Play:
    """The observing script.

    Parameters
    ----------
    ocps : `Ocps`
        Its connection to OCPS.
    board : `Board`
        Shows its jobs.
    """

    def __init__(self, ocps: Ocps, board: Board) -> None:
        self.ocps = ocps
        self.board = board
        self.phases: dict[str, str] = {}

    async def submit(self, name: str, pipeline: str, **fields: Any) -> Job:
        """Command a pipeline and show what comes back at once."""
        started = time.monotonic()
        job = await self.ocps.submit(f"{PIPELINES}/{pipeline}.yaml", **fields)
        console.print(
            f"execute {pipeline}.yaml: accepted after {time.monotonic() - started:.3f} s, job {job.id}"
        )
        self.board.add(name, job.id)
        return job

    async def end(self, name: str, job: Job) -> JobResult:
        """Wait for a job's end and show its result."""
        result = await job.result(TIMEOUT)
        self.phases[name] = result.phase
        self.board.finish(job.id, result.phase)
        console.print(f"[bold]{name}[/]: {result.phase}, exit_code {result.exit_code}")
        for line in result.message.splitlines():
            console.print(f"    {line}", markup=False)
        for output in result.outputs:
            if output.path.suffix in (".png", ".log"):
                console.print(f"    {output.path.relative_to(ROOT)}", markup=False)
        return result

    async def survive(self, csc: CscProcess, operator: Script) -> None:
        """Kill OCPS with a job running; the job goes on and its result comes."""
        options = f"{REGISTER} -c slow:duration=0.5"
        job = await self.submit("survived", "slow", data_query=observations("bias"), config=options)
        log = workspace_output(job.id) / "ocps.log"
        while not (log.exists() and "Preparing execution" in log.read_text()):
            await asyncio.sleep(0.1)
        await csc.kill()
        console.print("OCPS was killed (SIGKILL) with this job running; starting it again")
        state = operator.remote.evt_summaryState
        state.flush()
        await csc.start()
        while (await state.next(flush=False, timeout=90)).summaryState != salobj.State.STANDBY:
            pass
        await operator.set_state(salobj.State.ENABLED, "demo.yaml")
        await self.end("survived", job)


def show_best_focus(result: JobResult) -> None:
    """Print the best focus that the script reads from the result."""
    values = result.metric("focusSweepMetrics")
    console.print(
        f"    best focus read from the result: {values['best_focus']:.4f} ± {values['best_focus_err']:.4f} mm"
    )


async def play() -> dict[str, str]:
    """Play the script; return the phase that each job came to."""
    log = FOLDER / "csc.log"
    async with CscProcess("1", log=log) as csc, Script.connect() as operator:
        console.print("OCPS runs as process", csc.pid, "and is in STANDBY; start with demo.yaml, enable")
        await operator.set_state(salobj.State.ENABLED, "demo.yaml")
        async with Ocps.connect() as ocps, Board() as board:
            stage = Play(ocps, board)
            bias = await stage.submit("bias", "bias", data_query=observations("bias"), config=REGISTER)
            focus = await stage.submit(
                "focusSweep",
                "focusSweep",
                data_query=observations("focus"),
                config=REGISTER,
                prereq_jobs=[bias.id],
            )
            broken = await stage.submit("broken", "broken", data_query=observations("bias"), config=REGISTER)
            await stage.end("bias", bias)
            slow = await stage.submit(
                "aborted", "slow", data_query=observations("bias"), config=f"{REGISTER} -c slow:duration=60"
            )
            await stage.end("broken", broken)
            show_best_focus(await stage.end("focusSweep", focus))
            await slow.abort()
            await stage.end("aborted", slow)
            await stage.survive(csc, operator)
        await show_over_http()
        return stage.phases


def main() -> int:
    """Run the demo; return the exit code."""
    started = time.monotonic()
    try:
        prepare()
        console.print(f"A Butler with DemoCam raws is in {FOLDER / 'repo'}")
        phases = asyncio.run(asyncio.wait_for(play(), TIMEOUT))
    except (TimeoutError, salobj.AckError, OcpsError, ClientError, OSError, ValueError) as error:
        reason = getattr(getattr(error, "ackcmd", None), "result", "") or str(error) or type(error).__name__
        console.print(f"demo: failed: {reason}; what OCPS said is in {FOLDER / 'csc.log'}", markup=False)
        return 1
    words = " ".join(f"{name}={phases.get(name, 'missing')}" for name in EXPECTED)
    verdict = "ok" if phases == EXPECTED else "failed"
    print(f"demo: {verdict} {words} {time.monotonic() - started:.0f} s")
    return 0 if phases == EXPECTED else 1


if __name__ == "__main__":
    sys.exit(main())
