# SPDX-License-Identifier: GPL-3.0-or-later
"""Jobs that put what they like in place of files that OCPS reads."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from lsst.dm.OCPS.backends.local import processes
from lsst.dm.OCPS.backends.local.supervisor import seal
from lsst.dm.OCPS.jobs.manager import JobManager
from lsst.dm.OCPS.jobs.model import ExecutionPhase, Job
from lsst.dm.OCPS.jobs.workspace import Workspace

from tests.backends.local.shell_pool import gone, open_pool, request
from tests.waiting import TIMEOUT, until

Phase = ExecutionPhase


def fifo(path: Path) -> None:
    os.mkfifo(path)


def link(path: Path) -> None:
    path.symlink_to("/etc/passwd")


def link_to_endless(path: Path) -> None:
    path.symlink_to("/dev/zero")


def folder(path: Path) -> None:
    path.mkdir()


def sparse(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(1 << 40)


def deep(path: Path) -> None:
    path.write_text("[" * 1_000_000)


def empty(path: Path) -> None:
    path.write_text("")


def array(path: Path) -> None:
    path.write_text("[1, 2, 3]")


def wrong_types(path: Path) -> None:
    path.write_text(json.dumps({"pid": "1", "session": None, "exit_code": [0], "step": -1, "steps": 7}))


def huge_numbers(path: Path) -> None:
    path.write_text(json.dumps({"pid": 10**30, "session": -1, "start": 1e308, "boot": "x", "seal": "y"}))


def not_utf8(path: Path) -> None:
    path.write_bytes(b"\xff\xfe{}")


REPLACEMENTS = (
    fifo,
    link,
    link_to_endless,
    folder,
    sparse,
    deep,
    empty,
    array,
    wrong_types,
    huge_numbers,
    not_utf8,
)
ENGINE_FILES = ("plan.json", "supervisor.json", "group.json", "status.json")


def replace(path: Path, make: Callable[[Path], None]) -> None:
    """Put something else in place of a file."""
    if path.is_dir() and not path.is_symlink():
        path.rmdir()
    path.unlink(missing_ok=True)
    make(path)


async def started(manager: JobManager, script: str) -> tuple[Job, Workspace]:
    """Start a job; return it when it runs."""
    job = await manager.submit(request(script))
    await executing(manager, job)
    return await manager.get(job.id), manager.workspaces.of(job.id)


async def executing(manager: JobManager, job: Job) -> None:
    async with manager.subscribe(lambda found: found.id == job.id) as changes, asyncio.timeout(TIMEOUT):
        if (await manager.get(job.id)).phase == Phase.QUEUED:
            async for found in changes:
                if found.phase != Phase.QUEUED:
                    break


async def works(manager: JobManager) -> None:
    """Check that the engine still does its work."""
    job = await manager.submit(request("echo fine"))
    job = await manager.wait(job.id, TIMEOUT)
    assert (job.phase, job.exit_code) == (Phase.COMPLETED, 0)
    assert job.info["logTail"] == ["fine"]


def release(workspace: Workspace) -> None:
    (workspace.root / "go").touch()


WAIT = "while [ ! -e ../go ]; do sleep 0.02; done; "


@pytest.mark.parametrize("restart", [False, True], ids=["", "restart"])
@pytest.mark.parametrize("make", REPLACEMENTS)
async def test_whatever_replaces_the_log_blocks_nothing(tmp_path, make, restart):
    manager = await open_pool(tmp_path / "work")
    job, workspace = await started(manager, WAIT + "echo more")
    replace(workspace.log, make)
    if restart:
        await manager.close()
        manager = await open_pool(tmp_path / "work")
    release(workspace)
    job = await manager.wait(job.id, TIMEOUT)
    assert (job.phase, job.exit_code) == (Phase.COMPLETED, 0)
    # Nothing that is not a plain file becomes a result.
    expected = (
        ["ocps.log"] if make in (sparse, deep, empty, array, wrong_types, huge_numbers, not_utf8) else []
    )
    assert [result.id for result in job.results] == expected
    await works(manager)
    await manager.close()


@pytest.mark.parametrize("restart", [False, True], ids=["", "restart"])
@pytest.mark.parametrize("name", ENGINE_FILES)
@pytest.mark.parametrize("make", REPLACEMENTS)
async def test_whatever_replaces_an_engine_file_stops_neither_the_engine_nor_its_start(
    tmp_path, make, name, restart
):
    manager = await open_pool(tmp_path / "work")
    job, workspace = await started(manager, WAIT + "exit 7")
    replace(workspace.engine / name, make)
    if restart:
        await manager.close()
        manager = await open_pool(tmp_path / "work")
    release(workspace)
    if name == "status.json" and make is folder:
        # The supervisor tries until it can write; so it is killed here.
        os.kill(json.loads(job.handle or "")["pid"], signal.SIGKILL)
    job = await manager.wait(job.id, TIMEOUT)
    assert job.phase == Phase.ERROR
    assert job.exit_code in ((None,) if name == "status.json" and make is folder else (7,))
    await works(manager)
    await manager.close()


@pytest.mark.parametrize("restart", [False, True], ids=["", "restart"])
@pytest.mark.parametrize("own_claim", [False, True], ids=["", "own-claim"])
async def test_a_status_that_the_supervisor_did_not_write_is_not_believed(tmp_path, restart, own_claim):
    manager = await open_pool(tmp_path / "work")
    job, workspace = await started(manager, "sleep 600")
    forged = {
        "token": "0" * 64,
        "exit_code": 0,
        "step": 0,
        "cancelled": False,
        "failure": "",
        "max_rss": 1,
        "cpu": 0.0,
    }
    claim = workspace.read_json("supervisor.json")
    if restart:
        await manager.close()
    if own_claim:
        (workspace.engine / "supervisor.json").write_text(json.dumps({**claim, "seal": seal("0" * 64)}))
    (workspace.engine / "status.json").write_text(json.dumps(forged))
    os.kill(claim["pid"], signal.SIGKILL)
    if restart:
        manager = await open_pool(tmp_path / "work")
    job = await manager.wait(job.id, TIMEOUT)
    assert (job.phase, job.exit_code) == (Phase.ERROR, None)
    assert "exit code unknown" in job.error.message
    await manager.close()


async def test_the_token_is_nowhere_before_the_end(tmp_path):
    manager = await open_pool(tmp_path / "work")
    job, workspace = await started(manager, WAIT)
    there = b"".join(path.read_bytes() for path in (tmp_path / "work").rglob("*") if path.is_file())
    release(workspace)
    await manager.wait(job.id, TIMEOUT)
    token = workspace.read_json("status.json")["token"]
    assert len(token) == 64
    assert token.encode() not in there
    await manager.close()


async def run(folder: Path, script: str, **limits: int) -> tuple[Job, Workspace]:
    """Run a script to its end."""
    manager = await open_pool(folder / "work", job_limits=limits or None)
    job = await manager.submit(request(script))
    job = await manager.wait(job.id, TIMEOUT)
    workspace = manager.workspaces.of(job.id)
    await manager.close()
    return job, workspace


@pytest.mark.parametrize(
    "script",
    [
        "ln -s /etc/passwd found",
        "ln -s /etc folder",
        "mkfifo found",
        "ln {elsewhere} found",
        "cd ..; mv output other; ln -s /etc output",
        "cd ..; mv output other; touch output",
        "cd ..; rm -r output",
    ],
)
async def test_nothing_outside_the_output_directory_becomes_a_result(tmp_path, script):
    elsewhere = tmp_path / "elsewhere"
    elsewhere.write_text("not theirs")
    job, _ = await run(tmp_path, script.format(elsewhere=elsewhere))
    assert job.phase == Phase.COMPLETED
    assert {result.id for result in job.results} <= {"ocps.log"}


async def test_a_file_with_two_names_within_the_output_is_a_result(tmp_path):
    job, _ = await run(tmp_path, "echo x > one; ln one two; mkdir deep; ln one deep/three")
    assert [result.id for result in job.results] == ["ocps.log", "deep/three", "one", "two"]


async def test_odd_names_become_results_that_can_be_shown(tmp_path):
    job, _ = await run(tmp_path, r"""printf x > "$(printf 'a\377b')"; printf x > "$(printf 'c\033[31md')" """)
    assert [result.id for result in job.results] == ["ocps.log", r"a\xffb", r"c\x1b[31md"]
    assert job.results[1].uri.endswith("/a%FFb")
    json.dumps([result.id for result in job.results]).encode()


async def test_only_this_account_can_enter_the_directories(tmp_path):
    job, workspace = await run(tmp_path, "exit 0")
    for path in (workspace.root, workspace.engine, workspace.output):
        assert path.stat().st_mode & 0o077 == 0
    for path in (*workspace.engine.iterdir(), workspace.log):
        assert path.stat().st_mode & 0o077 == 0
    assert job.phase == Phase.COMPLETED


async def test_no_job_finds_a_secret_of_ocps_in_any_process_that_it_comes_from(tmp_path, monkeypatch):
    monkeypatch.setenv("REDIS_PASSWORD", "hunter2-of-ocps")
    script = (
        "pid=$$; while [ $pid -gt 1 ]; do "
        "tr '\\0' '\\n' < /proc/$pid/environ; "
        "name=$(tr '\\0' ' ' < /proc/$pid/cmdline); case $name in *supervisor.py*) echo found it;; esac; "
        "pid=$(sed 's/.*) . //' /proc/$pid/stat | cut -d' ' -f1); done 2>/dev/null; true"
    )
    job, workspace = await run(tmp_path, script)
    assert job.phase == Phase.COMPLETED
    text = workspace.log.read_text()
    assert "found it" in text
    assert "hunter2-of-ocps" not in text


LIMITS: list[tuple[str, dict[str, int], str]] = [
    ("while :; do head -c 1000000 /dev/zero >> more; sleep 0.01; done", {"output_size": 5_000_000}, "output"),
    ("for i in 1 2 3 4 5 6 7 8 9; do sleep 600 & done; wait", {"processes": 5}, "5 processes"),
]


@pytest.mark.parametrize(("script", "limits", "words"), LIMITS)
async def test_a_job_that_exceeds_a_limit_is_stopped_and_told_so(tmp_path, script, limits, words):
    job, _ = await run(tmp_path, script, **limits)
    assert job.phase == Phase.ERROR
    assert words in job.error.message
    assert "stopped" in job.error.message


async def wait_for_text(path: Path) -> str:
    await until(lambda: path.exists() and path.read_text().strip())
    return path.read_text().strip()


ESCAPES: dict[str, Any] = {
    "session": "setsid sh -c 'echo $$ > pid; exec sleep 600' & wait",
    "daemon": "(setsid sh -c 'sleep 600 & echo $! > pid; wait' &) ; sleep 600",
    "environment": "setsid env -i /bin/sh -c 'echo $$ > pid; exec /bin/sleep 600' & wait",
}


# Without control groups a job that clears its environment can hide, as the documentation says.
CASES = [(way, groups) for way in ESCAPES for groups in (True, False) if groups or way != "environment"]


@pytest.mark.parametrize("restart", [False, True], ids=["", "restart"])
@pytest.mark.parametrize(("way", "groups"), CASES)
async def test_nothing_of_a_job_survives_its_killed_supervisor(tmp_path, monkeypatch, way, groups, restart):
    trial = processes.make_group("ocps-trial")
    processes.remove_group(trial)
    if groups and not trial:
        pytest.skip("no control groups can be had here")
    if not groups:
        monkeypatch.setattr(processes, "_own_groups", list)
    manager = await open_pool(tmp_path / "work")
    job, workspace = await started(manager, ESCAPES[way])
    pid = int(await wait_for_text(workspace.output / "pid"))
    if restart:
        await manager.close()
    os.kill(workspace.read_json("supervisor.json")["pid"], signal.SIGKILL)
    if restart:
        manager = await open_pool(tmp_path / "work")
    job = await manager.wait(job.id, TIMEOUT)
    assert gone(pid)
    assert (job.phase, job.exit_code) == (Phase.ERROR, None)
    await manager.close()
