# SPDX-License-Identifier: GPL-3.0-or-later
"""kill -9 of the engine at any moment: no job is lost, none runs twice, each has its true end."""

from __future__ import annotations

import asyncio
import json
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
from lsst.dm.OCPS.factory import make_manager
from lsst.dm.OCPS.jobs.ending import end_jobs
from lsst.dm.OCPS.jobs.errors import StoreError, TransitionError
from lsst.dm.OCPS.jobs.model import ExecutionPhase, Job, JobRequest
from lsst.dm.OCPS.jobs.store import JobQuery, JobStore

from tests.backends.local.shell_pool import AGAIN, gone, open_pool, request
from tests.gates import Gate, gated_definition
from tests.waiting import TIMEOUT, until, until_job

ROOT = Path(__file__).resolve().parents[2]
KILLS = 20
JOBS = 60


class Run:
    """The engine as a process of its own, with what it prints."""

    def __init__(self, folder: Path) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.backends.local.shell_pool", str(folder), str(JOBS)],
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
        code = self.process.wait(timeout=TIMEOUT)
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
            assert run.opened.wait(TIMEOUT)
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
        # Each attempt ran once.
        assert (tmp_path / "runs" / job_id).read_text() == "run\n" * job.attempt
        assert [attempt.exit_code for attempt in job.attempts] == [AGAIN] * (job.attempt - 1)
    assert {jobs[job_id].attempt for job_id in accepted} == {1, 2}


def executing(job: Job) -> bool:
    return job.phase == ExecutionPhase.EXECUTING


async def test_a_running_job_is_found_and_can_be_stopped(tmp_path):
    manager = await open_pool(tmp_path / "work")
    job = await manager.submit(request("echo started; sleep 3600"))
    log = manager.workspaces.of(job.id).log
    await until(lambda: log.exists() and log.read_text())
    await until_job(manager, job.id, executing)
    await manager.close()
    manager = await open_pool(tmp_path / "work")
    assert (await manager.get(job.id)).phase == ExecutionPhase.EXECUTING
    job = await manager.abort(job.id)
    assert job.exit_code == -signal.SIGTERM
    assert "started" in manager.workspaces.of(job.id).log.read_text()
    await manager.close()


async def test_a_job_whose_supervisor_is_killed_ends_as_error_of_unknown_exit_code(tmp_path, monkeypatch):
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    manager = await open_pool(tmp_path / "work")
    # Named as those that a Butler makes for its cached files.
    cache = "mkdir $TMPDIR/butler-cache-dir-$$-x"
    other = tmp_path / "butler-cache-dir-1-x"
    other.mkdir()
    job = await manager.submit(request(f"{cache}; (sleep 3600 & echo $! > child; wait)"))
    workspace = manager.workspaces.of(job.id)
    await until_job(manager, job.id, executing)
    child = workspace.output / "child"
    await until(lambda: child.exists() and child.read_text().strip())
    os.kill(workspace.read_json("supervisor.json")["pid"], signal.SIGKILL)
    job = await manager.wait(job.id, TIMEOUT)
    await until(lambda: gone(int(child.read_text())))
    assert job.phase == ExecutionPhase.ERROR
    assert job.exit_code is None
    assert "exit code unknown" in job.error.message
    assert list(tmp_path.glob("butler-cache-dir-*")) == [other]
    await manager.close()


async def test_a_job_that_fails_by_itself_just_before_it_is_stopped_keeps_its_own_end(tmp_path):
    manager = await open_pool(tmp_path / "work", {"abort_grace": TIMEOUT})
    gate = tmp_path / "gate"
    script = f"echo $$ > child; while [ ! -e {gate} ]; do sleep 0.05; done; exit 7"
    job = await manager.submit(request(script))
    workspace = manager.workspaces.of(job.id)
    await until_job(manager, job.id, executing)
    child = workspace.output / "child"
    await until(lambda: child.exists() and child.read_text().strip())
    supervisor = workspace.read_json("supervisor.json")["pid"]
    # The supervisor sees the end of its job and the wish to stop it at the same time.
    os.kill(supervisor, signal.SIGSTOP)
    gate.touch()
    await until(lambda: gone(int(child.read_text())))
    aborting = asyncio.create_task(manager.abort(job.id))
    await until_job(manager, job.id, lambda job: bool(job.abort_reason))
    await until(lambda: not _is_pending_free(supervisor))
    os.kill(supervisor, signal.SIGCONT)
    with pytest.raises(TransitionError, match="already error"):
        await aborting
    job = await manager.get(job.id)
    assert (job.phase, job.exit_code) == (ExecutionPhase.ERROR, 7)
    await manager.close()


def _is_pending_free(pid: int) -> bool:
    """Return whether SIGTERM is not waiting for a stopped process."""
    status = Path(f"/proc/{pid}/status").read_text()
    pending = next(line for line in status.splitlines() if line.startswith("ShdPnd:")).split()[1]
    return not int(pending, 16) & 1 << (signal.SIGTERM - 1)


async def test_an_abort_that_meets_two_crashes_ends_as_aborted(tmp_path):
    manager = await open_pool(tmp_path / "work", {"abort_grace": TIMEOUT})
    job = await manager.submit(request("sleep 3600"))
    await until_job(manager, job.id, executing)
    supervisor = manager.workspaces.of(job.id).read_json("supervisor.json")["pid"]
    os.kill(supervisor, signal.SIGSTOP)
    aborting = asyncio.create_task(manager.abort(job.id, "enough"))
    await until_job(manager, job.id, lambda job: bool(job.abort_reason))
    aborting.cancel()
    await manager.close()
    os.kill(supervisor, signal.SIGKILL)
    manager = await open_pool(tmp_path / "work", {"abort_grace": TIMEOUT})
    job = await manager.wait(job.id, TIMEOUT)
    assert (job.phase, job.message, job.exit_code) == (ExecutionPhase.ABORTED, "enough", None)
    await manager.close()


async def test_a_job_given_twice_runs_once(tmp_path):
    """After a crash in the middle of a submission the engine submits again."""
    manager = await open_pool(tmp_path / "work")
    gate = Gate(tmp_path / "gate")
    job = await manager.submit(request(f"echo run >> {tmp_path}/runs; {gate.script}"))
    await until_job(manager, job.id, executing)
    await manager.lane.backend.submit(await manager.get(job.id))
    gate.open()
    job = await manager.wait(job.id, TIMEOUT)
    assert job.phase == ExecutionPhase.COMPLETED
    assert (tmp_path / "runs").read_text() == "run\n"
    await manager.close()


def write_definitions(path: Path) -> None:
    path.write_text(yaml.safe_dump({"definitions": [gated_definition()]}))


async def test_files_go_at_the_destruction_time_in_an_engine_as_it_is_run(tmp_path):
    write_definitions(tmp_path / "gated.yaml")
    config = InstanceConfig(
        sal_index=1, work_dir=str(tmp_path / "work"), definitions=(str(tmp_path / "gated.yaml"),), retention=1
    )
    manager = await make_manager(config, logging.getLogger("engine"))
    gate = Gate(tmp_path / "gate")
    gate.open()
    job = await manager.submit(JobRequest("gated", {"gate": str(gate.path)}))
    await until_job(manager, job.id, lambda job: job.phase == ExecutionPhase.ARCHIVED)
    await until(lambda: not manager.workspaces.of(job.id).root.exists())
    assert (await manager.get(job.id)).final_phase == ExecutionPhase.COMPLETED
    await manager.close()


async def test_a_former_configuration_that_is_gone_ends_its_jobs_and_nothing_else(tmp_path):
    write_definitions(tmp_path / "gated.yaml")
    former = InstanceConfig(
        sal_index=1,
        work_dir=str(tmp_path / "work"),
        definitions=(str(tmp_path / "gated.yaml"),),
        max_workers=1,
    )
    manager = await make_manager(former, logging.getLogger("engine"))
    gate = Gate(tmp_path / "gate")
    jobs = [await manager.submit(JobRequest("gated", {"gate": str(gate.path)})) for _ in range(3)]
    await manager.close()
    (tmp_path / "gated.yaml").unlink()
    present = InstanceConfig(sal_index=1, work_dir=str(tmp_path / "work"), definitions=("sleep",))
    manager = await make_manager(present, logging.getLogger("engine"))
    for job in jobs:
        ended = await manager.wait(job.id, TIMEOUT)
        assert ended.phase == ExecutionPhase.ERROR
        assert "its backend cannot be used any more" in ended.error.message
    gate.open()
    job = await manager.submit(JobRequest("sleep", {"duration": "0"}))
    assert (await manager.wait(job.id, TIMEOUT)).phase == ExecutionPhase.COMPLETED
    await manager.close()


async def test_a_setting_that_no_longer_exists_does_not_end_the_jobs_of_a_former_configuration(tmp_path):
    former = InstanceConfig(sal_index=1, work_dir=str(tmp_path / "work"), definitions=("sleep",))
    manager = await make_manager(former, logging.getLogger("engine"))
    first = await manager.submit(JobRequest("sleep", {"duration": "0"}), run=False)
    job = await manager.submit(JobRequest("sleep", {"duration": "0"}, prerequisites=(first.id,)))
    stored = json.loads(await manager.store.recall(f"backend {former.key()}"))
    stored |= {"removed": 1, "http": {"removed": 2}}
    await manager.store.remember(f"backend {former.key()}", json.dumps(stored))
    await manager.close()
    present = former.model_copy(update={"max_workers": 1})
    manager = await make_manager(present, logging.getLogger("engine"))
    await manager.run(first.id)
    assert (await manager.wait(job.id, TIMEOUT)).phase == ExecutionPhase.COMPLETED
    await manager.close()


async def test_an_engine_that_cannot_be_opened_gives_the_work_directory_back(tmp_path, monkeypatch):
    config = InstanceConfig(sal_index=1, work_dir=str(tmp_path / "work"), definitions=("sleep",))

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
    gate = Gate(tmp_path / "gate")
    job = await manager.submit(request(gate.script))
    await until_job(manager, job.id, executing)
    # Jobs that nobody will ever run must hold nothing up.
    await manager.submit(request("exit 0"), run=False)
    async with asyncio.timeout(TIMEOUT):
        ending = asyncio.create_task(end_jobs(manager, on_exit))
        if on_exit == "wait":
            assert not (await asyncio.wait([ending], timeout=0.2))[0]
            gate.open()
        await ending
    job = await manager.get(job.id)
    assert job.phase == (phase or "EXECUTING")
    gate.open()
    await manager.close()
