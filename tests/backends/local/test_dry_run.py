# SPDX-License-Identifier: GPL-3.0-or-later
"""Dry runs: the quantum graph is built as a job would build it, and nothing else happens."""

from __future__ import annotations

import asyncio
import hashlib
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from lsst.dm.OCPS.backends.local import dry_run as dry_runs
from lsst.dm.OCPS.jobs.errors import BackendError, QueueFullError, RequestError, WouldFailError
from lsst.dm.OCPS.jobs.model import JobRequest
from lsst.dm.OCPS.jobs.store import JobQuery

from tests.backends.local.harness import BIAS, Pool, open_pool
from tests.backends.local.shell_pool import gone
from tests.backends.local.shell_pool import open_pool as open_shell_pool
from tests.backends.local.shell_pool import request as shell_request
from tests.waiting import TIMEOUT, until

pytestmark = pytest.mark.asyncio(loop_scope="package")


def pipeline(name: str, query: str = "", config: str = "") -> JobRequest:
    parameters = {"pipeline": f"$DEMOCAM_DIR/pipelines/{name}.yaml", "data_query": query, "config": config}
    return JobRequest("pipetask", parameters)


def content(repo: Path) -> str:
    """Return a digest of all that a repository's database has, and of the names of its files."""
    with sqlite3.connect(repo / "gen3.sqlite3") as connection:
        rows = "\n".join(connection.iterdump())
    files = sorted(str(path.relative_to(repo)) for path in repo.rglob("*") if "-journal" not in path.name)
    return hashlib.sha256(f"{rows}{files}".encode()).hexdigest()


def folders(manager: Any) -> list[Path]:
    return list(manager.workspaces.work_dir.glob("*/dry-run-*"))


async def test_the_quanta_of_each_task_are_counted_and_nothing_is_left(pool: Pool, repo: Path) -> None:
    before, jobs = content(repo), await pool.manager.find(JobQuery())
    found = await pool.manager.dry_run(pipeline("bias", BIAS))
    # The data query selects what the job that follows processes.
    job = await pool.run("bias", BIAS, "--register-dataset-types")
    assert found.tasks is not None
    assert found.quanta == job.progress.total
    assert found.tasks == {label: sum(counts.values()) for label, counts in job.info["tasks"].items()}
    assert found.argv[:3] == ("pipetask", "--long-log", "run")
    assert "--data-query" in found.argv
    assert [entry.id for entry in await pool.manager.find(JobQuery())] == [*[j.id for j in jobs], job.id]
    assert not folders(pool.manager)
    assert content(repo) != before, "the job itself does write"
    before = content(repo)
    assert (await pool.manager.dry_run(pipeline("bias", BIAS))).quanta == found.quanta
    assert content(repo) == before


async def test_it_says_why_the_job_would_fail(pool: Pool) -> None:
    with pytest.raises(WouldFailError, match="no data matched: exposure=999"):
        await pool.manager.dry_run(pipeline("bias", "exposure=999"))
    with pytest.raises(WouldFailError, match="the data query is wrong"):
        await pool.manager.dry_run(pipeline("bias", "nosuch.thing = "))
    with pytest.raises(WouldFailError, match=r"a collection is missing: .*nosuch"):
        await pool.manager.dry_run(pipeline("bias", BIAS, "-i nosuch"))
    assert not folders(pool.manager)


async def test_a_refusal_is_that_of_a_submission(pool: Pool) -> None:
    for request in (
        pipeline("nosuch"),
        pipeline("bias", config="--debug"),
        pipeline("bias", config="-j many"),
        JobRequest("pipetask", {"pipeline": "$DEMOCAM_DIR/pipelines/bias.yaml", "version": "w_9999"}),
        JobRequest("nosuch", {}),
        JobRequest("pipetask", {"pipeline": "$DEMOCAM_DIR/pipelines/bias.yaml"}, prerequisites=("no",)),
    ):
        with pytest.raises(RequestError) as tried:
            await pool.manager.dry_run(request)
        with pytest.raises(RequestError) as submitted:
            await pool.manager.submit(request)
        assert str(tried.value) == str(submitted.value)


async def test_options_of_the_execution_do_not_disturb(pool: Pool) -> None:
    options = "-j 2 --fail-fast --register-dataset-types --no-versions"
    found = await pool.manager.dry_run(pipeline("bias", BIAS, options))
    assert found.quanta
    assert found.argv[-2:] == ("--data-query", BIAS)


async def test_it_has_the_limits_and_the_environment_of_a_job(
    repo: Path, probe: Callable[[str], dict[str, Any]], tmp_path: Path
) -> None:
    settings = probe("a")
    code = Path(settings["variables"]["PYTHONPATH"]) / "user_probe.py"
    report = tmp_path / "seen"
    code.write_text(
        code.read_text() + f"\nopen({str(report)!r}, 'w').write("
        "f\"{resource.getrlimit(resource.RLIMIT_NOFILE)[0]} {os.environ['JOB_ID']} {os.environ['PROBE']}\")\n"
    )
    environment = {**settings, "preload": False}
    async with open_pool(
        tmp_path / "work", repo, environments=[environment], limits={"open_files": 777}
    ) as pool:
        found = await pool.manager.dry_run(
            JobRequest("pipetask", {"pipeline": settings["variables"]["PROBE"]})
        )
        assert found.tasks == {"probe": 1}
        files, job_id, value = report.read_text().split()
        assert (files, value) == ("777", settings["variables"]["PROBE"])
        assert job_id.startswith("dry-run-")
        assert not folders(pool.manager)


async def test_it_is_stopped_when_it_takes_too_long(
    repo: Path, probe: Callable[[str], dict[str, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = probe("a")
    code = Path(settings["variables"]["PYTHONPATH"]) / "user_probe.py"
    pid = tmp_path / "pid"
    code.write_text(f"import os, time\nopen({str(pid)!r}, 'w').write(str(os.getpid()))\ntime.sleep(3600)\n")
    async with open_pool(tmp_path / "work", repo, environments=[{**settings, "preload": False}]) as pool:
        request = JobRequest("pipetask", {"pipeline": settings["variables"]["PROBE"]})
        running = asyncio.create_task(pool.manager.dry_run(request))
        await until(lambda: pid.exists() and pid.read_text() != "")
        # The caller gives up: nothing of it stays.
        running.cancel()
        await asyncio.wait({running}, timeout=TIMEOUT)
        assert running.cancelled()
        assert not Path(f"/proc/{pid.read_text()}").exists()
        assert not folders(pool.manager)
        monkeypatch.setattr(dry_runs, "DRY_RUN_TIMEOUT", 0.2)
        with pytest.raises(BackendError, match=r"stopped: it took longer than 0\.2 s"):
            await pool.manager.dry_run(request)
        assert not folders(pool.manager)


async def test_one_that_was_killed_does_not_say_that_the_job_would_fail(
    repo: Path, probe: Callable[[str], dict[str, Any]], tmp_path: Path
) -> None:
    settings = probe("a")
    code = Path(settings["variables"]["PYTHONPATH"]) / "user_probe.py"
    code.write_text("import os, signal\nos.kill(os.getpid(), signal.SIGKILL)\n")
    async with open_pool(tmp_path / "work", repo, environments=[{**settings, "preload": False}]) as pool:
        words = "whether the job would fail could not be found out: it was killed"
        with pytest.raises(BackendError, match=words):
            await pool.manager.dry_run(JobRequest("pipetask", {"pipeline": settings["variables"]["PROBE"]}))


async def test_one_that_is_given_up_while_it_is_launched_is_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    manager = await open_shell_pool(tmp_path / "work")
    backend: Any = manager.lane.backend
    launch, answer, pid = backend._dry_runs._launch, asyncio.Event(), tmp_path / "pid"

    async def launch_and_wait(*arguments: Any) -> None:
        await launch(*arguments)
        await answer.wait()

    planner = backend.planners["command"]
    monkeypatch.setattr(planner, "dry_plan", planner.plan)
    monkeypatch.setattr(backend._dry_runs, "_launch", launch_and_wait)
    try:
        running = asyncio.create_task(manager.dry_run(shell_request(f"echo $$ > {pid}; sleep 3600")))
        await until(lambda: pid.exists() and pid.read_text() != "")
        running.cancel()
        await asyncio.sleep(0)
        answer.set()
        await asyncio.wait({running}, timeout=TIMEOUT)
        assert running.cancelled()
        assert gone(int(pid.read_text()))
        assert not folders(manager)
    finally:
        await manager.close()


async def test_a_command_line_is_shown_without_secrets(tmp_path: Path) -> None:
    manager = await open_shell_pool(tmp_path / "work")
    try:
        found = await manager.dry_run(shell_request("curl --token=abc https://me:pw@host -H 'A: Bearer xyz'"))
        assert found.argv[:2] == ("sh", "-c")
        assert not any(secret in found.argv[2] for secret in ("abc", "pw", "xyz"))
        assert found.message.startswith("would run: sh -c")
        assert not manager.live()
        assert not folders(manager)
    finally:
        await manager.close()


async def test_no_more_are_let_in_than_can_be_carried_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    manager = await open_shell_pool(tmp_path / "work")
    monkeypatch.setattr(dry_runs, "MAX_WAITING", -dry_runs.MAX_AT_ONCE)
    try:
        with pytest.raises(QueueFullError, match="0 dry runs are under way"):
            await manager.dry_run(shell_request("true"))
    finally:
        await manager.close()


async def test_a_dry_run_takes_no_place_in_the_queue(tmp_path: Path) -> None:
    manager = await open_shell_pool(tmp_path / "work", {"max_workers": 1, "max_queued": 1})
    try:
        for _ in range(5):
            await manager.dry_run(shell_request("true"))
        gate = tmp_path / "gate"
        for _ in range(2):
            await manager.submit(shell_request(f"until [ -e {gate} ]; do sleep 0.05; done"))
        with pytest.raises(QueueFullError, match="The queue is full"):
            await manager.dry_run(shell_request("true"))
        gate.touch()
        for job in manager.live():
            await manager.wait(job.id, TIMEOUT)
    finally:
        await manager.close()


async def test_what_a_killed_ocps_left_is_removed_at_the_next_start(tmp_path: Path) -> None:
    manager = await open_shell_pool(tmp_path / "work")
    await manager.close()
    for name in ("jobs", "engine"):
        (tmp_path / "work" / name / "dry-run-0").mkdir()
    manager = await open_shell_pool(tmp_path / "work")
    try:
        assert not folders(manager)
    finally:
        await manager.close()
