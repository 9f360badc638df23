# SPDX-License-Identifier: GPL-3.0-or-later
"""kill -9 of the engine at any moment: no job is lost, none runs twice, each has its true end."""

from __future__ import annotations

import asyncio
import logging
import os
import random
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import yaml
from lsst.dm.OCPS.config import InstanceConfig
from lsst.dm.OCPS.factory import end_jobs, make_manager
from lsst.dm.OCPS.jobs.errors import StoreError
from lsst.dm.OCPS.jobs.model import ExecutionPhase, JobRequest
from lsst.dm.OCPS.jobs.store import JobQuery, JobStore

from tests.engine.pool import gone, open_pool, request

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
            if not line.endswith("\n"):
                # Killed while it was printing.
                continue
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
        # Every third one is killed while it starts or takes up what is there.
        if random.random() < 2 / 3:
            assert run.opened.wait(60)
            delay = random.uniform(0, 0.5)
        else:
            delay = random.uniform(0.3, 1.5)
        try:
            run.process.wait(timeout=delay)
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
    while not (child.exists() and child.read_text().strip()):
        await asyncio.sleep(0.01)
    os.kill(workspace.read_json("supervisor.json")["pid"], signal.SIGKILL)
    job = await manager.wait_end(job.id, 10)
    async with asyncio.timeout(5):
        while not gone(int(child.read_text())):
            await asyncio.sleep(0.01)
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


def write_definitions(path: Path) -> None:
    nap = {"name": "nap", "kind": "command", "argv": ["sleep", "0.2"]}
    path.write_text(yaml.safe_dump({"definitions": [nap]}))


async def test_files_go_at_the_destruction_time_in_an_engine_as_it_is_run(tmp_path):
    write_definitions(tmp_path / "nap.yaml")
    config = InstanceConfig(
        sal_index=1, work_dir=str(tmp_path / "work"), definitions=(str(tmp_path / "nap.yaml"),), retention=1
    )
    manager = await make_manager(config, logging.getLogger("engine"))
    job = await manager.submit(JobRequest("nap"))
    async with manager.subscribe(lambda found: found.phase == ExecutionPhase.ARCHIVED) as changes:
        async with asyncio.timeout(10):
            async for _ in changes:
                break
    while manager.workspaces.of(job.id).root.exists():
        await asyncio.sleep(0.01)
    assert (await manager.get(job.id)).final_phase == ExecutionPhase.COMPLETED
    await manager.close()


async def test_a_former_configuration_that_is_gone_ends_its_jobs_and_nothing_else(tmp_path):
    write_definitions(tmp_path / "nap.yaml")
    former = InstanceConfig(
        sal_index=1,
        work_dir=str(tmp_path / "work"),
        definitions=(str(tmp_path / "nap.yaml"),),
        max_workers=1,
    )
    manager = await make_manager(former, logging.getLogger("engine"))
    jobs = [await manager.submit(JobRequest("nap")) for _ in range(3)]
    await manager.close()
    (tmp_path / "nap.yaml").unlink()
    present = InstanceConfig(sal_index=1, work_dir=str(tmp_path / "work"), definitions=("sleep",))
    manager = await make_manager(present, logging.getLogger("engine"))
    for job in jobs:
        ended = await manager.wait_end(job.id, 10)
        assert ended.phase == ExecutionPhase.ERROR
        assert "its backend cannot be used any more" in ended.error.message
    job = await manager.submit(JobRequest("sleep", {"duration": "0"}))
    assert (await manager.wait_end(job.id, 10)).phase == ExecutionPhase.COMPLETED
    await manager.close()


async def test_an_engine_that_cannot_be_opened_gives_the_work_directory_back(tmp_path, monkeypatch):
    config = InstanceConfig(sal_index=1, work_dir=str(tmp_path / "work"))

    async def full(self, name, value):
        raise StoreError("disk full")

    with monkeypatch.context() as patch:
        patch.setattr(JobStore, "remember", full)
        with pytest.raises(StoreError, match="disk full"):
            await make_manager(config, logging.getLogger("engine"))
    manager = await make_manager(config, logging.getLogger("engine"))
    await manager.close()


@pytest.mark.parametrize(("on_exit", "phase"), [("wait", "COMPLETED"), ("abort", "ABORTED"), ("leave", None)])
async def test_what_becomes_of_jobs_when_the_engine_ends(tmp_path, on_exit, phase):
    manager = await open_pool(tmp_path / "work")
    job = await manager.submit(request("sleep 1"))
    await manager._ledger.wait(job.id, 10, lambda job: job.phase == ExecutionPhase.EXECUTING)
    # Jobs that nobody will ever run must hold nothing up.
    await manager.create(request("exit 0"))
    async with asyncio.timeout(10):
        await end_jobs(manager, on_exit)
    job = await manager.get(job.id)
    assert job.phase == (phase or "EXECUTING")
    await manager.close()
