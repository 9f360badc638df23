# SPDX-License-Identifier: GPL-3.0-or-later
"""An engine on a backend that does what a test says."""

from __future__ import annotations

import asyncio
import logging
import uuid
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Literal

import pytest
import pytest_asyncio
from lsst.dm.OCPS.jobs.backend import Backend, BackendUpdate
from lsst.dm.OCPS.jobs.definition import JobDefinition
from lsst.dm.OCPS.jobs.errors import RequestError
from lsst.dm.OCPS.jobs.limits import Limits
from lsst.dm.OCPS.jobs.manager import JobManager
from lsst.dm.OCPS.jobs.model import ExecutionPhase, Job
from lsst.dm.OCPS.jobs.parts import Parts
from lsst.dm.OCPS.jobs.retries import RetryPolicy
from lsst.dm.OCPS.jobs.spec import Spec
from lsst.dm.OCPS.jobs.store import JobStore
from lsst.dm.OCPS.jobs.workspace import Workspaces

from tests.conftest import find_service
from tests.postgresql import Cluster


class AnySpec(Spec):
    """What the backend of these tests runs: nothing."""

    kind: Literal["any"] = "any"
    values: dict[str, str]


class ScriptedBackend(Backend):
    """Keeps what it is given and says what the test wants it to say."""

    kinds = frozenset({"any"})

    def __init__(self) -> None:
        self.given: list[str] = []
        self.cancelled: list[str] = []
        self.reattached: list[str] = []
        self.confirms = True

    async def open(self) -> None:
        pass

    async def close(self) -> None:
        pass

    async def check(self) -> None:
        pass

    async def submit(self, job: Job) -> None:
        self.given.append(job.id)

    async def cancel(self, job: Job) -> None:
        self.cancelled.append(job.id)
        if self.confirms:
            self.say(job.id, ExecutionPhase.ABORTED)

    async def reattach(self, jobs) -> None:
        self.reattached += [job.id for job in jobs]

    def say(self, job_id: str, phase: ExecutionPhase, **seen) -> None:
        self.report(job_id, BackendUpdate(phase=phase, **seen))


class AnyDefinition(JobDefinition):
    """Accepts everything but the parameter ``bad``."""

    async def resolve(self, request, job_id):
        if "bad" in request.parameters:
            raise RequestError("bad: there is no such parameter")
        return AnySpec(values=request.parameters)


class Bench:
    """An engine with what it stands on."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.backend = ScriptedBackend()
        self.manager: JobManager

    async def open(self, **limits) -> JobManager:
        """Open the engine, as at a start of the program."""
        await self.make()
        await self.use(**limits)
        return self.manager

    async def make(self) -> JobManager:
        """Open the engine, but use no backend yet."""
        workspaces = Workspaces(self.folder / "work")
        workspaces.open()
        store = await JobStore.open(f"sqlite+aiosqlite:///{workspaces.work_dir / 'jobs.sqlite3'}")
        self.manager = JobManager(store, workspaces, logging.getLogger("engine"))
        await self.manager.open()
        return self.manager

    async def use(self, retries: RetryPolicy | None = None, **limits) -> None:
        """Let the engine use the scripted backend."""
        definitions = {"any": AnyDefinition("any", retries=retries)}
        await self.manager.use(
            "test", Parts("scripted", self.backend, definitions, Limits(**{"reserved_places": 0} | limits))
        )

    async def reopen(self, **limits) -> JobManager:
        """Close the engine and open it again on the same store with a new backend."""
        await self.manager.close()
        self.backend = ScriptedBackend()
        return await self.open(**limits)

    async def given(self, count: int) -> list[str]:
        """Wait until the backend has been given so many jobs; return their ids."""
        async with self.manager.subscribe(lambda job: job.dispatched) as changes:
            if len(self.backend.given) < count:
                async for _ in changes:
                    await self.settle()
                    if len(self.backend.given) >= count:
                        break
        return self.backend.given

    async def settle(self) -> None:
        """Let everything that is under way in the engine come to rest."""
        lanes = self.manager.lanes.values()
        while starting := [run.starting for lane in lanes for run in lane.runs.values() if run.starting]:
            await asyncio.wait(starting)


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    """A PostgreSQL server."""
    made = Cluster(find_service("postgres"))
    try:
        made.create()
        yield made
    finally:
        made.remove()


@pytest.fixture
def database(cluster: Cluster) -> str:
    """The name of an empty database on that server."""
    name = f"jobs_{uuid.uuid4().hex}"
    cluster.create_database(name)
    return name


@pytest_asyncio.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    """An engine; the test opens it with the limits that it wants."""
    made = Bench(tmp_path)
    yield made
    await made.manager.close()


@pytest.fixture
def ask() -> Callable[..., object]:
    """Make requests for jobs of the definition ``any``."""
    from lsst.dm.OCPS.jobs.model import JobRequest

    def make(**fields):
        return JobRequest("any", **fields)

    return make
