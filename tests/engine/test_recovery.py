# This file is part of dm_OCPS.
#
# Developed for the Vera C. Rubin Observatory.
# License: GPL-3.0-or-later; see COPYRIGHT and LICENSE at the top of the repository.
"""kill -9 of the engine at any moment: no job is lost, none runs twice, each has its true end."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import threading
from pathlib import Path

from lsst.dm.OCPS.jobs.model import ExecutionPhase
from lsst.dm.OCPS.jobs.store import JobQuery

from tests.engine.pool import open_pool, request

ROOT = Path(__file__).resolve().parents[2]
KILLS = 20
JOBS = 60


class Run:
    """The engine as a process of its own, with what it prints."""

    def __init__(self, folder: Path) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.engine.pool", str(folder), str(JOBS)],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            cwd=ROOT,
            env=os.environ | {"PYTHONPATH": str(ROOT)},
        )
        self.opened = threading.Event()
        self.accepted: dict[str, int] = {}
        self.other: list[str] = []
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            words = line.split()
            if words == ["open"]:
                self.opened.set()
            elif len(words) == 2 and words[1].isdigit():
                self.accepted[words[0]] = int(words[1])
            else:
                self.other.append(line)
        self.opened.set()

    def end(self) -> int:
        code = self.process.wait(timeout=60)
        self._reader.join()
        return code


async def test_every_accepted_job_ends_with_its_true_exit_code(tmp_path):
    (tmp_path / "runs").mkdir()
    accepted: dict[str, int] = {}
    random.seed(3)
    for _ in range(KILLS):
        run = Run(tmp_path)
        assert run.opened.wait(60)
        try:
            run.process.wait(timeout=random.uniform(0, 0.5))
        except subprocess.TimeoutExpired:
            run.process.send_signal(signal.SIGKILL)
        run.end()
        accepted |= run.accepted
        assert not run.other, "".join(run.other)
    last = Run(tmp_path)
    assert last.end() == 0, "".join(last.other)
    accepted |= last.accepted
    manager = await open_pool(tmp_path / "work")
    jobs = {job.id: job for job in await manager.find(JobQuery())}
    await manager.close()
    # A job may have been stored and its acceptance not printed, but never the other way round.
    assert accepted.keys() <= jobs.keys()
    assert len(jobs) == JOBS
    for job_id, code in accepted.items():
        job = jobs[job_id]
        assert job.exit_code == code, job
        assert job.phase == (ExecutionPhase.ERROR if code else ExecutionPhase.COMPLETED)
        assert job.results[0].id == "ocps.log"
        assert (tmp_path / "runs" / job_id).read_text() == "run\n"


async def test_a_running_job_is_found_and_can_be_stopped(tmp_path):
    manager = await open_pool(tmp_path / "work")
    job = await manager.submit(request("echo started; sleep 60"))
    await manager._ledger.wait(job.id, 10, lambda job: job.phase == ExecutionPhase.EXECUTING)
    await manager.close()
    manager = await open_pool(tmp_path / "work")
    assert (await manager.get(job.id)).phase == ExecutionPhase.EXECUTING
    job = await manager.abort(job.id)
    assert job.exit_code == -signal.SIGTERM
    assert "started" in manager.workspaces.of(job.id).log.read_text()
    await manager.close()


async def test_a_job_whose_supervisor_is_killed_ends_as_error_of_unknown_exit_code(tmp_path):
    manager = await open_pool(tmp_path / "work")
    job = await manager.submit(request("(sleep 60 & echo $! > child; wait)"))
    workspace = manager.workspaces.of(job.id)
    await manager._ledger.wait(job.id, 10, lambda job: job.phase == ExecutionPhase.EXECUTING)
    child = workspace.output / "child"
    import asyncio

    while not (child.exists() and child.read_text().strip()):
        await asyncio.sleep(0.01)
    os.kill(workspace.read_json("supervisor.json")["pid"], signal.SIGKILL)
    job = await manager.wait_end(job.id, 10)
    assert job.phase == ExecutionPhase.ERROR
    assert job.exit_code is None
    assert "exit code unknown" in job.error.message
    await manager.close()


async def test_a_job_given_twice_runs_once(tmp_path):
    """After a crash in the middle of a submission the engine submits again."""
    manager = await open_pool(tmp_path / "work")
    job = await manager.submit(request(f"echo run >> {tmp_path}/runs; sleep 0.3"))
    await manager._ledger.wait(job.id, 10, lambda job: job.phase == ExecutionPhase.EXECUTING)
    await manager.lane.backend.submit(await manager.get(job.id))
    job = await manager.wait_end(job.id, 10)
    assert job.phase == ExecutionPhase.COMPLETED
    assert (tmp_path / "runs").read_text() == "run\n"
    await manager.close()
