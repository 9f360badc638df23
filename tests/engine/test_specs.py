# SPDX-License-Identifier: GPL-3.0-or-later
"""What a job is to run: kinds that a backend does not run, and records of older programs."""

from __future__ import annotations

import dataclasses
import json
import sqlite3
from pathlib import Path
from typing import Literal

import pytest
from lsst.dm.OCPS.definitions.specs import CommandSpec, ForwardedSpec, PipetaskSpec, SimulationSpec
from lsst.dm.OCPS.jobs.errors import RequestError
from lsst.dm.OCPS.jobs.model import ExecutionPhase, Progress
from lsst.dm.OCPS.jobs.records import from_row, to_row
from lsst.dm.OCPS.jobs.spec import Spec, UnreadSpec, read_spec
from lsst.dm.OCPS.jobs.store import JobQuery, JobStore

from tests.engine.conftest import AnyDefinition

Phase = ExecutionPhase
ROWS = json.loads((Path(__file__).parent / "records_v1.json").read_text())
"""Rows that a program with schema version 1 has written: one of each kind of job."""

UPDATED = [row | {"deleted": row["document"]["deleted"]} for row in ROWS]
"""The same with the columns of today."""


class OtherDefinition(AnyDefinition):
    """Makes jobs that the backend of these tests does not run."""

    async def resolve(self, request, job_id):
        return UnreadSpec(kind="other")


async def test_a_job_of_a_kind_that_the_backend_does_not_run_is_refused(bench, ask):
    manager = await bench.open()
    manager.lane.definitions["any"] = OtherDefinition("any")
    with pytest.raises(RequestError, match="jobs of kind other do not run on the backend scripted") as caught:
        await manager.submit(ask())
    assert caught.value.field == "definition"
    job = await manager.submit(ask(), run=False)
    with pytest.raises(RequestError, match="it runs: any"):
        await manager.run(job.id)
    assert (await manager.get(job.id)).phase == Phase.PENDING
    assert bench.backend.given == []


def test_each_kind_of_job_of_schema_version_1_is_read():
    jobs = [from_row(row) for row in UPDATED]
    kinds = [type(job.spec) for job in jobs]
    assert kinds == [
        PipetaskSpec,
        ForwardedSpec,
        CommandSpec,
        CommandSpec,
        type(None),
        SimulationSpec,
        PipetaskSpec,
    ]
    pipeline, forwarded, script, shell, pending, simulated, deleted = jobs
    assert (pipeline.spec.inputs, pipeline.spec.options) == (
        ("LATISS/defaults", "more"),
        ("--config", "isr:doX=True"),
    )
    assert pipeline.progress == Progress(3, 0, 3)
    assert forwarded.spec.environment["DATA_QUERY"] == "exposure=5"
    assert (forwarded.spec.pipeline, forwarded.spec.commit_ref) == ("$CP_PIPE_DIR/bias.yaml", "main")
    assert (script.spec.source.commit, script.spec.files["file"].value) == ("abc123", "param:file")
    assert (shell.spec.command, shell.spec.environment) == ("echo hello", {"X": "1"})
    assert (pending.phase, pending.priority) == (Phase.PENDING, 2)
    assert simulated.spec.pipeline == "true.yaml"
    # Results of jobs that came over SAL were kept until they had been published.
    assert [job.keep_until_published for job in jobs] == [row["origin"] == "sal" for row in ROWS]
    assert deleted.deleted


@pytest.mark.parametrize("row", UPDATED, ids=lambda row: row["phase"])
def test_what_was_read_is_written_in_the_present_form(row):
    job = from_row(row)
    again = from_row(json.loads(json.dumps(to_row(job))))
    assert again == job
    assert type(again.spec) is type(job.spec)


VERSION_1 = """
    CREATE TABLE state (name VARCHAR(128) NOT NULL PRIMARY KEY, value TEXT NOT NULL);
    INSERT INTO state VALUES ('schema_version', '1');
    CREATE TABLE jobs (
        id VARCHAR(128) NOT NULL PRIMARY KEY, definition VARCHAR(128) NOT NULL,
        owner VARCHAR(256) NOT NULL, run_id TEXT NOT NULL, origin VARCHAR(16) NOT NULL,
        phase VARCHAR(16) NOT NULL, published BOOLEAN NOT NULL, creation_ms BIGINT NOT NULL,
        destruction_ms BIGINT, sequence BIGINT NOT NULL, document JSON NOT NULL
    );
    CREATE INDEX jobs_by_list ON jobs (definition, creation_ms);
    CREATE INDEX jobs_by_creation ON jobs (creation_ms);
    CREATE INDEX jobs_by_phase ON jobs (phase, creation_ms);
    CREATE INDEX jobs_by_destruction ON jobs (destruction_ms);
    CREATE UNIQUE INDEX jobs_by_sequence ON jobs (sequence)
"""
"""The tables as a program with schema version 1 made them."""


def write_version_1(connection, mark: str) -> None:
    """Fill a database as a program with schema version 1 did."""
    for statement in VERSION_1.split(";"):
        connection.execute(statement)
    for row in ROWS:
        names = ", ".join(row)
        marks = ", ".join([mark] * len(row))
        values = [json.dumps(value) if isinstance(value, dict) else value for value in row.values()]
        connection.execute(f"INSERT INTO jobs ({names}) VALUES ({marks})", values)


async def check_upgrade(url: str) -> None:
    """Open a store of version 1 twice; it must hold what it held, in the present form."""
    for _ in range(2):
        store = await JobStore.open(url)
        every = await store.find(JobQuery(phases=list(Phase), deleted=None))
        assert {job.id: job for job in every} == {row["id"]: from_row(row) for row in UPDATED}
        assert [job.id for job in await store.live()] == [f"{number:032x}" for number in (2, 5, 6)]
        deleted = await store.find(JobQuery(phases=list(Phase), deleted=True))
        assert [job.id for job in deleted] == [f"{7:032x}"]
        assert await store.recall("schema_version") == "2"
        await store.close()


async def test_a_store_of_schema_version_1_is_brought_up_to_date(tmp_path):
    with sqlite3.connect(tmp_path / "jobs.sqlite3") as connection:
        write_version_1(connection, "?")
    await check_upgrade(f"sqlite+aiosqlite:///{tmp_path / 'jobs.sqlite3'}")


async def test_a_store_of_schema_version_1_on_postgresql_is_brought_up_to_date(cluster, database):
    with cluster.connect(database) as connection:
        write_version_1(connection, "%s")
    await check_upgrade(cluster.url(database))
    with cluster.connect(database) as connection:
        found = connection.execute("SELECT indexname FROM pg_indexes WHERE tablename = 'jobs'")
        names = {name for (name,) in found}
    assert {"jobs_deleted", "jobs_by_run_id"} <= names


async def test_a_spec_whose_package_is_loaded_late_is_read_when_its_backend_is_used(bench, ask):
    manager = await bench.open(max_workers=0)
    job = await manager.submit(ask())
    document = {"kind": "late", "number": 3}
    store = manager.store
    await store.replace(job, job := _with_spec(job, UnreadSpec(**document)))
    await manager.close()
    bench.backend.kinds = {"late"}
    manager = await bench.make()
    assert isinstance(manager.live()[0].spec, UnreadSpec)

    class LateSpec(Spec):
        kind: Literal["late"] = "late"
        number: int

    await bench.use()
    assert manager.live()[0].spec == LateSpec(number=3)


def _with_spec(job, spec):
    return dataclasses.replace(job, spec=spec, sequence=job.sequence + 1)


def test_a_spec_that_does_not_fit_its_model_is_kept_as_it_was():
    document = {"kind": "simulation", "program": "x"}
    spec = read_spec(document)
    assert isinstance(spec, UnreadSpec)
    assert spec.document() == document
