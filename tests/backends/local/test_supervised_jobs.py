# SPDX-License-Identifier: GPL-3.0-or-later
"""Jobs that misbehave, under their supervisors."""

from __future__ import annotations

import asyncio
import errno
import json
import os
import re
import signal
import sys
from pathlib import Path

import pytest
from lsst.dm.OCPS.backends.local import backend, supervisor
from lsst.dm.OCPS.backends.local.handle import SupervisorHandle
from lsst.dm.OCPS.jobs.model import ExecutionPhase, Job
from lsst.dm.OCPS.jobs.retries import RetryPolicy

from tests.backends.local.shell_pool import gone, open_pool, request
from tests.waiting import TIMEOUT, until, until_blocking

Phase = ExecutionPhase


@pytest.fixture
def run(tmp_path):
    """Run one script to its end; return the job."""

    async def run_script(script: str, job_limits=None, **fields) -> Job:
        manager = await open_pool(tmp_path / "work", job_limits=job_limits)
        try:
            job = await manager.submit(request(script, **fields))
            return await manager.wait(job.id, TIMEOUT)
        finally:
            await manager.close()

    return run_script


@pytest.mark.parametrize(
    ("script", "code", "words"),
    [
        ("exit 3", 3, "ended with exit code 3"),
        ("echo last words; exit 1", 1, "exit code 1: last words"),
        ("kill -SEGV $$", -signal.SIGSEGV, "crashed (SIGSEGV)"),
        ("kill -KILL $$", -signal.SIGKILL, "killed (SIGKILL) by something other than OCPS"),
        ("kill -TERM $$", -signal.SIGTERM, "ended by SIGTERM"),
        ("exec no-such-program", 127, "exit code 127"),
    ],
)
async def test_a_job_that_fails_says_how(run, script, code, words):
    job = await run(script)
    assert (job.phase, job.exit_code) == (Phase.ERROR, code)
    assert words in job.error.message
    assert job.results[0].id == "ocps.log"


async def test_what_a_job_leaves_running_is_ended(run):
    """Children, grandchildren, and those that made themselves a session of their own."""
    job = await run(
        "sleep 3600 & echo $!; setsid sleep 3600 & echo $!;"
        " (setsid sh -c 'sleep 3600 & echo $! > pid; mv pid third; wait' &);"
        " until [ -e third ]; do sleep 0.05; done; cat third"
    )
    assert job.phase == Phase.COMPLETED
    pids = [int(line) for line in Path(job.results[0].uri.removeprefix("file://")).read_text().split()]
    assert len(pids) == 3
    await until(lambda: all(gone(pid) for pid in pids))


async def test_abort_ends_everything_also_what_ignores_signals(tmp_path):
    manager = await open_pool(tmp_path / "work")
    job = await manager.submit(
        request("trap '' TERM INT; setsid sleep 3600 & echo $! > pid; sleep 3600 & wait; sleep 3600")
    )
    pid = manager.workspaces.of(job.id).output / "pid"
    await until(lambda: pid.exists() and pid.read_text().strip())
    job = await manager.abort(job.id)
    assert job.phase == Phase.ABORTED
    await until(lambda: gone(int(pid.read_text())))
    await manager.close()


async def test_a_job_that_was_stopped_is_not_completed_whatever_it_says(tmp_path):
    manager = await open_pool(tmp_path / "work")
    job = await manager.submit(request("trap 'exit 0' TERM; sleep 3600 & touch ready; wait"))
    await until((manager.workspaces.of(job.id).output / "ready").exists)
    job = await manager.abort(job.id)
    assert (job.phase, job.exit_code) == (Phase.ABORTED, 0)
    await manager.close()


async def test_a_deadline_ends_a_job_that_hangs(run):
    job = await run("sleep 3600", execution_duration=1)
    assert job.phase == Phase.ERROR
    assert "its limit of 1 s" in job.error.message
    assert job.exit_code == -signal.SIGTERM


async def test_a_log_of_100_mb_is_kept_and_only_its_end_is_read(run):
    job = await run("yes 'a line of a log' | head -c 100000000; echo; echo the end")
    assert job.phase == Phase.COMPLETED
    assert job.results[0].size > 100_000_000
    assert job.info["logTail"][-1] == "the end"
    assert len(job.info["logTail"]) <= 20


async def test_a_job_gets_no_secret_and_no_signal_handler_of_ocps(run, monkeypatch):
    monkeypatch.setenv("REDIS_PASSWORD", "hunter2")
    monkeypatch.setenv("SOME_DIR", "/some")
    monkeypatch.setenv("API_TOKEN_DIR", "hunter2")
    job = await run(
        "env; trap; grep -i sigign /proc/self/status; ls /proc/self/fd | wc -l; readlink /proc/self/fd/0"
    )
    text = Path(job.results[0].uri.removeprefix("file://")).read_text()
    assert "hunter2" not in text
    assert "SOME_DIR=/some" in text
    assert f"JOB_ID={job.id}" in text
    ignored = int(re.search(r"SigIgn:\s*([0-9a-f]+)", text)[1], 16)
    # Those above 31 are the C library's own, which nobody may change.
    assert ignored & 0x7FFFFFFF == 0
    assert text.splitlines()[-1] == "/dev/null"


async def test_limits_hold_in_the_job(run):
    job = await run(
        "ulimit -c; ulimit -n; ulimit -v; nice",
        job_limits={"core": 0, "open_files": 100, "memory": 2**30, "nice": 5},
    )
    text = Path(job.results[0].uri.removeprefix("file://")).read_text()
    expected_nice = str(os.nice(0) + 5)
    assert text.split() == ["0", "100", str(2**20), expected_nice]


async def test_a_work_directory_that_cannot_be_written_is_a_reason(tmp_path):
    manager = await open_pool(tmp_path / "work")
    (tmp_path / "work" / "jobs").rmdir()
    (tmp_path / "work" / "jobs").write_text("in the way")
    job = await manager.submit(request("exit 0"))
    job = await manager.wait(job.id, TIMEOUT)
    assert job.phase == Phase.ERROR
    assert "Not a directory" in job.error.message
    await manager.close()


@pytest.fixture
def launcher(tmp_path, monkeypatch):
    """Start other code instead of the supervisor; return the supervisor's own file."""

    def replace(code: str) -> str:
        real, stand_in = supervisor.__file__, tmp_path / "launcher.py"
        stand_in.write_text(code.format(real=real))
        monkeypatch.setattr(supervisor, "__file__", str(stand_in))
        return real

    return replace


async def test_a_supervisor_that_starts_after_its_job_was_given_up_does_not_run_it(
    tmp_path, launcher, monkeypatch
):
    monkeypatch.setattr(backend, "LAUNCH_TIMEOUT", 0.1)
    real = launcher("import time; time.sleep(3600)")
    manager = await open_pool(tmp_path / "work")
    job = await manager.submit(request(f"touch {tmp_path}/ran"))
    job = await manager.wait(job.id, TIMEOUT)
    assert job.phase == Phase.ERROR
    assert "its supervisor did not start within 0.1 s" in job.error.message
    engine = manager.workspaces.of(job.id).engine
    late = await asyncio.create_subprocess_exec(sys.executable, "-I", "-S", real, engine)
    assert await late.wait() == 0
    # It would have replaced the claim by its own.
    assert json.loads((engine / "supervisor.json").read_text()) == {}
    assert not (tmp_path / "ran").exists()
    await manager.close()


async def test_a_job_whose_supervisor_has_claimed_it_is_followed_whatever_its_launcher_says(
    tmp_path, launcher
):
    launcher(
        "import os, signal, subprocess, sys\n"
        "subprocess.run([sys.executable, '-I', '-S', {real!r}, sys.argv[1]], check=True)\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    manager = await open_pool(tmp_path / "work")
    job = await manager.submit(request("exit 0"))
    job = await manager.wait(job.id, TIMEOUT)
    assert (job.phase, job.exit_code) == (Phase.COMPLETED, 0)
    await manager.close()


async def test_a_job_that_may_still_start_is_not_run_again(tmp_path, launcher, monkeypatch):
    def unwritable(workspace):
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(backend, "claim_job", unwritable, raising=False)
    launcher("import sys; sys.exit('no luck')")
    retries = RetryPolicy(max=1, delay=0, log_texts={"luck": "no luck"})
    manager = await open_pool(tmp_path / "work", retries=retries)
    job = await manager.submit(request("exit 0"))
    job = await manager.wait(job.id, TIMEOUT)
    assert (job.phase, job.attempt) == (Phase.ERROR, 1)
    assert "no luck" in job.error.message
    await manager.close()


async def test_a_job_that_ends_before_anybody_looks_has_a_start_time(tmp_path, monkeypatch):
    find = SupervisorHandle.find

    def find_late(claim):
        until_blocking(lambda: gone(claim.pid))
        return find(claim)

    monkeypatch.setattr(SupervisorHandle, "find", find_late)
    manager = await open_pool(tmp_path / "work")
    job = await manager.submit(request("exit 3"))
    job = await manager.wait(job.id, TIMEOUT)
    assert (job.phase, job.exit_code) == (Phase.ERROR, 3)
    assert job.creation_time <= job.start_time <= job.end_time
    await manager.close()


async def test_fifty_jobs_leave_no_process_and_no_descriptor(tmp_path):
    manager = await open_pool(tmp_path / "work", {"max_workers": 10})
    first = await manager.submit(request("exit 0"))
    await manager.wait(first.id, TIMEOUT)
    before = len(os.listdir("/proc/self/fd"))
    jobs = await asyncio.gather(*(manager.submit(request("exit 0")) for _ in range(50)))
    for job in jobs:
        assert (await manager.wait(job.id, TIMEOUT)).phase == Phase.COMPLETED
    assert len(os.listdir("/proc/self/fd")) <= before + 2
    for job in jobs:
        workspace = manager.workspaces.of(job.id)
        assert gone(workspace.read_json("supervisor.json")["pid"])
        assert not list(workspace.root.glob(".*"))
    await manager.close()
