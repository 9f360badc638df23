# SPDX-License-Identifier: GPL-3.0-or-later
"""The job store: nothing half written, nothing changed behind anybody's back."""

from __future__ import annotations

import asyncio
import dataclasses
import sqlite3
from datetime import UTC, datetime, timedelta
from functools import partial

import pytest
import sqlalchemy as sa
from hypothesis import given, settings
from hypothesis import strategies as st
from lsst.dm.OCPS.definitions.specs import CommandSpec, FileValue, SimulationSpec, Source
from lsst.dm.OCPS.jobs import records
from lsst.dm.OCPS.jobs import store as store_module
from lsst.dm.OCPS.jobs.errors import StoreError
from lsst.dm.OCPS.jobs.model import ErrorSummary, ExecutionPhase, Job, Progress, Result, now
from lsst.dm.OCPS.jobs.records import from_row, to_row
from lsst.dm.OCPS.jobs.statistics import DefinitionStatistics, read_statistics
from lsst.dm.OCPS.jobs.store import JobQuery, JobStore

Phase = ExecutionPhase


def make_job(number: int, **fields) -> Job:
    time = datetime(2026, 11, 20, tzinfo=UTC) + timedelta(seconds=number)
    common = {"creation_time": time, "phase_time": time, "sequence": number}
    return Job(
        **(
            {"id": f"{number:032x}", "definition": "any", "phase": Phase.QUEUED}
            | common
            | {"parameters": {}, "spec": None, "backend": "test"}
            | fields
        )
    )


@pytest.fixture
def file_url(tmp_path):
    """A store in a file."""
    return f"sqlite+aiosqlite:///{tmp_path / 'jobs.sqlite3'}"


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request):
    """A store of each kind."""
    if request.param == "sqlite":
        return request.getfixturevalue("file_url")
    return request.getfixturevalue("cluster").url(request.getfixturevalue("database"))


texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=30)
times = st.datetimes(datetime(1990, 1, 1), datetime(2200, 1, 1), timezones=st.just(UTC)).map(
    lambda time: time.replace(microsecond=time.microsecond // 1000 * 1000)
)
full_jobs = st.builds(
    Job,
    id=st.from_regex(r"[0-9a-f]{32}", fullmatch=True),
    definition=texts,
    phase=st.sampled_from(list(Phase)),
    parameters=st.dictionaries(texts, texts, max_size=3),
    spec=st.none()
    | st.builds(SimulationSpec, pipeline=texts)
    | st.builds(
        CommandSpec,
        argv=st.lists(texts, max_size=3).map(tuple),
        values=st.dictionaries(texts, texts, max_size=3),
        files=st.dictionaries(texts, st.builds(FileValue, value=texts), max_size=2),
        source=st.none() | st.builds(Source, url=texts, commit=texts),
    ),
    backend=texts,
    creation_time=times,
    phase_time=times,
    start_time=st.none() | times,
    destruction=st.none() | times,
    final_phase=st.none() | st.sampled_from(list(Phase)),
    prerequisites=st.lists(texts, max_size=3).map(tuple),
    exit_code=st.none() | st.integers(-255, 255),
    error=st.none() | st.builds(ErrorSummary, texts, st.booleans(), texts),
    results=st.lists(st.builds(Result, texts, texts, st.none() | st.integers(0, 2**40)), max_size=3).map(
        tuple
    ),
    progress=st.builds(Progress, *[st.integers(0, 10**6)] * 3),
    info=st.dictionaries(texts, st.integers(-9, 9) | texts, max_size=3),
)


@given(full_jobs)
def test_a_record_comes_back_as_it_was(job):
    assert from_row(to_row(job)) == job


@settings(max_examples=15, deadline=None)
@given(full_jobs)
async def test_a_job_comes_back_from_the_database_as_it_was(job):
    store = await JobStore.open()
    await store.insert(job)
    assert await store.get(job.id) == job
    await store.close()


async def test_what_was_stored_is_there_after_a_new_opening(url):
    store = await JobStore.open(url)
    await store.insert(make_job(1))
    await store.close()
    store = await JobStore.open(url)
    assert await store.get(f"{1:032x}") == make_job(1)
    assert await store.last_sequence() == 1
    await store.close()


async def test_replacing_needs_the_record_that_is_there(url):
    store = await JobStore.open(url)
    old = make_job(1)
    await store.insert(old)
    first = dataclasses.replace(old, message="first", sequence=2)
    assert await store.replace(old, first)
    assert not await store.replace(old, dataclasses.replace(old, message="second", sequence=3))
    assert (await store.get(old.id)).message == "first"
    await store.close()


async def test_a_store_of_a_newer_program_is_refused(url):
    store = await JobStore.open(url)
    await store.remember("schema_version", "999")
    await store.close()
    with pytest.raises(StoreError, match="schema version 999"):
        await JobStore.open(url)


async def test_a_bad_write_does_not_spoil_those_beside_it(url):
    store = await JobStore.open(url)
    await store.insert(make_job(1))
    writes = [store.insert(make_job(number)) for number in (2, 1, 3)]
    outcomes = await asyncio.gather(*writes, return_exceptions=True)
    assert [type(outcome) for outcome in outcomes] == [type(None), StoreError, type(None)]
    assert len(await store.live()) == 3
    await store.close()


async def test_a_locked_file_is_a_reason_and_not_a_crash(file_url, tmp_path, monkeypatch):
    monkeypatch.setattr(store_module, "BUSY_TIMEOUT", 0.1)
    store = await JobStore.open(file_url)
    with sqlite3.connect(tmp_path / "jobs.sqlite3") as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(StoreError, match="locked"):
            await store.insert(make_job(1))
        other.rollback()
    await store.insert(make_job(1))
    await store.close()


async def test_a_full_disk_is_a_reason_and_not_a_crash(file_url):
    store = await JobStore.open(file_url)
    await store.write(lambda connection: connection.exec_driver_sql("PRAGMA max_page_count = 20"))
    with pytest.raises(StoreError, match="full"):
        for number in range(1, 200):
            await store.insert(make_job(number, parameters={"text": "x" * 5000}))
    await store.close()


async def test_a_place_that_cannot_be_written_is_a_reason():
    with pytest.raises(StoreError, match="could not be opened"):
        await JobStore.open("sqlite+aiosqlite:////no/such/folder/jobs.sqlite3")


async def test_lists_are_narrowed_and_ordered(url):
    store = await JobStore.open(url)
    phases = [Phase.QUEUED, Phase.COMPLETED, Phase.ERROR, Phase.ARCHIVED]
    for number in range(1, 9):
        await store.insert(make_job(number, phase=phases[number % 4], owner=f"o{number % 2}"))

    async def numbers(**query) -> list[int]:
        return [int(job.id, 16) for job in await store.find(JobQuery(**query))]

    assert await numbers() == [1, 2, 4, 5, 6, 8]
    assert await numbers(phases=[Phase.ARCHIVED]) == [3, 7]
    assert await numbers(owner="o1") == [1, 5]
    assert await numbers(last=2) == [8, 6]
    assert await numbers(after=make_job(4).creation_time) == [5, 6, 8]
    assert await numbers(after=make_job(4).creation_time, last=1, phases=[Phase.COMPLETED]) == [5]
    assert [job.id for job in await store.live()] == [f"{4:032x}", f"{8:032x}"]
    await store.close()


async def test_jobs_are_found_by_words_whatever_their_case(url):
    store = await JobStore.open(url)
    texts = {
        "pipeline": "DRP.yaml#isr",
        "data_query": "visit=7 AND detector IN (1..3)",
        "odd": "100%_\0\ud800",
    }
    await store.insert(make_job(1, parameters=texts, owner="Alice", phase=Phase.COMPLETED))
    failed = make_job(2, run_id="night-7", phase=Phase.EXECUTING)
    await store.insert(failed)
    await store.replace(
        failed,
        dataclasses.replace(failed, phase=Phase.ERROR, error=ErrorSummary("No bias for ÖRN"), sequence=3),
    )

    async def found(*words: str) -> list[int]:
        query = JobQuery(words=words, last=9)
        (entries,) = [page async for page in store.entry_pages(query)]
        assert [job.id for job in await store.find(query)] == [entry.id for entry in entries]
        return [int(entry.id, 16) for entry in entries]

    assert await found("drp", "ALICE", "and") == [1]
    assert await found("completed") == [1]
    assert await found("error", "bias", "örn") == [2]
    assert await found("night") == [2]
    assert await found("any") == [2, 1]
    assert await found("100%_") == [1]
    assert await found("%") == [1]
    assert await found("nothing") == await found("executing") == await found("'") == []
    (entry,) = [entry async for page in store.entry_pages(JobQuery(words=["bias"])) for entry in page]
    assert (entry.message, entry.phase) == ("No bias for ÖRN", Phase.ERROR)
    # What is shown of a job without an error is found too.
    await store.insert(make_job(4, phase=Phase.ABORTED, message="clouds over Pachón"))
    assert await found("aborted", "PACHÓN") == [4]
    await store.close()


async def execute(store: JobStore, *statements: str) -> None:
    """Change the database of a store."""
    for statement in statements:
        await store.write(partial(sa.Connection.exec_driver_sql, statement=statement))


async def ids_found(store: JobStore, word: str) -> list[str]:
    """Search for a word, and close the store."""
    found = [job.id for job in await store.find(JobQuery(words=[word]))]
    await store.close()
    return found


async def test_old_records_are_found_although_the_first_start_with_search_did_not_succeed(url, monkeypatch):
    store = await JobStore.open(url)
    for number in (1, 2):
        await store.insert(make_job(number, parameters={"text": "Needle"}))
    # As the table was before jobs could be searched.
    drops = (f"DROP INDEX IF EXISTS {name}" for name in ("jobs_in_order_with_words", "jobs_without_words"))
    await execute(store, *drops, "ALTER TABLE jobs DROP COLUMN words")
    await store.close()

    def fail(*_: object) -> str:
        raise StoreError("the disk is full")

    with monkeypatch.context() as context:
        context.setattr(records, "words_of", fail)
        with pytest.raises(StoreError, match="the disk is full"):
            await JobStore.open(url)
    assert await ids_found(await JobStore.open(url), "needle") == [make_job(1).id, make_job(2).id]


async def test_records_that_an_older_program_has_written_are_found_after_the_next_start(url, monkeypatch):
    store = await JobStore.open(url)
    for number in (1, 2, 3):
        await store.insert(make_job(number, parameters={"text": "Needle"}))
    # As after a program that has no such column, and a damaged record.
    await execute(store, f"UPDATE jobs SET words = '' WHERE id > '{make_job(1).id}'")
    await execute(store, f"UPDATE jobs SET document = '7' WHERE id = '{make_job(2).id}'")
    await store.close()
    filled, words_of = [], records.words_of
    with monkeypatch.context() as context:
        context.setattr(records, "words_of", lambda *row: filled.append(row[0]) or words_of(*row))
        store = await JobStore.open(url)
    # What has words already is not read again at each start.
    assert filled == [make_job(2).id, make_job(3).id]
    assert await ids_found(store, "needle") == [make_job(1).id, make_job(3).id]


async def test_statistics_are_of_the_newest_jobs_that_ended(url):
    store = await JobStore.open(url)
    phases = [Phase.COMPLETED, Phase.ERROR, Phase.EXECUTING, Phase.ABORTED]
    for number in range(1, 41):
        job = make_job(number, phase=phases[number % 4], owner=f"o{number % 8}")
        end = job.creation_time + timedelta(seconds=10 + number / 4)
        await store.insert(dataclasses.replace(job, start_time=job.creation_time, end_time=end))
    await store.insert(make_job(99, definition="other", phase=Phase.COMPLETED))

    async def read(**options):
        return await read_statistics(
            store, ["any", "other", "none"], **{"owner": None, "last": 100} | options
        )

    every, other, none = await read()
    # Completed are 4, 8, …, 40: from 11 to 20 s.
    assert every == DefinitionStatistics("any", 30, 10, 10, 10, 15.0, 19.0)
    assert other == DefinitionStatistics("other", 1, 1, 0, 0, None, None)
    assert none == DefinitionStatistics("none", 0, 0, 0, 0, None, None)
    assert (await read(last=9))[0] == DefinitionStatistics("any", 9, 3, 3, 3, 19.0, 20.0)
    assert (await read(owner="o0"))[0] == DefinitionStatistics("any", 5, 5, 0, 0, 16.0, 20.0)
    await store.close()


async def test_doomed_jobs_are_found_when_their_time_has_come(url):
    store = await JobStore.open(url)
    time = now()
    await store.insert(make_job(1, destruction=time - timedelta(seconds=1)))
    await store.insert(make_job(2, destruction=time + timedelta(hours=1)))
    assert [job.id for job in await store.doomed(time)] == [f"{1:032x}"]
    assert await store.next_destruction() == time - timedelta(seconds=1)
    await store.close()


async def test_a_store_may_be_closed_twice_and_written_in_between(file_url):
    """The lease is released although an engine that could not be opened has closed its store."""
    store = await JobStore.open(file_url)
    await store.close()
    await store.remember("name", "value")
    await store.close()
    store = await JobStore.open(file_url)
    assert await store.recall("name") == "value"
    await store.close()
