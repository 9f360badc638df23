# SPDX-License-Identifier: GPL-3.0-or-later
"""Several jobs at once on one Butler, on SQLite and on PostgreSQL."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from democam.make_repo import make_repo
from lsst.dm.OCPS.jobs.model import ExecutionPhase

from tests.backends.local.harness import BIAS, Pool, open_pool
from tests.conftest import find_service
from tests.postgresql import postgresql_server
from tests.waiting import TIMEOUT, until

pytestmark = pytest.mark.asyncio(loop_scope="package")

FOCUS = "exposure.observation_type='focus'"


async def run_many(pool: Pool) -> None:
    """Run jobs of several kinds at once; all must end well, with equal results."""
    await pool.preloaded()
    # Their dataset types are registered by all at once, too.
    work = [("bias", BIAS), ("focusSweep", FOCUS), ("oneQuantum", ""), ("bias", BIAS)] * 2
    jobs = [await pool.submit(name, query) for name, query in work]
    ended = [await pool.end(job) for job in jobs]
    for job in ended:
        assert job.phase == ExecutionPhase.COMPLETED, pool.log(job)
    values: dict[str, list[Any]] = {}
    for (name, _), job in zip(work, ended, strict=True):
        found = sorted((str(each["dataId"]), str(each["values"])) for each in job.info["metrics"])
        values.setdefault(name, []).append(found)
    for found in values.values():
        assert found[0]
        assert all(other == found[0] for other in found)


async def test_jobs_at_once_on_one_sqlite_butler(own_repo: Path, tmp_path: Path) -> None:
    async with open_pool(tmp_path / "work", own_repo, max_workers=4) as pool:
        await run_many(pool)


@pytest.fixture
def postgresql() -> Iterator[str]:
    """A PostgreSQL server of the test's own; the URL of an empty database."""
    with postgresql_server(Path(find_service("postgres"))) as url:
        yield url


def connections(url: str) -> int:
    """Return how many connections there are to the database, beside this one."""
    with psycopg.connect(url.replace("+psycopg", "")) as connection:
        query = "SELECT count(*) FROM pg_stat_activity WHERE datname = 'butler' AND pid <> pg_backend_pid()"
        (count,) = connection.execute(query).fetchone()  # type: ignore[misc]
    return int(count)


async def test_jobs_at_once_on_one_postgresql_butler(postgresql: str, tmp_path: Path) -> None:
    repo = make_repo(tmp_path / "repo", registry_db=postgresql)
    async with open_pool(tmp_path / "work", repo, max_workers=4) as pool:
        await run_many(pool)
        pid = await pool.preloaded()
        # As the preloaded process is asked now, it has done all it had to do.
        assert await pool.zygotes.check(pool.preload, ["DemoCam/raw/all"], TIMEOUT) == ""
        # Neither does it hold a connection itself.
        await until(lambda: connections(postgresql) == 0)
        job = await pool.run("bias", BIAS)
        assert job.phase == ExecutionPhase.COMPLETED
        assert await pool.preloaded() == pid
