# SPDX-License-Identifier: GPL-3.0-or-later
"""What must be on the disk, and when."""

from __future__ import annotations

import fcntl
import json
import os
import select
import shutil
import signal
import struct
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from lsst.dm.OCPS.backends.local import supervisor
from lsst.dm.OCPS.jobs import durable
from lsst.dm.OCPS.jobs.model import ExecutionPhase
from lsst.dm.OCPS.jobs.workspace import Workspaces

from tests.backends.local.shell_pool import open_pool, request
from tests.waiting import TIMEOUT, until, until_blocking

EXT4_IOC_SHUTDOWN = 0x8004587D
WITHOUT_FLUSHING = 2


def watch(monkeypatch: pytest.MonkeyPatch, record: Path) -> None:
    """Record what this process and those forked from it write to the disk, rename, link and fork."""

    def note(words: str) -> None:
        with open(record, "a") as file:
            file.write(words + "\n")

    for name in ("fsync", "fdatasync"):
        original = getattr(os, name)

        def sync(descriptor, original=original):
            original(descriptor)
            note(f"sync {os.readlink(f'/proc/self/fd/{descriptor}')}")

        monkeypatch.setattr(os, name, sync)
    for name in ("replace", "link"):
        original = getattr(os, name)

        def put(source, target, original=original):
            original(source, target)
            note(f"name {target}")

        monkeypatch.setattr(os, name, put)
    fork = os.fork

    def forked():
        note("fork")
        return fork()

    monkeypatch.setattr(os, "fork", forked)


def run_supervisor(folder: Path, durable: bool) -> None:
    """Run a job under its supervisor, without an engine."""
    workspaces = Workspaces(folder, durable=durable)
    workspaces.open()
    workspace = workspaces.of("abc")
    workspace.create()
    plan = {
        "steps": [{"argv": ["sh", "-c", "mkdir deep; echo x > deep/result"]}],
        "environment": dict(os.environ),
        "cwd": str(workspace.output),
        "log": str(workspace.log),
        "output": str(workspace.output),
        "durable": durable,
    }
    workspace.write_json("plan.json", plan)
    supervisor.detach(workspace.engine)
    until_blocking(lambda: workspace.read_json("status.json"))
    workspaces.close()


def test_a_claim_is_on_the_disk_before_the_job_and_the_results_before_its_end(tmp_path, monkeypatch):
    record = tmp_path / "record"
    watch(monkeypatch, record)
    run_supervisor(tmp_path / "work", durable=True)
    lines = record.read_text().splitlines()
    engine, output = tmp_path / "work/engine/abc", tmp_path / "work/jobs/abc/output"
    claimed = lines.index(f"name {engine}/supervisor.json")
    directory = lines.index(f"sync {engine}", claimed)
    started = lines.index("fork", claimed)
    results = [lines.index(f"sync {output}/{name}") for name in ("ocps.log", "deep/result")]
    folders = [lines.index(f"sync {path}", started) for path in (output / "deep", output, output.parent)]
    ended = lines.index(f"name {engine}/status.json")
    assert claimed < directory < started < min(results + folders) <= max(results + folders) < ended
    planned = lines.index(f"name {engine}/plan.json")
    for path in (engine.parent, output.parent.parent, output.parent):
        assert lines.index(f"sync {path}") < planned


def test_without_durability_nothing_is_waited_for(tmp_path, monkeypatch):
    record = tmp_path / "record"
    watch(monkeypatch, record)
    run_supervisor(tmp_path / "work", durable=False)
    assert "sync" not in record.read_text()


def test_a_disk_that_does_not_take_the_results_makes_the_job_fail(tmp_path, monkeypatch):
    def broken(descriptor):
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, "fdatasync", broken)
    run_supervisor(tmp_path / "work", durable=True)
    status = json.loads((tmp_path / "work/engine/abc/status.json").read_text())
    assert status["failure"] == "its results could not be written to disk: Input/output error"


@pytest.mark.parametrize("once", [False, True])
def test_a_write_that_fails_leaves_nothing(tmp_path, monkeypatch, once):
    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        durable.write_json(tmp_path / "plan.json", {}, once=once)
    assert not list(tmp_path.iterdir())


class Disk:
    """A small ext4 file system that can lose what was not brought to the disk."""

    def __init__(self, folder: Path) -> None:
        self.image, self.place = folder / "image", folder / "disk"
        self.place.mkdir()
        with self.image.open("wb") as file:
            file.truncate(64 << 20)
        subprocess.run(["mkfs.ext4", "-q", "-F", self.image], check=True)
        self.mount()

    def mount(self) -> None:
        subprocess.run(["mount", "-o", "loop", self.image, self.place], check=True)

    def unmount(self) -> None:
        # Processes that were killed may take a moment to let go of it.
        until_blocking(lambda: subprocess.run(["umount", self.place], check=False).returncode == 0)

    def cut_power(self) -> None:
        """Stop the file system where it is, and have it again as it is after a power cut."""
        descriptor = os.open(self.place, os.O_RDONLY)
        fcntl.ioctl(descriptor, EXT4_IOC_SHUTDOWN, struct.pack("I", WITHOUT_FLUSHING))
        os.close(descriptor)
        self.unmount()
        self.mount()


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    if os.geteuid() != 0 or not shutil.which("mkfs.ext4"):
        pytest.skip("a power cut can be tried as root only, with mkfs.ext4")
    try:
        made = Disk(tmp_path)
    except subprocess.CalledProcessError:
        pytest.skip("no file system can be mounted here")
    yield made
    made.unmount()


async def test_what_was_told_to_be_completed_is_there_after_a_power_cut(disk):
    work = disk.place / "work"
    manager = await open_pool(work, {"max_workers": 4})
    jobs = []
    for number in range(12):
        script = f"mkdir deep; echo {number} > deep/number; head -c 20000 /dev/zero > block; echo log"
        jobs.append(await manager.submit(request(script)))
    for job in jobs:
        assert (await manager.wait(job.id, TIMEOUT)).phase == ExecutionPhase.COMPLETED
    await manager.close()
    disk.cut_power()
    manager = await open_pool(work)
    for number, job in enumerate(jobs):
        found = await manager.get(job.id)
        assert found.phase == ExecutionPhase.COMPLETED
        output = manager.workspaces.of(job.id).output
        assert (output / "deep/number").read_text() == f"{number}\n"
        assert (output / "block").stat().st_size == 20000
        assert (output / "ocps.log").read_text() == "log\n"
        for result in found.results:
            assert (output / result.id).stat().st_size == result.size
    await manager.close()


async def test_no_job_runs_twice_after_a_power_cut(disk, tmp_path):
    work, runs = disk.place / "work", tmp_path / "runs"
    runs.mkdir()
    manager = await open_pool(work, {"max_workers": 8})
    # Each writes to another disk that it runs, and is killed with the machine.
    jobs = [await manager.submit(request(f"echo run >> {runs}/$JOB_ID; exec sleep 600")) for _ in range(8)]
    await until(lambda: len(list(runs.iterdir())) == len(jobs))
    await manager.close()
    for job in jobs:
        claim = manager.workspaces.of(job.id).read_json("supervisor.json")
        with open(os.pidfd_open(claim["pid"]), "rb") as ended:
            os.kill(claim["pid"], signal.SIGKILL)
            assert select.select([ended], [], [], TIMEOUT)[0]
    disk.cut_power()
    manager = await open_pool(work)
    for job in jobs:
        assert (await manager.wait(job.id, TIMEOUT)).terminal
        assert (runs / job.id).read_text() == "run\n"
    await manager.close()
