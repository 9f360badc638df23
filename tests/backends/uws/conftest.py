# SPDX-License-Identifier: GPL-3.0-or-later
"""Fixtures: a stand-in for the server, and engines that use it."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from lsst.dm.OCPS.config import InstanceConfig, UwsConfig
from lsst.dm.OCPS.factory import make_manager
from lsst.dm.OCPS.jobs.manager import JobManager
from lsst.dm.OCPS.jobs.model import ExecutionPhase, Job, JobRequest

from tests.backends.uws.standin import Fault, StandIn
from tests.uws11 import other
from tests.waiting import TIMEOUT, until_job

__all__ = ["other"]

POLL = 0.05
"""Poll interval of the tests (s)."""

LINK_TIMEOUT = 60.0
"""How long (s) an answer may take where the stand-in is to answer."""

SHORT = UwsConfig(timeout=0.5)
"""The link's configuration where the stand-in is not to answer."""


class Engine:
    """A `JobManager` with the uws backend, and what a test does with it."""

    def __init__(self, manager: JobManager, standin: StandIn) -> None:
        self.manager = manager
        self.standin = standin

    @property
    def backend(self) -> Any:
        return self.manager.lane.backend

    async def submit(self, **parameters: str) -> Job:
        parameters.setdefault("pipeline", "$CP_PIPE_DIR/pipelines/bias.yaml")
        return await self.manager.submit(JobRequest("pipetask", parameters))

    async def phase(self, job: Job, *phases: str) -> Job:
        """Wait until a job is in one of some phases, if only for a moment; fail if it has ended otherwise."""
        wanted = {ExecutionPhase(phase.upper()) for phase in phases}
        found = await until_job(self.manager, job.id, lambda job: job.phase in wanted or job.terminal)
        assert found.phase in wanted, f"{found.phase}: {found.message} {found.error}"
        return found

    async def end(self, job: Job) -> Job:
        """Wait for a job's end."""
        found = await self.manager.wait(job.id, TIMEOUT)
        assert found.terminal, f"{found.phase}: {found.message}"
        return found

    def fault(self, kind: str, method: str = "", times: int = 1, path: str = "") -> Fault:
        """Let the stand-in do something wrong; the fault returned can be ended."""
        fault = Fault(kind, method, times, path)
        self.standin.faults.append(fault)
        return fault


def configuration(standin: StandIn, work_dir: Path, **changes: Any) -> InstanceConfig:
    """Return a configuration for an engine that uses the stand-in."""
    values: dict[str, Any] = {
        "sal_index": 1,
        "backend": "uws",
        "url": standin.url,
        "poll_interval": POLL,
        "butler": "/repo/LATISS",
        "input_collection": "LATISS/defaults",
        "output_glob": "*_metricvalue",
        "work_dir": str(work_dir),
        "uws": UwsConfig(timeout=LINK_TIMEOUT),
    }
    return InstanceConfig(**(values | changes))


@pytest_asyncio.fixture
async def standin() -> AsyncIterator[StandIn]:
    """A stand-in that is well; its jobs end when they are told to."""
    server = await StandIn().start()
    yield server
    await server.stop()


MakeEngine = Callable[..., Awaitable[Engine]]


@pytest_asyncio.fixture
async def make_engine(standin: StandIn, tmp_path: Path) -> AsyncIterator[MakeEngine]:
    """Makes engines, one at a time on one work directory; closes them."""
    made: list[Engine] = []

    async def make(**changes: Any) -> Engine:
        for former in made:
            await former.manager.close()
        made.clear()
        config = configuration(standin, tmp_path / "work", **changes)
        log = logging.getLogger("ocps.test")
        made.append(Engine(await make_manager(config, log), standin))
        return made[-1]

    yield make
    for engine in made:
        await engine.manager.close()


@pytest_asyncio.fixture
async def engine(make_engine: MakeEngine, request: pytest.FixtureRequest) -> Engine:
    """An engine with the uws backend; in tests whose ``kind`` is a hang it soon gives up a request."""
    parameters = getattr(getattr(request.node, "callspec", None), "params", {})
    hangs = "hang" in str(parameters.get("kind", ""))
    return await make_engine(**({"uws": SHORT} if hangs else {}))
