# SPDX-License-Identifier: GPL-3.0-or-later
"""Stores that are shared, locked, damaged or taken away, and what was begun when OCPS was killed."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import logging
import shutil
import sqlite3

import pytest
from lsst.dm.OCPS.jobs import lease
from lsst.dm.OCPS.jobs import store as store_module
from lsst.dm.OCPS.jobs.errors import StoreError, UnknownJobError
from lsst.dm.OCPS.jobs.manager import JobManager
from lsst.dm.OCPS.jobs.model import ExecutionPhase
from lsst.dm.OCPS.jobs.store import JobQuery, JobStore
from lsst.dm.OCPS.jobs.workspace import Workspaces

from tests.engine.test_store import make_job
from tests.waiting import TIMEOUT, until, until_job

Phase = ExecutionPhase
LOG = logging.getLogger("engine")


def url_of(path) -> str:
    return f"sqlite+aiosqlite:///{path}"


async def open_engine(work_dir, database) -> JobManager:
    """Open an engine whose store is not in its work directory; it uses no backend."""
    workspaces = Workspaces(work_dir)
    workspaces.open()
    store = await JobStore.open(url_of(database))
    manager = JobManager(store, workspaces, LOG)
    try:
        await manager.open()
    except BaseException:
        await manager.close()
        raise
    return manager


# Two engines on one store


async def test_a_second_engine_on_the_same_store_names_the_first_and_does_not_start(tmp_path, monkeypatch):
    monkeypatch.setattr(lease, "RENEWAL", 0.02)
    first = await open_engine(tmp_path / "one", tmp_path / "jobs.sqlite3")
    with pytest.raises(StoreError) as caught:
        await open_engine(tmp_path / "two", tmp_path / "jobs.sqlite3")
    for words in ("in use by another OCPS: process ", f"with work_dir {tmp_path / 'one'}", "jobs.sqlite3"):
        assert words in str(caught.value)
    # The first one works on, and gives way when it ends.
    await first.store.remember("x", "y")
    await first.close()
    second = await open_engine(tmp_path / "two", tmp_path / "jobs.sqlite3")
    assert await second.store.recall("x") == "y"
    await second.close()


async def test_a_lease_that_nobody_renews_ends_and_its_former_holder_can_write_no_more(tmp_path, monkeypatch):
    """No clock of another machine is asked: the second watches the first for as long as a lease lasts."""
    monkeypatch.setattr(lease, "DURATION", 0.3)
    monkeypatch.setattr(lease, "RENEWAL", 3600)
    first = await open_engine(tmp_path / "one", tmp_path / "jobs.sqlite3")
    second = await open_engine(tmp_path / "two", tmp_path / "jobs.sqlite3")
    with pytest.raises(StoreError, match="another OCPS has taken over the job store"):
        await first.store.insert(make_job(1))
    assert await second.store.get(make_job(1).id) is None
    await second.store.insert(make_job(2))
    await first.close()
    # What the former holder gives up is not the lease of the present one.
    await second.store.insert(make_job(3))
    await second.close()


async def test_after_a_crash_the_same_work_directory_starts_at_once(bench, monkeypatch):
    monkeypatch.setattr(lease, "DURATION", 3600)
    manager = await bench.open()
    # As kill -9 does: the lease stays, the lock of the directory goes.
    manager._lease._renewing.cancel()
    manager._lease._renewing = None
    await bench.reopen()


# A store that does not answer


async def test_writes_to_a_locked_store_are_refused_together_and_not_carried_out_later(tmp_path, monkeypatch):
    monkeypatch.setattr(store_module, "BUSY_TIMEOUT", 0.2)
    store = await JobStore.open(url_of(tmp_path / "jobs.sqlite3"))
    attempts = 0
    transaction = store._writer._transaction

    async def counting(operations):
        nonlocal attempts
        attempts += 1
        return await transaction(operations)

    monkeypatch.setattr(store._writer, "_transaction", counting)
    with sqlite3.connect(tmp_path / "jobs.sqlite3") as other:
        other.execute("BEGIN IMMEDIATE")
        writes = [asyncio.create_task(store.insert(make_job(number))) for number in range(1, 31)]
        outcomes = await asyncio.gather(*writes, return_exceptions=True)
        other.rollback()
    assert {type(outcome) for outcome in outcomes} == {StoreError}
    assert "locked" in str(outcomes[0])
    # All waited for one transaction, not one after the other for thirty.
    assert attempts == 1
    await store.insert(make_job(99))
    assert [job.id for job in await store.live()] == [make_job(99).id]
    await store.close()


async def test_an_operation_whose_caller_has_gone_is_not_carried_out(tmp_path):
    store = await JobStore.open(url_of(tmp_path / "jobs.sqlite3"))
    first = asyncio.create_task(store.insert(make_job(1)))
    second = asyncio.create_task(store.insert(make_job(2)))
    await asyncio.sleep(0)
    second.cancel()
    await first
    await store.close()
    store = await JobStore.open(url_of(tmp_path / "jobs.sqlite3"))
    assert [job.id for job in await store.live()] == [make_job(1).id]
    await store.close()


async def test_a_refused_job_that_was_stored_all_the_same_is_withdrawn(bench, ask, monkeypatch):
    """The connection breaks after the database has the job and before it says so."""
    monkeypatch.setattr("lsst.dm.OCPS.jobs.ledger.STORE_RETRY", 0.01)
    manager = await bench.open()
    insert = manager.store.insert

    async def breaking(job):
        await insert(job)
        raise StoreError("connection lost")

    with monkeypatch.context() as patch:
        patch.setattr(manager.store, "insert", breaking)
        with pytest.raises(StoreError, match="connection lost"):
            await manager.submit(ask(job_id="abc"))
    async with asyncio.timeout(TIMEOUT):
        while await manager.store.get("abc"):
            await asyncio.sleep(0.01)
    manager = await bench.reopen()
    assert manager.live() == []
    assert bench.backend.given == []


async def test_a_job_with_an_id_that_is_taken_is_refused_and_the_other_stays(bench, ask):
    manager = await bench.open()
    job = await manager.submit(ask(job_id="abc"))
    with pytest.raises(StoreError):
        await manager.submit(ask(job_id="abc"))
    await until(lambda: not manager.ledger._withdrawing)
    assert (await manager.store.get(job.id)).id == "abc"


# A store that is damaged or gone


async def test_a_damaged_store_is_refused_at_the_start_with_its_name_and_advice(tmp_path):
    path = tmp_path / "jobs.sqlite3"
    store = await JobStore.open(url_of(path))
    for number in range(1, 200):
        await store.insert(make_job(number, parameters={"text": "x" * 500}))
    await store.close()
    content = bytearray(path.read_bytes())
    middle = len(content) // 8192 * 4096
    content[middle : middle + 4096 * 4] = b"\xff" * 4096 * 4
    path.write_bytes(content)
    with pytest.raises(StoreError) as caught:
        await JobStore.open(url_of(path))
    assert f"The job store {path} is damaged" in str(caught.value)
    assert ".recover" in str(caught.value)


async def test_a_file_that_is_no_store_is_refused_with_its_name(tmp_path):
    (tmp_path / "jobs.sqlite3").write_text("not a database\n" * 100)
    with pytest.raises(StoreError, match=r"jobs\.sqlite3"):
        await JobStore.open(url_of(tmp_path / "jobs.sqlite3"))


async def test_an_emptied_file_is_noticed(tmp_path):
    path = tmp_path / "jobs.sqlite3"
    path.touch()
    with pytest.raises(StoreError, match="is empty, but there are jobs' files beside it"):
        await JobStore.open(url_of(path), may_be_empty=False)
    # Without jobs it is what a crash in the first moment leaves.
    await (await JobStore.open(url_of(path))).close()


@pytest.mark.parametrize("document", ["{}", "null", '{"parameters": 3}', '{"progress": [1]}'])
async def test_a_damaged_record_is_logged_and_left_out(tmp_path, caplog, document):
    path = tmp_path / "jobs.sqlite3"
    store = await JobStore.open(url_of(path))
    await store.insert(make_job(1))
    await store.insert(make_job(2))
    await store.close()
    with sqlite3.connect(path) as connection:
        connection.execute("UPDATE jobs SET document = ? WHERE id = ?", (document, make_job(1).id))
    store = await JobStore.open(url_of(path))
    assert [job.id for job in await store.live()] == [make_job(2).id]
    assert [job.id for job in await store.find(JobQuery())] == [make_job(2).id]
    assert f"The record of job {make_job(1).id} is damaged" in caplog.text
    assert str(path) in caplog.text
    with pytest.raises(StoreError, match="is damaged"):
        await store.get(make_job(1).id)
    await store.close()


async def test_nothing_is_acknowledged_when_the_store_was_removed(bench, ask):
    manager = await bench.open()
    await manager.submit(ask())
    shutil.rmtree(bench.folder / "work")
    with pytest.raises(StoreError, match="removed"):
        await manager.submit(ask())
    with pytest.raises(StoreError, match="was removed or replaced while OCPS runs; restart OCPS"):
        await manager.store.insert(make_job(7))


# Deletions


async def test_a_deletion_that_was_interrupted_is_finished_at_the_next_start(bench, ask, monkeypatch):
    manager = await bench.open()
    job = await manager.submit(ask())
    await bench.settle()
    bench.backend.say(job.id, Phase.COMPLETED)
    await until_job(manager, job.id, lambda job: job.terminal)
    workspace = manager.workspaces.of(job.id)
    workspace.create()

    async def killed(job_id):
        raise asyncio.CancelledError

    monkeypatch.setattr(manager.workspaces, "remove", killed)
    with pytest.raises(asyncio.CancelledError):
        await manager.destroy(job.id)
    # Neither a job with results that are not there, nor files without a job.
    with pytest.raises(UnknownJobError):
        await manager.get(job.id)
    assert workspace.root.exists()
    manager = await bench.reopen()
    await until(lambda: not workspace.root.exists())
    await until(lambda: _is_gone(manager, job.id))


async def _is_gone(manager, job_id) -> bool:
    return await manager.store.get(job_id) is None


async def test_change_numbers_are_not_used_again_after_a_deletion(bench, ask):
    manager = await bench.open()
    await manager.submit(ask())
    job = await manager.submit(ask())
    await manager.destroy(job.id)
    last = await manager.store.last_sequence()
    assert last > max(found.sequence for found in await manager.find(JobQuery()))
    manager = await bench.reopen()
    assert (await manager.submit(ask())).sequence > last


async def test_deleted_jobs_are_listed_nowhere(bench, ask):
    manager = await bench.open()
    job = await manager.submit(ask(origin="sal", keep_until_published=True))
    await bench.settle()
    await manager.destroy(job.id)
    assert await manager.find(JobQuery(phases=list(Phase))) == []
    assert [page async for page in manager.store.pages(JobQuery(phases=list(Phase)))] == [[]]
    await manager.mark_published(job.id)
    assert await manager.store.get(job.id) is None


def test_a_record_says_what_is_wrong_with_it():
    from lsst.dm.OCPS.jobs.records import from_row, to_row

    row = json.loads(json.dumps(to_row(dataclasses.replace(make_job(1), message="m"))))
    del row["document"]["parameters"]
    with pytest.raises(StoreError, match="parameters: Field required"):
        from_row(row)
