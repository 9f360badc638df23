# SPDX-License-Identifier: GPL-3.0-or-later
"""A job that ended as aborted while it was still being launched, and OCPS that ends meanwhile."""

from __future__ import annotations

import asyncio
import logging
import sys
import types
from pathlib import Path
from typing import Any

import pytest
from lsst.dm.OCPS.backends.local import backend as local_backend
from lsst.dm.OCPS.backends.local.handle import Claim, SupervisorHandle
from lsst.dm.OCPS.config import InstanceConfig
from lsst.dm.OCPS.factory import make_manager
from lsst.dm.OCPS.jobs import scheduler
from lsst.dm.OCPS.jobs.errors import BackendError, UnknownJobError
from lsst.dm.OCPS.jobs.manager import JobManager
from lsst.dm.OCPS.jobs.model import ErrorSummary, ExecutionPhase, Job
from lsst.dm.OCPS.jobs.retries import RetryPolicy

from tests.backends.local.shell_pool import open_pool, request
from tests.waiting import TIMEOUT, until


def slow_launcher(folder: Path) -> Path:
    """Write an interpreter that does nothing until there is a file ``go``, whatever becomes of OCPS."""
    launcher = folder / "slow-python"
    waits = f'while [ ! -e {folder}/go ]; do sleep 0.02; done; exec {sys.executable} "$@"'
    runs = f"setsid sh -c '{waits}' sh \"$@\"; touch {folder}/launched"
    launcher.write_text(f"#!/bin/sh\ntouch {folder}/asked\n({runs}) &\nwait\n")
    launcher.chmod(0o755)
    return launcher


def launch_slowly(backend: Any) -> tuple[asyncio.Event, asyncio.Event]:
    """Let each launch wait; return what is set when one begins, and what lets it end."""
    begins, ends = asyncio.Event(), asyncio.Event()

    async def submit(job: Job) -> None:
        begins.set()
        await ends.wait()

    backend.submit = submit
    return begins, ends


async def come_to_rest() -> None:
    """Let all tasks come as far as they do without a launch."""
    for _ in range(20):
        await asyncio.sleep(0)


async def until_gone(manager: JobManager, job_id: str) -> None:
    """Wait until a job has no record."""
    async with asyncio.timeout(TIMEOUT):
        while await manager.store.get(job_id):
            await asyncio.sleep(0.02)


@pytest.mark.parametrize("deleted", [False, True], ids=["kept", "deleted"])
@pytest.mark.parametrize("launched", ["before the next start", "after the next start"])
async def test_a_job_whose_stop_was_not_confirmed_is_stopped_after_a_restart(
    tmp_path, monkeypatch, launched, deleted
):
    work, limits = tmp_path / "work", {"abort_grace": 0.2}
    launcher = slow_launcher(tmp_path)
    monkeypatch.setattr(scheduler, "LAUNCH_WAIT", 0.1)
    monkeypatch.setattr(local_backend, "sys", types.SimpleNamespace(executable=str(launcher)))
    manager = await open_pool(work, limits)
    job = await manager.submit(request("touch ../ran; sleep infinity"))
    await until((tmp_path / "asked").exists)
    aborted = await manager.abort(job.id)
    assert aborted.phase == ExecutionPhase.ABORTED
    assert "did not confirm" in aborted.message
    workspace = manager.workspaces.of(job.id)
    if deleted:
        await manager.destroy(job.id)
        with pytest.raises(UnknownJobError):
            await manager.get(job.id)
    await manager.close()
    if launched == "before the next start":
        (tmp_path / "go").touch()
        await until((workspace.root / "ran").exists)

    manager = await open_pool(work, limits)
    (tmp_path / "go").touch()
    claim = Claim.read(workspace, "supervisor.json")
    if claim and (handle := SupervisorHandle.find(claim)):
        async with asyncio.timeout(TIMEOUT):
            await handle.ended()
        handle.close()
    await until((tmp_path / "launched").exists)
    # It is not stopped once more after each start.
    await until(lambda: not manager.scheduler.unconfirmed)
    if deleted:
        await until(lambda: not workspace.root.exists() and not workspace.engine.exists())
        await until_gone(manager, job.id)
    else:
        assert (workspace.root / "ran").exists() == (launched == "before the next start")
        assert await manager.get(job.id) == aborted
    await manager.close()
    manager = await open_pool(work, limits)
    assert not manager.scheduler.unconfirmed
    await manager.close()


async def test_ocps_does_not_end_before_it_has_stopped_a_job_that_is_being_launched(bench, ask, monkeypatch):
    monkeypatch.setattr(scheduler, "LAUNCH_WAIT", TIMEOUT)
    manager = await bench.open(abort_grace=0.05)
    launch, launched = launch_slowly(bench.backend)
    job = await manager.submit(ask())
    await launch.wait()
    assert (await manager.abort(job.id)).phase == ExecutionPhase.ABORTED
    assert not bench.backend.cancelled
    closing = asyncio.create_task(manager.close())
    await come_to_rest()
    launched.set()
    await closing
    assert bench.backend.cancelled == [job.id]


async def test_an_attempt_that_is_planned_while_ocps_ends_is_left_to_the_next_start(bench, ask, monkeypatch):
    monkeypatch.setattr(scheduler, "LAUNCH_WAIT", TIMEOUT)
    manager = await bench.open(abort_grace=0.05, retries=RetryPolicy(max=1, delay=3600))
    running = await manager.submit(ask())
    await bench.given(1)
    launch, launched = launch_slowly(bench.backend)
    launching = await manager.submit(ask())
    await launch.wait()
    await manager.abort(launching.id)
    closing = asyncio.create_task(manager.close())
    await come_to_rest()
    bench.backend.say(running.id, ExecutionPhase.ERROR, error=ErrorSummary("killed", transient=True))
    await until(lambda: running.id in manager.scheduler._delayed)
    launched.set()
    await closing
    assert manager.scheduler._delayed[running.id].cancelled()


async def test_a_stop_that_fails_once_more_keeps_ocps_from_nothing(bench, ask, monkeypatch):
    manager = await bench.open(abort_grace=0.05)
    bench.backend.confirms = False
    job = await manager.submit(ask())
    await bench.given(1)
    await manager.abort(job.id)
    asked = asyncio.Event()

    async def fail(backend, job):
        asked.set()
        raise BackendError("no answer")

    with monkeypatch.context() as context:
        context.setattr(type(bench.backend), "cancel", fail)
        manager = await bench.reopen()
        await asyncio.wait_for(asked.wait(), TIMEOUT)
        await manager.submit(ask())
        await bench.given(1)
    manager = await bench.reopen()
    await until(lambda: bench.backend.cancelled == [job.id])
    await until(lambda: not manager.scheduler.unconfirmed)


async def test_a_start_names_the_jobs_that_only_a_former_configuration_can_stop(bench, ask, caplog):
    manager = await bench.open(abort_grace=0.05)
    bench.backend.confirms = False
    job = await manager.submit(ask())
    await bench.given(1)
    await manager.destroy(job.id)
    await manager.close()

    config = InstanceConfig(
        sal_index=1, work_dir=str(bench.folder / "work"), backend="simulation", definitions=("sleep",)
    )

    async def warnings() -> list[str]:
        caplog.clear()
        manager = await make_manager(config, logging.getLogger("engine"))
        await manager.close()
        return [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]

    (warning,) = await warnings()
    assert job.id in warning
    assert "Start OCPS once with the configuration of the backend test" in warning
    # That is done.
    bench.backend.confirms = True
    manager = await bench.open()
    await until(lambda: not manager.scheduler.unconfirmed)
    await until_gone(manager, job.id)
    await manager.close()
    assert await warnings() == []
