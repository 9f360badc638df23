# SPDX-License-Identifier: GPL-3.0-or-later
"""The lease of a store on PostgreSQL, and what a restart of PostgreSQL does to an engine."""

from __future__ import annotations

import asyncio
import logging

import pytest
import sqlalchemy as sa
from lsst.dm.OCPS.jobs import answer_guard, lease
from lsst.dm.OCPS.jobs.errors import StoreError
from lsst.dm.OCPS.jobs.lease import Lease
from lsst.dm.OCPS.jobs.records import leases
from lsst.dm.OCPS.jobs.store import JobStore

from tests.engine.test_store import make_job
from tests.waiting import until

LOG = logging.getLogger("engine")


class Holder:
    """A store with the lease of one engine.

    Parameters
    ----------
    url : `str`
        The database.
    work_dir : `pathlib.Path`
        Work directory of the engine.
    """

    def __init__(self, url, work_dir):
        self.url = url
        self.work_dir = work_dir

    async def open(self):
        """Connect to the database."""
        self.work_dir.mkdir(exist_ok=True)
        self.store = await JobStore.open(self.url)
        self.lease = Lease(self.store, self.work_dir, LOG)
        return self

    async def close(self):
        """Release the lease, if it is held."""
        await self.lease.release()
        await self.store.close()


@pytest.fixture
def url(cluster, database):
    return cluster.url(database)


@pytest.fixture
async def holders(url, tmp_path):
    """Two engines that want the same store."""
    made = [await Holder(url, tmp_path / name).open() for name in ("one", "two")]
    yield made
    for holder in made:
        await holder.close()


async def beat(store) -> int:
    """Return how often the lease was renewed."""
    found = await store.read(sa.select(leases.c.beat))
    return int(found[0].beat)


async def test_a_second_engine_is_refused_while_the_first_renews_its_lease(holders, monkeypatch):
    monkeypatch.setattr(lease, "RENEWAL", 0.02)
    first, second = holders
    await first.lease.acquire()
    with pytest.raises(StoreError, match="in use by another OCPS: process") as caught:
        await second.lease.acquire()
    assert f"with work_dir {first.work_dir}" in str(caught.value)
    await first.store.insert(make_job(1))
    # It gives way when it ends.
    await first.lease.release()
    await second.lease.acquire()
    await second.store.insert(make_job(2))
    assert [job.id for job in await second.store.live()] == [make_job(1).id, make_job(2).id]


async def test_of_two_that_want_a_free_lease_at_once_one_gets_it(holders, monkeypatch):
    monkeypatch.setattr(lease, "RENEWAL", 0.02)
    outcomes = await asyncio.gather(*(each.lease.acquire() for each in holders), return_exceptions=True)
    assert sorted(type(outcome) for outcome in outcomes if outcome) == [StoreError]


async def test_after_a_lease_has_expired_its_former_holder_cannot_write(holders, monkeypatch):
    monkeypatch.setattr(lease, "DURATION", 0.3)
    monkeypatch.setattr(lease, "RENEWAL", 3600)
    first, second = holders
    await first.lease.acquire()
    await second.lease.acquire()
    with pytest.raises(StoreError, match="another OCPS has taken over the job store"):
        await first.store.insert(make_job(1))
    await second.store.insert(make_job(2))
    # What the former holder releases is not the lease of the present one.
    await first.lease.release()
    await second.store.insert(make_job(3))
    assert [job.id for job in await second.store.live()] == [make_job(2).id, make_job(3).id]


async def test_the_lease_cannot_be_taken_within_a_transaction_of_its_holder(holders, cluster, database):
    """Else both could write: the one whose transaction has begun, and the new holder."""
    first, _ = holders
    await first.lease.acquire()
    refused = []

    def take(connection) -> None:
        with cluster.connect(database) as other:
            other.execute("SET lock_timeout = '100ms'")
            try:
                other.execute("UPDATE leases SET holder = 'other'")
            except Exception as error:
                refused.append(str(error))

    await first.store.write(take)
    assert "lock timeout" in refused[0]


@pytest.mark.parametrize("mode", ["fast", "immediate"])
async def test_the_lease_and_the_jobs_outlast_a_restart_of_postgresql(holders, cluster, monkeypatch, mode):
    monkeypatch.setattr(lease, "RENEWAL", 0.02)
    first, second = holders
    await first.lease.acquire()
    await first.store.insert(make_job(1))
    await asyncio.to_thread(cluster.stop, mode)
    try:
        with pytest.raises(StoreError):
            await first.store.insert(make_job(2))
    finally:
        await asyncio.to_thread(cluster.start)

    # Connections that were cut are noticed before they are used.
    await first.store.insert(make_job(3))
    before = await beat(first.store)

    async def renewed() -> bool:
        return await beat(first.store) > before

    await until(renewed)
    with pytest.raises(StoreError, match="in use by another OCPS"):
        await second.lease.acquire()
    assert [job.id for job in await first.store.live()] == [make_job(1).id, make_job(3).id]


async def test_a_postgresql_that_hangs_keeps_nobody_waiting(url, cluster, monkeypatch):
    store = await JobStore.open(url)
    await store.insert(make_job(1))
    monkeypatch.setattr(answer_guard, "ANSWER_TIMEOUT", 0.3)
    with cluster.stopped():
        with pytest.raises(StoreError, match="could not be written"):
            await store.insert(make_job(2))
        # Neither do those who ask next.
        with pytest.raises(StoreError, match="could not be read"):
            await store.live()
    monkeypatch.undo()
    await store.insert(make_job(3))
    assert [job.id for job in await store.live()] == [make_job(1).id, make_job(3).id]
    await store.close()
