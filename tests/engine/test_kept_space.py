# SPDX-License-Identifier: GPL-3.0-or-later
"""The space that the files of ended jobs may take: the oldest go first, live jobs keep theirs."""

from __future__ import annotations

import os
import subprocess
import sys
from datetime import timedelta

import pytest
from lsst.dm.OCPS.jobs import archivist
from lsst.dm.OCPS.jobs.model import ExecutionPhase, Result, now
from lsst.dm.OCPS.jobs.workspace import Workspaces

from tests.waiting import TIMEOUT, until

Phase = ExecutionPhase
MEGABYTE = 2**20
# Directories take some space of their own.
FIVE = 5 * MEGABYTE + MEGABYTE // 2


@pytest.fixture(autouse=True)
def often(monkeypatch):
    """Look for jobs to archive all the time."""
    monkeypatch.setattr(archivist, "INTERVAL", 0.05)


async def started(bench, ask, size: int = MEGABYTE, **fields):
    """Start a job that has written so much (bytes)."""
    job = await bench.manager.submit(ask(**fields))
    await bench.settle()
    workspace = bench.manager.workspaces.of(job.id)
    workspace.create()
    (workspace.output / "deep").mkdir()
    (workspace.output / "deep" / "data.bin").write_bytes(b"x" * size)
    return job


async def ended(bench, ask, size: int = MEGABYTE, **fields) -> str:
    job = await started(bench, ask, size, **fields)
    bench.backend.say(job.id, Phase.COMPLETED, results=(Result("deep/data.bin", "file:///x", size),))
    await bench.manager.wait(job.id, 60)
    return job.id


def with_files(bench, job_ids: list[str]) -> list[str]:
    return [job_id for job_id in job_ids if bench.manager.workspaces.of(job_id).root.exists()]


async def test_the_files_of_the_oldest_jobs_go_first_and_their_records_say_why(bench, ask):
    await bench.open(keep_space=FIVE, max_workers=20)
    live = await started(bench, ask, 20 * MEGABYTE)
    jobs = [await ended(bench, ask) for _ in range(8)]
    await until(lambda: with_files(bench, jobs) == jobs[3:])
    assert with_files(bench, [live.id])
    for job_id in jobs[:3]:
        job = await bench.manager.get(job_id)
        assert (job.phase, job.final_phase, job.results) == (Phase.ARCHIVED, Phase.COMPLETED, ())
        assert job.message == "files removed: those of all ended jobs may take 6 MiB"
    for job_id in jobs[3:]:
        assert (await bench.manager.get(job_id)).phase == Phase.COMPLETED


async def test_an_owner_who_keeps_much_does_not_cost_others_theirs(bench, ask):
    await bench.open(keep_space_per_owner=FIVE, keep_space=50 * MEGABYTE, max_workers=20)
    others = [await ended(bench, ask, owner="bob") for _ in range(2)]
    mine = [await ended(bench, ask, owner="alice") for _ in range(7)]
    await until(lambda: with_files(bench, mine) == mine[2:])
    assert with_files(bench, others) == others
    job = await bench.manager.get(mine[0])
    assert job.message == "files removed: those of the ended jobs of alice may take 6 MiB"


async def test_without_limits_everything_is_kept(bench, ask):
    await bench.open(keep_space=0, keep_space_per_owner=0, max_workers=20)
    jobs = [await ended(bench, ask) for _ in range(3)]
    await bench.reopen(keep_space=0, keep_space_per_owner=0)
    # A job that is archived for another reason shows that the archivist has been here.
    await until(lambda: not bench.manager._archivist._kept._unmeasured)
    assert with_files(bench, jobs) == jobs


async def test_what_was_not_measured_before_a_crash_is_measured_after_it(bench, ask):
    await bench.open(keep_space=0, keep_space_per_owner=0, max_workers=20)
    jobs = [await ended(bench, ask) for _ in range(8)]
    await bench.manager.store.write(lambda connection: connection.exec_driver_sql("DELETE FROM kept_files"))
    bench.manager._archivist._kept._unmeasured.clear()
    await bench.reopen(keep_space=FIVE)
    await until(lambda: with_files(bench, jobs) == jobs[3:])


async def test_files_of_a_result_that_is_not_published_yet_stay(bench, ask):
    await bench.open(keep_space=MEGABYTE // 2, max_workers=20)
    waiting = await ended(bench, ask, origin="sal", keep_until_published=True)
    other = await ended(bench, ask)
    await until(lambda: not with_files(bench, [other]))
    assert with_files(bench, [waiting])
    await bench.manager.mark_published(waiting)
    await until(lambda: not with_files(bench, [waiting]))


async def test_files_that_cannot_be_removed_are_logged_and_removed_later(bench, ask, caplog, tmp_path):
    await bench.open(keep_space=20 * MEGABYTE, max_workers=20)
    job_id = await ended(bench, ask)
    root = bench.manager.workspaces.of(job_id).root
    root.rename(tmp_path / "elsewhere")
    # A link is not followed, and is not removed as a directory.
    root.symlink_to(tmp_path / "elsewhere")
    await bench.manager.modify(job_id, destruction=now() + timedelta(seconds=1))
    await until(lambda: f"Job {job_id} was archived, but its files could not be removed" in caplog.text)
    root.unlink()
    (tmp_path / "elsewhere").rename(root)
    await until(lambda: not root.exists())


async def test_a_deleted_job_does_not_count_any_more(bench, ask):
    await bench.open(keep_space=FIVE, max_workers=20)
    jobs = [await ended(bench, ask) for _ in range(5)]
    for job_id in jobs[3:]:
        await bench.manager.destroy(job_id)
    jobs = [*jobs[:3], await ended(bench, ask), await ended(bench, ask)]
    last = await ended(bench, ask)
    await until(lambda: with_files(bench, [*jobs, last]) == [*jobs[1:], last])


async def test_links_neither_add_to_nor_hide_what_a_job_keeps(bench, ask, tmp_path):
    await bench.open()
    job = await started(bench, ask, 4 * MEGABYTE)
    workspace = bench.manager.workspaces.of(job.id)
    before = workspace.disk_usage()
    assert 4 * MEGABYTE <= before < 5 * MEGABYTE
    for number in range(7):
        (workspace.output / f"name{number}").hardlink_to(workspace.output / "deep" / "data.bin")
    (workspace.output / "link").symlink_to("/usr")
    with (workspace.output / "sparse").open("wb") as file:
        file.truncate(2**40)
    assert before <= workspace.disk_usage() < 5 * MEGABYTE


def test_a_directory_that_cannot_be_read_or_written_is_no_hindrance(tmp_path):
    """A job may take away rights to its own directories, which count for all accounts but root's."""
    workspace = Workspaces(tmp_path / "work").of("job")
    for name in ("readable", "locked", "fixed"):
        (workspace.output / name / "deep").mkdir(parents=True)
        (workspace.output / name / "data.bin").write_bytes(b"x" * MEGABYTE)
    (workspace.output / "last.bin").write_bytes(b"x" * MEGABYTE)
    modes = {"readable": 0o400, "locked": 0o000, "fixed": 0o500}
    for name, mode in modes.items():
        (workspace.output / name).chmod(mode)
    script = f"""
from pathlib import Path
from lsst.dm.OCPS.jobs.workspace import Workspaces
workspace = Workspaces(Path({str(tmp_path / "work")!r})).of("job")
print(workspace.disk_usage())
workspace.remove()
"""
    ordinary = ["setpriv", "--bounding-set=-all"] if os.geteuid() == 0 else []
    done = subprocess.run(
        [*ordinary, sys.executable, "-c", script], capture_output=True, text=True, timeout=TIMEOUT
    )
    assert (done.returncode, done.stderr) == (0, "")
    # That of the directory whose names alone can be read, and of the one that is locked, is not known.
    assert 2 * MEGABYTE <= int(done.stdout) < 3 * MEGABYTE
    assert not workspace.root.exists()


async def test_more_ended_jobs_than_are_kept_go_without_waiting(bench, ask, monkeypatch):
    manager = await bench.open(max_workers=300, max_queued=1000, max_jobs_per_owner=0)
    jobs = [await manager.submit(ask()) for _ in range(230)]
    await bench.settle()
    for job in jobs:
        bench.backend.say(job.id, Phase.COMPLETED)
    for job in jobs:
        await manager.wait(job.id, 60)
    monkeypatch.setattr(archivist, "INTERVAL", 3600)
    manager = await bench.reopen(keep_jobs=5)

    async def archived() -> int:
        return len(await manager.store.archived([job.id for job in jobs]))

    async def all_but_five() -> bool:
        return await archived() == 225

    await until(all_but_five)


async def test_no_more_records_of_archived_jobs_are_kept_than_configured(bench, ask):
    await bench.open(keep_jobs=1, keep_records=2, max_workers=20)
    unpublished = await ended(bench, ask, origin="sal", keep_until_published=True)
    jobs = [await ended(bench, ask) for _ in range(6)]

    async def records() -> list[str]:
        return [job_id for job_id in [unpublished, *jobs] if await bench.manager.store.get(job_id)]

    async def the_newest_and_the_one_that_is_needed() -> bool:
        return await records() == [unpublished, *jobs[3:]]

    await until(the_newest_and_the_one_that_is_needed)
    assert with_files(bench, jobs) == jobs[5:]
