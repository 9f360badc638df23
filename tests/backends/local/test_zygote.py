# SPDX-License-Identifier: GPL-3.0-or-later
"""The preloaded process: that it dies, that things change under it, what it leaves behind."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest
from democam.make_repo import make_repo
from democam.observations import Plan
from lsst.daf.butler import Butler, DatasetType
from lsst.dm.OCPS.backends.local.processes import identity
from lsst.dm.OCPS.jobs.errors import BackendError
from lsst.dm.OCPS.jobs.model import ExecutionPhase

from tests.backends.local.harness import BIAS, Pool, open_pool, probed
from tests.gates import Gate
from tests.waiting import TIMEOUT, until

pytestmark = pytest.mark.asyncio(loop_scope="package")

Phase = ExecutionPhase
Probe = Callable[[str], dict[str, Any]]

COLD = [{"name": "default", "preload": False}]


def running(pool: Pool, job: Any) -> bool:
    """Tell whether a job's step has said that it runs."""
    return "about to misbehave" in pool.log(job)


def hang(gate: Gate) -> str:
    """Return the options of ``misbehave`` with which a job runs until the gate is opened."""
    return f"-c misbehave:how=hang -c misbehave:until={gate.path} -c misbehave:duration=3600"


async def test_jobs_survive_the_death_of_the_preloaded_process(pool: Pool, tmp_path: Path) -> None:
    gate = Gate(tmp_path / "gate")
    pid = await pool.preloaded()
    ends_well, fails = [
        await pool.submit("misbehave", config=hang(gate)),
        await pool.submit("misbehave", config="-c misbehave:how=exit -c misbehave:exitCode=9"),
    ]
    await until(lambda: running(pool, ends_well))
    assert pool.was_preloaded(ends_well)
    os.kill(pid, signal.SIGKILL)
    gate.open()
    assert (await pool.end(ends_well)).phase == Phase.COMPLETED
    failed = await pool.end(fails)
    assert (failed.phase, failed.exit_code) == (Phase.ERROR, 9)
    # The very next job must not suffer from it, and soon all is as before.
    assert (await pool.run("oneQuantum")).phase == Phase.COMPLETED
    assert await pool.preloaded() != pid
    job = await pool.submit("misbehave", config=hang(Gate(tmp_path / "never")))
    await until(lambda: running(pool, job))
    assert pool.was_preloaded(job)
    await pool.manager.abort(job.id)
    assert (await pool.end(job)).phase == Phase.ABORTED


async def test_a_preloaded_process_that_does_not_answer_is_replaced(
    pool: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lsst.dm.OCPS.backends.local.zygote.pool.ANSWER_TIMEOUT", 0.5)
    pid = await pool.preloaded()
    os.kill(pid, signal.SIGSTOP)
    try:
        assert (await pool.run("oneQuantum")).phase == Phase.COMPLETED
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGCONT)
    await until(lambda: not psutil.pid_exists(pid))
    assert await pool.preloaded() != pid


async def test_it_ends_with_ocps_and_jobs_do_not(repo: Path, tmp_path: Path) -> None:
    async with open_pool(tmp_path / "work", repo) as pool:
        pid = await pool.preloaded()
        gate = Gate(tmp_path / "gate")
        job = await pool.submit("misbehave", config=hang(gate))
        await until(lambda: running(pool, job))
    assert not psutil.pid_exists(pid)
    gate.open()
    async with open_pool(tmp_path / "work", repo, environments=COLD) as pool:
        assert (await pool.end(job)).phase == Phase.COMPLETED


def same_command(pid: int, command: list[str]) -> list[int]:
    """Return the processes with a command line, beside the one of this id: forks of it."""
    found = {process.pid: process.info["cmdline"] for process in psutil.process_iter(["cmdline"])}
    return sorted(other for other, line in found.items() if other != pid and line == command)


async def test_the_next_job_is_forked_ahead(repo: Path, tmp_path: Path) -> None:
    async with open_pool(tmp_path / "work", repo) as pool:
        pid = await pool.preloaded()
        command = psutil.Process(pid).cmdline()
        # While no job runs, there are a supervisor and the process of a step.
        await until(lambda: len(same_command(pid, command)) == 2)
        ahead = same_command(pid, command)
        job = await pool.submit("misbehave", config=hang(Gate(tmp_path / "never")))
        await until(lambda: running(pool, job))
        workspace = pool.workspace(job)
        names = ("supervisor.json", "group.json")
        assert sorted(workspace.read_json(name)["pid"] for name in names) == ahead
        await pool.manager.abort(job.id)
        await until(lambda: len(same_command(pid, command)) == 2)
        # Should somebody kill them, the next job is forked when it comes.
        for other in same_command(pid, command):
            os.kill(other, signal.SIGKILL)
        assert (await pool.run("oneQuantum")).phase == Phase.COMPLETED
        await until(lambda: len(same_command(pid, command)) == 2)
    await until(lambda: not same_command(pid, command))


async def test_the_butler_is_checked_by_it(pool: Pool, monkeypatch: pytest.MonkeyPatch) -> None:
    await pool.preloaded()
    planner = pool.backend.planners["pipetask"]

    async def not_this_one() -> str:
        raise AssertionError("a new process was started")

    monkeypatch.setattr(planner, "_check_cold", not_this_one)
    monkeypatch.setattr("lsst.dm.OCPS.backends.local.pipetask.CHECK_TIMEOUT", TIMEOUT)
    await pool.backend.check()
    found = await pool.zygotes.check(pool.preload, ["no/such"], TIMEOUT)
    assert "no input collection 'no/such'" in found


async def test_user_code_that_changes_is_seen_and_a_changed_package_replaces_it(
    repo: Path, tmp_path: Path, probe: Probe
) -> None:
    environment = probe("first")
    async with open_pool(tmp_path / "work", repo, environments=[environment]) as own:
        pid = await own.preloaded()
        assert probed(await own.run(environment["variables"]["PROBE"]))["value"] == "first"
        probe("the second one")
        assert probed(await own.run(environment["variables"]["PROBE"]))["value"] == "the second one"
        assert await own.preloaded() == pid, "user code is not preloaded, so need not replace anything"
        # A new interpreter would load this one instead of what is loaded.
        folder = Path(environment["variables"]["PYTHONPATH"])
        (folder / "new_user_code.py").write_text("")
        assert (await own.run("oneQuantum")).phase == Phase.COMPLETED
        assert await own.preloaded() == pid, "nothing like it is loaded"
        (folder / "click.py").write_text("raise ImportError('this is the one')")
        job = await own.run("oneQuantum")
        assert job.phase == Phase.ERROR
        assert "this is the one" in own.log(job)
        await until(lambda: not psutil.pid_exists(pid))


async def test_what_comes_into_the_repository_is_seen(own_repo: Path, tmp_path: Path) -> None:
    async with open_pool(tmp_path / "work", own_repo, output_glob="*") as pool:
        pid = await pool.preloaded()
        job = await pool.run("bias", BIAS)
        assert job.progress.total == 11
        with Butler.from_config(str(own_repo), writeable=True) as butler:
            add_exposure(butler)
        job = await pool.run("bias", BIAS, "-i later/raws")
        assert job.progress.total == 13, pool.log(job)
        job = await pool.run("bias", "exposure.observation_type='bias' AND exposure.seq_num > 1000")
        assert "QuantumGraph was empty" in pool.log(job), "not among the usual inputs"
        assert await pool.preloaded() == pid


def add_exposure(butler: Butler) -> None:
    """Add an exposure with a raw in a collection of its own, and a dataset type."""
    registry = butler.registry
    record = next(iter(registry.queryDimensionRecords("exposure", where=BIAS, instrument="DemoCam")))
    values = record.toDict() | {"id": 99_999, "seq_num": 1001, "obs_id": "later", "group": "later"}
    values |= {"seq_start": 1001, "seq_end": 1001}
    registry.insertDimensionData("group", {"instrument": "DemoCam", "name": "later"})
    registry.insertDimensionData("exposure", values)
    registry.registerRun("later/raws")
    for detector in (0, 1):
        raw = butler.get(
            "raw",
            instrument="DemoCam",
            exposure=record.id,
            detector=detector,
            collections="DemoCam/raw/all",
        )
        data_id = {"instrument": "DemoCam", "exposure": 99_999, "detector": detector}
        butler.put(raw, "raw", data_id, run="later/raws")
    registry.registerDatasetType(
        DatasetType("laterType", ("physical_filter",), "StructuredDataDict", universe=butler.dimensions)
    )


async def test_a_repository_that_was_made_anew_is_seen(tmp_path: Path) -> None:
    plan = Plan(biases=3, flats=0, focus_positions=())
    path = make_repo(tmp_path / "repo", seed=1, plan=plan)
    async with open_pool(tmp_path / "work", path) as pool:
        pid = await pool.preloaded()
        first = await pool.run("bias", BIAS)
        shutil.rmtree(path)
        make_repo(path, seed=2, plan=plan)
        second = await pool.run("bias", BIAS)
        assert await pool.preloaded() != pid
        third = await pool.run("bias", BIAS)
    metrics = [
        {str(each["dataId"]): each["values"] for each in job.info["metrics"]}
        for job in (first, second, third)
    ]
    assert metrics[0] != metrics[1]
    assert metrics[1] == metrics[2]


async def test_a_database_that_was_put_back_is_seen(own_repo: Path, tmp_path: Path) -> None:
    """The same file, overwritten: neither its inode nor the configuration tells."""
    database = own_repo / "gen3.sqlite3"
    before = database.read_bytes()
    with Butler.from_config(str(own_repo), writeable=True) as butler:
        # This makes a table, which the preloaded process then knows.
        butler.registry.registerDatasetType(
            DatasetType(
                "oneQuantumMetrics", ("instrument",), "StructuredDataDict", universe=butler.dimensions
            )
        )
    assert database.read_bytes() != before
    async with open_pool(tmp_path / "work", own_repo) as pool:
        pid = await pool.preloaded()
        # When it answers this, it has opened its Butlers.
        assert await pool.zygotes.check(pool.preload, [], TIMEOUT) == ""
        database.write_bytes(before)
        assert (await pool.run("oneQuantum")).exit_code == 0
        await until(lambda: not psutil.pid_exists(pid))
        await pool.preloaded()
        assert (await pool.run("bias", BIAS)).exit_code == 0


async def test_a_hundred_jobs_leave_nothing_behind(pool: Pool) -> None:
    await pool.run("oneQuantum")
    pid = await pool.preloaded()
    me, zygote = psutil.Process(), psutil.Process(pid)
    command = zygote.cmdline()

    async def held() -> tuple[int, int, set[str]]:
        # What waits for the next job is always there while no job runs.
        await until(lambda: len(same_command(pid, command)) == 2)
        # Tests before may have left files; only what comes now counts.
        return me.num_fds(), zygote.num_fds(), set(os.listdir(tempfile.gettempdir()))

    before = await held()
    # Half of them end well or with an error of their task, half before pipetask has a pipeline.
    work = [("oneQuantum", "")] * 40 + [("misbehave", "-c misbehave:how=raise")] * 10
    work += [("oneQuantum", "--start-method nonsense")] * 50
    jobs = [await pool.submit(name, config=config) for name, config in work]
    codes = [(await pool.end(job)).exit_code for job in jobs]
    assert codes == [0] * 40 + [1] * 10 + [2] * 50
    await until(lambda: {each.pid for each in me.children(recursive=True)} == {pid})
    # One of each kind may come and go with what the loop does beside.
    after = await held()
    assert after[0] <= before[0] + 2
    assert after[1] <= before[1] + 2
    assert {name for name in after[2] - before[2] if "butler" in name or "ocps" in name} == set()
    for job in jobs:
        for name in ("supervisor.json", "group.json"):
            claim = pool.workspace(job).read_json(name)
            seen = identity(claim["pid"])
            assert seen is None or not seen.items() <= claim.items()


async def test_an_environment_that_cannot_be_preloaded_still_runs_jobs(
    repo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    broken = tmp_path / "zygote.py"
    broken.write_text("raise RuntimeError('not today')")
    monkeypatch.setattr("lsst.dm.OCPS.backends.local.zygote.pool.ZYGOTE", broken)
    monkeypatch.setattr("lsst.dm.OCPS.backends.local.zygote.pool.RETRY_AFTER", (600.0, 600.0))
    async with open_pool(tmp_path / "work", repo) as pool:
        with pytest.raises(BackendError):
            await pool.preloaded()
        assert (await pool.run("oneQuantum")).phase == Phase.COMPLETED
        assert (await pool.run("oneQuantum")).phase == Phase.COMPLETED
    said = [record.message for record in caplog.records if "preload" in record.message]
    assert len(said) == 1
    assert "not today" in said[0]


async def test_a_preloaded_process_killed_while_it_loads_is_soon_started_again(
    repo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("lsst.dm.OCPS.backends.local.zygote.pool.RETRY_AFTER", (0.0, 600.0))
    async with open_pool(tmp_path / "work", repo) as pool:
        await until(pool.zygotes.pids)
        (pid,) = pool.zygotes.pids()
        temporary, pattern = Path(tempfile.gettempdir()), f"ocps-warmup-{pid}-*"
        await until(lambda: list(temporary.glob(pattern)))
        os.kill(pid, signal.SIGKILL)
        await until(lambda: not pool.zygotes.pids())
        assert (await pool.run("oneQuantum")).phase == Phase.COMPLETED
        assert await pool.preloaded() != pid
        assert not list(temporary.glob(pattern)), "the next one removes what it has left"
    assert "next attempt in 0 s" in caplog.text


async def test_ending_does_not_wait_for_what_is_being_preloaded(repo: Path, tmp_path: Path) -> None:
    never_ready = [{"name": "default", "setup": "sleep 3600"}]
    async with asyncio.timeout(TIMEOUT):
        async with open_pool(tmp_path / "work", repo, environments=never_ready) as pool:
            await until(pool.zygotes.pids)
            (pid,) = pool.zygotes.pids()
    assert not psutil.pid_exists(pid)
