# SPDX-License-Identifier: GPL-3.0-or-later
"""Lists of jobs are read in the order of an index: no page of a long list has to be sorted."""

from __future__ import annotations

from pathlib import Path

import pytest
import sqlalchemy as sa
from lsst.dm.OCPS.jobs.query import JobQuery
from lsst.dm.OCPS.jobs.records import FORMER_INDEXES, jobs, without_words
from lsst.dm.OCPS.jobs.store import JobStore

from tests.engine.test_store import make_job


@pytest.mark.parametrize("last", [None, 10_000])
@pytest.mark.parametrize("definition", [None, "sleep"])
@pytest.mark.parametrize("words", [(), ("needle",)])
async def test_no_page_of_a_list_is_sorted(
    last: int | None, definition: str | None, words: tuple[str]
) -> None:
    store = await JobStore.open()
    select = JobQuery(definition=definition, last=last, words=words).apply(sa.select(jobs), (1, "a"))
    text = str(select.compile(dialect=store._engine.dialect, compile_kwargs={"literal_binds": True}))
    plan = " ".join(row[-1] for row in await store.read(sa.text(f"EXPLAIN QUERY PLAN {text}")))  # type: ignore[arg-type]
    await store.close()
    assert "jobs_of_definition" in plan if definition else "jobs_in_order" in plan
    assert "TEMP B-TREE" not in plan


async def test_no_start_reads_the_whole_table_for_records_without_words() -> None:
    store = await JobStore.open()
    select = str(without_words("a").compile(compile_kwargs={"literal_binds": True}))
    plan = " ".join(row[-1] for row in await store.read(sa.text(f"EXPLAIN QUERY PLAN {select}")))  # type: ignore[arg-type]
    await store.close()
    assert "USING INDEX jobs_without_words (id>?)" in plan
    assert "TEMP B-TREE" not in plan


async def test_a_store_of_an_earlier_version_gets_the_indexes(tmp_path: Path) -> None:
    url = f"sqlite+aiosqlite:///{tmp_path / 'jobs.sqlite3'}"

    async def indexes(store: JobStore) -> set[str]:
        rows = await store.read(sa.text("SELECT name FROM sqlite_master WHERE type = 'index'"))  # type: ignore[arg-type]
        return {row[0] for row in rows}

    store = await JobStore.open(url)
    await store.insert(make_job(1, parameters={"text": "Needle"}))
    for name in ("jobs_in_order_with_words", "jobs_without_words"):
        drop = sa.text(f"DROP INDEX {name}")
        await store.write(lambda connection, drop=drop: connection.execute(drop))
    # As the table was before jobs could be searched.
    await store.write(lambda connection: connection.execute(sa.text("ALTER TABLE jobs DROP COLUMN words")))
    older = "CREATE INDEX jobs_in_order ON jobs (creation_ms, id)"
    await store.write(lambda connection: connection.execute(sa.text(older)))
    former = f"CREATE INDEX {FORMER_INDEXES[1]} ON jobs (creation_ms)"
    await store.write(lambda connection: connection.execute(sa.text(former)))
    await store.close()
    store = await JobStore.open(url)
    found = await indexes(store)
    assert [job.id for job in await store.find(JobQuery(words=["needle"]))] == [make_job(1).id]
    await store.close()
    assert "jobs_in_order_with_words" in found
    assert not found & {*FORMER_INDEXES, "jobs_in_order"}
