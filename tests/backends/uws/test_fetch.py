# SPDX-License-Identifier: GPL-3.0-or-later
"""Logs and results of forwarded jobs: OCPS fetches them from the server behind, with its own token."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import pytest_asyncio
from lsst.dm.OCPS.backends.uws.server import MAX_FILES
from lsst.dm.OCPS.client import Client, ClientError, RemoteJob
from lsst.dm.OCPS.config import AuthConfig, HttpConfig, InstanceConfig, UwsConfig
from lsst.dm.OCPS.factory import make_manager
from lsst.dm.OCPS.http.secrets_file import hash_token
from lsst.dm.OCPS.http.server import start_server
from lsst.dm.OCPS.jobs.errors import BackendError
from lsst.dm.OCPS.jobs.manager import JobManager
from lsst.dm.OCPS.jobs.model import ExecutionPhase, Job, Result

from tests.backends.uws.standin import StandIn
from tests.backends.uws.test_servers import LOG, Remote, phase, remote, submit
from tests.client.conftest import ocps
from tests.uws11 import Uws11

__all__ = ["remote"]

TOKEN = "inner-secret-" + "x" * 30


@dataclass
class Outer:
    """An OCPS that forwards, and a client of it."""

    manager: JobManager
    client: Client

    async def job(self, job: Job) -> RemoteJob:
        return await self.client.get(job.id)


async def outer_of(url: str, work_dir: Path, **uws: str) -> AsyncIterator[Outer]:
    config = InstanceConfig(
        sal_index=1,
        backend="uws",
        url=url,
        poll_interval=0.05,
        work_dir=str(work_dir),
        uws=UwsConfig.model_validate({"timeout": 60, **uws}),
    )
    manager = await make_manager(config, LOG)
    server = await start_server(manager, HttpConfig(port=0, auth=AuthConfig(open=True)), LOG)
    async with Client(f"http://127.0.0.1:{server.port}", poll_interval=0.1) as client:
        yield Outer(manager, client)
    await server.close()
    await manager.close()


@pytest_asyncio.fixture
async def outer(remote: Remote, tmp_path: Path) -> AsyncIterator[Outer]:
    """An OCPS that forwards to another one, which wants a token."""
    secrets = tmp_path / "secrets.yaml"
    secrets.write_text(f"users: {{ocps: {{token: {hash_token(TOKEN)}}}}}")
    secrets.chmod(0o600)
    auth = AuthConfig(method="secrets", file=str(secrets), operators=("ocps",))
    inner = await start_server(remote.manager, HttpConfig(port=0, auth=auth), LOG)
    token = tmp_path / "token"
    token.write_text(TOKEN)
    url = f"http://127.0.0.1:{inner.port}/api/v1"
    async for outer in outer_of(url, tmp_path / "outer", token_file=str(token)):
        yield outer
    await inner.close()


async def test_they_are_streamed_on_while_the_job_runs_and_after(
    outer: Outer, remote: Remote, tmp_path: Path
) -> None:
    job = await submit(outer.manager)
    await phase(outer.manager, job, "EXECUTING")
    there = await remote.of(job)
    workspace = remote.manager.workspaces.of(there.id)
    workspace.output.mkdir(parents=True)
    workspace.log.write_text("first\n")
    shown = await outer.job(job)
    assert await outer.client.read_log(shown) == b"first\n"
    assert await outer.client.read_log(shown, 3) == b"st\n"
    assert await outer.client.read_log(shown, 6) == b""
    (workspace.output / "plots").mkdir()
    (workspace.output / "plots" / "a.png").write_bytes(b"\x89PNG" + bytes(1_000_000))
    results = tuple(
        Result(name, (workspace.output / name).as_uri(), None, kind)
        for name, kind in (("ocps.log", "text/plain"), ("plots/a.png", "image/png"))
    )
    await remote.change(job, phase=ExecutionPhase.COMPLETED, exit_code=0, results=results)
    await phase(outer.manager, job, "COMPLETED")
    shown = await outer.job(job)
    assert [result.id for result in shown.results] == ["ocps.log", "plots/a.png"]
    assert await outer.client.read_log(shown) == b"first\n"
    path = await outer.client.download(shown.results[1], tmp_path / "saved")
    assert path.read_bytes() == b"\x89PNG" + bytes(1_000_000)
    # The same in a terminal.
    code, out, err = await ocps(tmp_path, "log", job.id, OCPS_URL=outer.client.url)
    assert (code, out) == (0, "first\n"), err
    code, _, err = await ocps(tmp_path, "results", job.id, OCPS_URL=outer.client.url)
    assert code == 0, err
    assert (tmp_path / job.id / "plots" / "a.png").stat().st_size == 1_000_004


async def test_slow_readers_of_files_leave_connections_to_jobs(outer: Outer, remote: Remote) -> None:
    backend: Any = outer.manager.lane.backend
    async with AsyncExitStack() as places:
        for _ in range(MAX_FILES):
            await places.enter_async_context(backend._server.files)
        with pytest.raises(
            BackendError, match=f"{MAX_FILES} files are being fetched from .*; try again later"
        ):
            await places.enter_async_context(backend.fetch(None, Result("a", f"{backend._server.url}/a"), 0))
        job = await submit(outer.manager)
        await phase(outer.manager, job, "EXECUTING")


async def test_a_file_that_is_gone_is_said_so(outer: Outer, remote: Remote, tmp_path: Path) -> None:
    job = await submit(outer.manager)
    await phase(outer.manager, job, "EXECUTING")
    gone = Result("a.txt", (tmp_path / "gone" / "a.txt").as_uri())
    await remote.change(job, phase=ExecutionPhase.COMPLETED, exit_code=0, results=(gone,))
    await phase(outer.manager, job, "COMPLETED")
    shown = await outer.job(job)
    with pytest.raises(ClientError, match="file does not exist any more"):
        await outer.client.download(shown.results[0], tmp_path)
    assert TOKEN not in repr(shown)


async def test_only_the_configured_server_is_asked(standin: StandIn, other: Uws11, tmp_path: Path) -> None:
    async for outer in outer_of(standin.url, tmp_path / "outer"):
        job = await submit(outer.manager)
        await phase(outer.manager, job, "EXECUTING")
        # A server that would have us fetch from elsewhere, with our address or token.
        standin.end(job.id, files=[f"{other.url}/secret/results/a"])
        await phase(outer.manager, job, "COMPLETED")
        (result,) = (await outer.job(job)).results
        async with (
            aiohttp.ClientSession() as session,
            session.get(result.url, allow_redirects=False) as answer,
        ):
            assert answer.status == 303
            assert answer.headers["Location"] == f"{other.url}/secret/results/a"
    assert not other.counts
