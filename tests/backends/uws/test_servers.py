# SPDX-License-Identifier: GPL-3.0-or-later
"""The uws backend with each kind of server: ours, ours behind a bad network, another UWS 1.1 server."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import pytest_asyncio
from lsst.dm.OCPS.backends.uws.backend import UwsBackend
from lsst.dm.OCPS.config import HttpConfig, InstanceConfig, UwsConfig
from lsst.dm.OCPS.definitions.pipetask import PIPETASK
from lsst.dm.OCPS.factory import make_manager
from lsst.dm.OCPS.http.server import HttpServer, start_server
from lsst.dm.OCPS.jobs.backend import BackendUpdate
from lsst.dm.OCPS.jobs.limits import Limits
from lsst.dm.OCPS.jobs.manager import JobManager
from lsst.dm.OCPS.jobs.model import ExecutionPhase, Job, JobRequest, Progress, Result
from lsst.dm.OCPS.jobs.parts import Parts
from lsst.dm.OCPS.jobs.store import JobQuery, JobStore
from lsst.dm.OCPS.jobs.workspace import Workspaces

from benchmarks.own_server import AnyPipeline, Pause
from tests.proxy import Proxy
from tests.uws11 import Uws11
from tests.waiting import until, until_job

LOG = logging.getLogger("ocps.test")


@dataclass
class Remote:
    """An OCPS whose jobs end when they are told to."""

    manager: JobManager
    backend: Pause
    server: HttpServer

    async def of(self, job: Job) -> Job:
        """Return the job that was made for one of ours."""
        (found,) = await self.manager.find(JobQuery(run_id=job.id))
        return found

    async def change(self, job: Job, **fields: object) -> None:
        """Let something happen to it."""
        self.backend.report((await self.of(job)).id, BackendUpdate(**fields))  # type: ignore[arg-type]


@pytest_asyncio.fixture
async def remote(tmp_path: Path) -> AsyncIterator[Remote]:
    workspaces = Workspaces(tmp_path / "remote")
    workspaces.open()
    manager = JobManager(await JobStore.open(), workspaces, LOG)
    await manager.open()
    backend = Pause(1e6, 0)
    await manager.use(
        "pause", Parts("pause", backend, {PIPETASK: AnyPipeline(PIPETASK)}, Limits(max_workers=1000))
    )
    server = await start_server(manager, HttpConfig(port=0), LOG)
    yield Remote(manager, backend, server)
    await server.close()
    await manager.close()


@pytest_asyncio.fixture
async def network(remote: Remote) -> AsyncIterator[Proxy]:
    proxy = await Proxy(f"http://127.0.0.1:{remote.server.port}").start()
    yield proxy
    await proxy.stop()


async def engine(url: str, work_dir: Path, poll_interval: float = 0.05) -> JobManager:
    config = InstanceConfig(
        sal_index=1,
        backend="uws",
        url=url,
        poll_interval=poll_interval,
        work_dir=str(work_dir),
        uws=UwsConfig(timeout=60),
    )
    return await make_manager(config, LOG)


@pytest_asyncio.fixture
async def manager(network: Proxy, tmp_path: Path) -> AsyncIterator[JobManager]:
    """An engine that forwards to the other one, through the network."""
    manager = await engine(f"{network.url}/api/v1", tmp_path / "work")
    yield manager
    await manager.close()


async def submit(manager: JobManager) -> Job:
    return await manager.submit(JobRequest(PIPETASK, {"pipeline": "$CP_PIPE_DIR/bias.yaml"}))


async def phase(manager: JobManager, job: Job, wanted: str) -> Job:
    found = await until_job(manager, job.id, lambda job: job.phase == wanted)
    assert found.phase == wanted, f"{found.phase}: {found.message}"
    return found


async def test_our_own_server_is_known_and_followed_by_its_stream(
    manager: JobManager, remote: Remote, network: Proxy, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    job = await submit(manager)
    await network.opened(1)
    await phase(manager, job, "EXECUTING")
    assert "is an OCPS: one change stream shows all jobs" in caplog.text
    await remote.change(job, progress=Progress(1, 0, 3), message="second of three")
    await until_job(manager, job.id, lambda job: job.message == "second of three")
    job = await manager.get(job.id)
    assert job.progress == Progress(1, 0, 3)
    file = Result("a.png", f"file://{remote.manager.workspaces.work_dir}/jobs/x/output/a.png")
    await remote.change(job, phase=ExecutionPhase.COMPLETED, exit_code=0, results=(file,))
    job = await phase(manager, job, "COMPLETED")
    there = await remote.of(job)
    assert [result.uri for result in job.results] == [f"{network.url}/api/v1/job/result/{there.id}/0"]


async def test_nothing_is_asked_while_nothing_happens(
    manager: JobManager, remote: Remote, network: Proxy
) -> None:
    jobs = [await submit(manager) for _ in range(20)]
    await network.opened(1)
    for job in jobs:
        await phase(manager, job, "EXECUTING")
    # The look after the opening may still be under way.
    await until(lambda: network.counts["GET"] >= 2)
    before = network.counts["GET"]
    # The end of a job shows that there was time for 10 polls.
    await asyncio.sleep(0.5)
    await remote.change(jobs[0], phase=ExecutionPhase.COMPLETED, exit_code=0)
    await phase(manager, jobs[0], "COMPLETED")
    assert network.counts["GET"] - before <= 2


async def test_what_happens_during_a_cut_is_seen(manager: JobManager, remote: Remote, network: Proxy) -> None:
    jobs = [await submit(manager) for _ in range(12)]
    await network.opened(1)
    for job in jobs:
        await phase(manager, job, "EXECUTING")
    network.away = True
    network.cut_all()
    await phase(manager, jobs[0], "UNKNOWN")
    for job in jobs[:6]:
        await remote.change(job, phase=ExecutionPhase.COMPLETED, exit_code=0)
    network.away = False
    for job in jobs[:6]:
        await phase(manager, job, "COMPLETED")
    for job in jobs[6:]:
        await phase(manager, job, "EXECUTING")


async def test_a_cut_alone_is_no_lost_link(manager: JobManager, remote: Remote, network: Proxy) -> None:
    job = await submit(manager)
    seen: set[str] = set()
    async with manager.subscribe(lambda _: True) as changes:

        async def note() -> None:
            async for one in changes:
                seen.add(one.phase)

        noting = asyncio.create_task(note())
        for number in range(1, 4):
            await network.opened(number)
            await phase(manager, job, "EXECUTING")
            network.cut_all()
        await network.opened(4)
        await remote.change(job, phase=ExecutionPhase.COMPLETED, exit_code=0)
        await phase(manager, job, "COMPLETED")
        noting.cancel()
    assert ExecutionPhase.UNKNOWN not in seen


async def test_a_job_that_was_removed_there_is_unknown(
    manager: JobManager, remote: Remote, network: Proxy
) -> None:
    job = await submit(manager)
    await network.opened(1)
    await phase(manager, job, "EXECUTING")
    await remote.manager.destroy((await remote.of(job)).id)
    found = await until_job(manager, job.id, lambda job: job.phase in ("UNKNOWN", "ABORTED"))
    # It is aborted before it is removed; which of the two is seen first does not matter.
    assert found.phase in ("UNKNOWN", "ABORTED")


async def test_a_job_that_ends_before_its_creation_is_answered_is_seen(
    manager: JobManager, remote: Remote, network: Proxy
) -> None:
    first = await submit(manager)
    await network.opened(1)
    await phase(manager, first, "EXECUTING")
    network.delay = 0.5
    job = await submit(manager)
    await until(lambda: remote.manager.find(JobQuery(run_id=job.id)))
    await remote.change(job, phase=ExecutionPhase.COMPLETED, exit_code=0)
    await phase(manager, job, "COMPLETED")


async def test_a_doubtful_submission_asks_for_its_run_id(
    manager: JobManager, remote: Remote, network: Proxy
) -> None:
    first = await submit(manager)
    await phase(manager, first, "EXECUTING")
    network.requests.clear()
    network.lose_answers = 1
    job = await submit(manager)
    await phase(manager, job, "EXECUTING")
    await until(lambda: f"GET /api/v1/job?run_id={job.id}" in network.requests)
    # Never for all jobs, of which there may be many.
    assert "GET /api/v1/job" not in network.requests
    assert sum(request.startswith("PUT") for request in network.requests) == 1
    assert await remote.of(job)


async def test_abortion(manager: JobManager, remote: Remote, network: Proxy) -> None:
    job = await submit(manager)
    await network.opened(1)
    await phase(manager, job, "EXECUTING")
    await manager.abort(job.id)
    assert (await manager.get(job.id)).phase == "ABORTED"


async def test_jobs_are_taken_up_after_a_restart(remote: Remote, network: Proxy, tmp_path: Path) -> None:
    url = f"{network.url}/api/v1"
    manager = await engine(url, tmp_path / "again")
    jobs = [await submit(manager) for _ in range(2)]
    for job in jobs:
        await phase(manager, job, "EXECUTING")
    await manager.close()
    await remote.change(jobs[0], phase=ExecutionPhase.COMPLETED, exit_code=0)
    manager = await engine(url, tmp_path / "again")
    try:
        await phase(manager, jobs[0], "COMPLETED")
        await remote.change(jobs[1], phase=ExecutionPhase.COMPLETED, exit_code=0)
        await phase(manager, jobs[1], "COMPLETED")
    finally:
        await manager.close()


# Another UWS 1.1 server


@pytest_asyncio.fixture
async def elsewhere(other: Uws11, tmp_path: Path) -> AsyncIterator[JobManager]:
    """An engine that forwards to the stand-in."""
    manager = await engine(other.url, tmp_path / "work")
    yield manager
    await manager.close()


async def test_another_server_is_asked_with_wait(
    elsewhere: JobManager, other: Uws11, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    job = await submit(elsewhere)
    await phase(elsewhere, job, "EXECUTING")
    assert "is a UWS 1.1 server: it is polled by WAIT" in caplog.text
    (kept,) = other.jobs.values()
    assert kept.form["RUNID"] == job.id
    assert kept.form["PIPELINE_URL"] == "$CP_PIPE_DIR/bias.yaml"
    await until(lambda: other.counts["wait"])
    other.change("COMPLETED")
    job = await phase(elsewhere, job, "COMPLETED")
    assert [(result.id, result.uri) for result in job.results] == [
        ("table", f"{other.url}/{kept.id}/results/table")
    ]
    assert job.info["uws"]["uri"] == f"{other.url}/{kept.id}"


async def test_many_jobs_at_another_server_are_asked_for_with_lists(
    elsewhere: JobManager, other: Uws11
) -> None:
    jobs = [await submit(elsewhere) for _ in range(20)]
    for job in jobs:
        await phase(elsewhere, job, "EXECUTING")
    lists, gets = other.counts["list"], other.counts["get"]
    await until(lambda: other.counts["list"] >= lists + 3)
    # A few were waited for while there were a handful of them.
    assert other.counts["get"] - gets <= 8
    other.change("ERROR")
    for job in jobs:
        assert (await phase(elsewhere, job, "ERROR")).error.message == "it broke"  # type: ignore[union-attr]


async def test_a_job_at_another_server_is_aborted(elsewhere: JobManager, other: Uws11) -> None:
    job = await submit(elsewhere)
    await phase(elsewhere, job, "EXECUTING")
    await elsewhere.abort(job.id)
    (kept,) = other.jobs.values()
    assert kept.phase == "ABORTED"


async def test_a_job_that_another_server_forgets_is_unknown(elsewhere: JobManager, other: Uws11) -> None:
    job = await submit(elsewhere)
    await phase(elsewhere, job, "EXECUTING")
    other.jobs.clear()
    other.waits = False
    for kept in list(other.jobs.values()):
        kept.changed.set()
    await until(lambda: other.counts["get"])
    await other.stop()
    found = await until_job(elsewhere, job.id, lambda job: job.phase == "UNKNOWN")
    assert found.phase == "UNKNOWN"


@pytest.mark.parametrize("path", ["", "/", "/uws", "/uws/pipetask", "/api/v1"])
async def test_whatever_address_of_an_ocps_is_given_it_is_found(
    remote: Remote, tmp_path: Path, path: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    root = f"http://127.0.0.1:{remote.server.port}"
    manager = await engine(root + path, tmp_path / "work")
    try:
        job = await submit(manager)
        await phase(manager, job, "EXECUTING")
        assert "is an OCPS: one change stream shows all jobs" in caplog.text
        assert ("(at " in caplog.text) == (path != "/api/v1")
        await remote.change(job, phase=ExecutionPhase.COMPLETED, exit_code=0)
        job = await phase(manager, job, "COMPLETED")
        assert job.info["uws"]["uri"] == f"{root}/api/v1/job/{(await remote.of(job)).id}"
    finally:
        await manager.close()


async def test_check_finds_each_kind_of_server(other: Uws11, network: Proxy) -> None:
    for url in (other.url, f"{network.url}/api/v1"):
        backend = UwsBackend(url, 0.1, UwsConfig(), LOG)
        await backend.check()
