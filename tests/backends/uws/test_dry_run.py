# SPDX-License-Identifier: GPL-3.0-or-later
"""Dry runs of forwarded jobs: the OCPS that would run them is asked, where it has dry runs."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path

import pytest
from lsst.dm.OCPS.backends.uws.server import MAX_DRY_RUNS, UwsServer
from lsst.dm.OCPS.jobs.errors import BackendError, QueueFullError, RequestError, WouldFailError
from lsst.dm.OCPS.jobs.model import Job, JobRequest
from lsst.dm.OCPS.jobs.store import JobQuery

from tests.backends.uws.conftest import Engine, MakeEngine
from tests.http.conftest import Start, start
from tests.ports import free_port

__all__ = ["start"]


def pipeline(query: str = "", name: str = "bias") -> JobRequest:
    path = f"$DEMOCAM_DIR/pipelines/{name}.yaml"
    return JobRequest("pipetask", {"pipeline": path, "data_query": query})


async def test_the_ocps_behind_it_builds_the_quantum_graph(
    start: Start, repo: Path, tmp_path: Path, make_engine: MakeEngine
) -> None:
    remote = await start(
        butler=str(repo), input_collection="DemoCam/raw/all", work_dir=str(tmp_path / "remote")
    )
    engine = await make_engine(url=remote.root, butler=str(repo), input_collection="")
    found = await engine.manager.dry_run(pipeline("exposure.observation_type='bias'"))
    assert found.quanta
    assert found.tasks
    assert found.argv[:3] == ("pipetask", "--long-log", "run")
    with pytest.raises(WouldFailError, match=r"^The job would fail: no data matched: exposure=999"):
        await engine.manager.dry_run(pipeline("exposure=999"))
    # Only the server sees which pipelines there are.
    with pytest.raises(
        WouldFailError, match=f"^The job would fail: UWS server {remote.root} refuses it: .*nosuch"
    ):
        await engine.manager.dry_run(pipeline(name="nosuch"))
    with pytest.raises(RequestError, match="config"):
        await engine.manager.dry_run(JobRequest("pipetask", {"pipeline": "x.yaml", "config": "--debug"}))
    for manager in (remote.manager, engine.manager):
        assert await manager.find(JobQuery()) == []


async def test_another_server_is_sent_nothing(engine: Engine) -> None:
    found = await engine.manager.dry_run(pipeline())
    assert found.quanta is None
    assert found.message.startswith("checked: the request; the UWS server http://127.0.0.1")
    assert found.message.endswith("has no dry runs, so pipeline and data were not looked at")
    assert not engine.standin.jobs


async def test_an_older_ocps_is_not_asked_for_a_dry_run(
    start: Start, tmp_path: Path, make_engine: MakeEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    remote = await start(work_dir=str(tmp_path / "remote"))
    engine = await make_engine(url=remote.root)
    # Its document does not have the mark.
    monkeypatch.setattr("lsst.dm.OCPS.client.follow.DRY_RUN_MARK", "x-nosuch")
    found = await engine.manager.dry_run(pipeline())
    assert "has no dry runs" in found.message
    assert await remote.manager.find(JobQuery()) == []


async def test_a_server_that_is_away_is_named(make_engine: MakeEngine) -> None:
    port = free_port()
    engine = await make_engine(url=f"http://127.0.0.1:{port}")
    with pytest.raises(BackendError, match=f"127.0.0.1:{port}"):
        await engine.manager.dry_run(pipeline())


async def test_no_more_are_under_way_than_leave_connections_to_jobs(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, answered = asyncio.Semaphore(0), asyncio.Event()

    async def slow(server: UwsServer, job: Job) -> None:
        begun.release()
        await answered.wait()

    monkeypatch.setattr(UwsServer, "dry_run", slow)
    # One owner may not have so many.
    requests = [replace(pipeline(), owner=f"user{number}") for number in range(MAX_DRY_RUNS)]
    running = [asyncio.create_task(engine.manager.dry_run(request)) for request in requests]
    for _ in running:
        await begun.acquire()
    with pytest.raises(QueueFullError, match=f"{MAX_DRY_RUNS} dry runs are under way"):
        await engine.manager.dry_run(pipeline())
    answered.set()
    await asyncio.gather(*running)
    await engine.manager.dry_run(pipeline())
