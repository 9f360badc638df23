# SPDX-License-Identifier: GPL-3.0-or-later
"""Disks that are full, directories that are gone, journals and files that a crash left behind."""

from __future__ import annotations

import logging
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from lsst.dm.OCPS.backends.local.journals import roll_back
from lsst.dm.OCPS.config import InstanceConfig
from lsst.dm.OCPS.factory import make_manager
from lsst.dm.OCPS.jobs.errors import BackendError, StoreError
from lsst.dm.OCPS.jobs.manager import JobManager
from lsst.dm.OCPS.jobs.model import ExecutionPhase, Job, JobRequest

from tests.backends.local import harness
from tests.backends.local.shell_pool import open_pool, request
from tests.waiting import until, until_job

MIN_FREE = 4 << 20


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 16 MB."""
    place = tmp_path / "disk"
    place.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={16 << 20},nr_inodes=2000", "test", str(place)]
    if os.geteuid() != 0 or subprocess.run(command, check=False).returncode:
        pytest.skip("no file system can be mounted here")
    yield place
    subprocess.run(["umount", "-l", str(place)], check=True)


def fill(place: Path) -> Path:
    """Leave no byte on a disk."""
    path = place / "filling"
    with path.open("wb", buffering=0) as file:
        try:
            while file.write(bytes(1 << 16)):
                pass
        except OSError:
            pass
    return path


async def open_engine(work: Path, **settings: int) -> JobManager:
    config = InstanceConfig(
        sal_index=1,
        work_dir=str(work),
        definitions=("sleep",),
        min_free_space=MIN_FREE,
        min_free_files=100,
        max_workers=1,
        **settings,
    )
    return await make_manager(config, logging.getLogger("engine"))


@pytest.mark.parametrize("kind", ["bytes", "inodes"])
async def test_on_a_nearly_full_disk_jobs_wait_and_new_ones_are_refused(small_disk, kind):
    manager = await open_engine(small_disk / "work")
    # The first one keeps the second in the queue.
    first = await running(manager)
    second = await manager.submit(JobRequest("sleep", {"duration": "0"}))
    if kind == "bytes":
        filling = fill(small_disk)
        os.truncate(filling, filling.stat().st_size - MIN_FREE // 2)
    else:
        filling = small_disk / "many"
        filling.mkdir()
        for number in range(os.statvfs(small_disk).f_favail - 50):
            (filling / str(number)).touch()
    words = "nearly full" if kind == "bytes" else "nearly out of inodes"
    with pytest.raises(StoreError, match=words):
        await manager.submit(JobRequest("sleep", {"duration": "0"}))
    await manager.abort(first.id)
    waiting = await until_job(manager, second.id, lambda job: words in job.message)
    assert waiting.phase == ExecutionPhase.QUEUED
    if kind == "bytes":
        filling.unlink()
    else:
        shutil.rmtree(filling)
    second = await ended(manager, second.id)
    assert second.phase == ExecutionPhase.COMPLETED
    assert second.message == ""
    await manager.close()


async def running(manager: JobManager) -> Job:
    """Run a job that lasts; return when its program runs: on a full disk it could not start any more."""
    job = await manager.submit(JobRequest("sleep", {"duration": "600"}))
    log = manager.workspaces.of(job.id).log
    await until(lambda: log.exists() and "sleeping" in log.read_text())
    return await until_job(manager, job.id, lambda job: job.phase == ExecutionPhase.EXECUTING)


async def ended(manager: JobManager, job_id: str):
    return await until_job(manager, job_id, lambda job: job.terminal)


async def test_a_job_that_waits_for_room_can_be_aborted(small_disk):
    manager = await open_engine(small_disk / "work")
    first = await running(manager)
    second = await manager.submit(JobRequest("sleep", {"duration": "0"}))
    filling = fill(small_disk)
    os.truncate(filling, filling.stat().st_size - MIN_FREE // 2)
    await manager.abort(first.id)
    await until_job(manager, second.id, lambda job: "nearly full" in job.message)
    second = await manager.abort(second.id)
    assert second.phase == ExecutionPhase.ABORTED
    assert "did not confirm" not in second.message
    await manager.close()


async def test_a_start_on_a_full_disk_is_refused_in_words(small_disk):
    fill(small_disk)
    with pytest.raises(StoreError) as raised:
        await open_engine(small_disk / "work")
    assert "\n" not in str(raised.value)


async def test_no_job_is_accepted_into_a_work_directory_that_has_gone(tmp_path):
    manager = await open_pool(tmp_path / "work")
    shutil.move(tmp_path / "work", tmp_path / "elsewhere")
    with pytest.raises(StoreError, match="was removed or replaced while OCPS ran"):
        await manager.submit(request("exit 0"))
    (tmp_path / "work").mkdir()
    with pytest.raises(StoreError, match="was removed or replaced while OCPS ran"):
        await manager.submit(request("exit 0"))
    await manager.close()


async def test_what_a_crash_left_of_archived_jobs_and_of_uploads_is_removed_at_the_start(tmp_path):
    work = tmp_path / "work"
    config = InstanceConfig(sal_index=1, work_dir=str(work), definitions=("sleep",), retention=1)
    manager = await make_manager(config, logging.getLogger("engine"))
    job = await manager.submit(JobRequest("sleep", {"duration": "0"}))
    await until_job(manager, job.id, lambda job: job.phase == ExecutionPhase.ARCHIVED)
    await until(lambda: not manager.workspaces.of(job.id).root.exists())
    await manager.close()
    for left in ("jobs/" + job.id + "/output", "engine/" + job.id, "upload-abc", "jobs/unknown"):
        (work / left).mkdir(parents=True)
    manager = await make_manager(config, logging.getLogger("engine"))
    await until(lambda: not (work / "jobs" / job.id).exists() and not (work / "engine" / job.id).exists())
    assert not (work / "upload-abc").exists()
    # Of what has no record, nobody knows whether it may go.
    assert (work / "jobs" / "unknown").exists()
    await manager.close()


UNFINISHED = """
import os, signal, sqlite3, sys
connection = sqlite3.connect(sys.argv[1], isolation_level=None)
connection.execute("PRAGMA cache_size = 1")
connection.execute("BEGIN IMMEDIATE")
connection.execute("CREATE TABLE unfinished (value)")
for number in range(2000):
    connection.execute("INSERT INTO unfinished VALUES (?)", ("x" * 1000,))
os.kill(os.getpid(), signal.SIGKILL)
"""


def leave_unfinished(repo: Path) -> Path:
    """Kill a process in the middle of a change of a Butler; return the journal that it left."""
    file = repo / "gen3.sqlite3"
    done = subprocess.run([sys.executable, "-c", UNFINISHED, str(file)], check=False)
    assert done.returncode == -signal.SIGKILL
    journal = file.with_name(file.name + "-journal")
    assert journal.stat().st_size
    return journal


async def test_a_butler_that_a_killed_job_left_in_the_middle_of_a_change_is_used(pristine_repo, tmp_path):
    repo = Path(shutil.copytree(pristine_repo, tmp_path / "repo"))
    environments = [{"name": "default", "preload": False}]
    leave_unfinished(repo)
    async with harness.open_pool(tmp_path / "work", repo, environments=environments) as pool:
        await pool.backend.check()
        journal = leave_unfinished(repo)
        job = await pool.run("bias", harness.BIAS)
        assert job.phase == ExecutionPhase.COMPLETED, pool.log(job)
        assert not journal.exists()


def test_a_journal_that_cannot_be_undone_is_said_in_words(tmp_path):
    (tmp_path / "gen3.sqlite3-journal").write_bytes(b"x" * 1000)
    (tmp_path / "gen3.sqlite3").mkdir()
    with pytest.raises(BackendError, match=r"a killed job left a change of gen3\.sqlite3 unfinished"):
        roll_back(str(tmp_path))
