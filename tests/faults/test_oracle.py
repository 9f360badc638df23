# SPDX-License-Identifier: GPL-3.0-or-later
"""The oracle of the fault campaign sees each kind of violation, and none where there is none."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import subprocess
from types import SimpleNamespace

import pytest
import yaml

from faults import __main__ as campaign
from faults import oracle as oracle_module
from faults.bystanders import Bystanders
from faults.oracle import Oracle

SERVER = SimpleNamespace(name="server", url="http://server")


class FakeScript:
    """What was heard over SAL."""

    def __init__(self):
        self.results = []

    def tell(self, job_id, exit_code, phase, **more):
        text = json.dumps({"jobId": job_id, "phase": phase, **more})
        self.results.append(SimpleNamespace(job_id=job_id, exit_code=exit_code, result=text))

    async def result(self, job_id, timeout):
        if not any(each.job_id == job_id for each in self.results):
            raise TimeoutError


class FakeRedis:
    """What is in Redis."""

    def __init__(self):
        self.pushed = []

    async def values(self, key):
        return self.pushed


class Bench(Oracle):
    """An oracle whose server and ledger say what a test wants."""

    def __init__(self, folder):
        super().__init__(
            SimpleNamespace(
                ledger=folder,
                servers=[SERVER],
                script=FakeScript(),
                redis=FakeRedis(),
                bystanders=SimpleNamespace(harm=list),
            )
        )
        self.listed = []
        self.answers = {}

    def job(self, *, phase="completed", code=0, lines=("start 1", "end 0"), face="HTTP", accepted=True):
        """Add a job of which OCPS says one thing and the ledger another."""
        order = self.new("plain", 0, face)
        order.accepted, order.job_id, order.server = accepted, f"id-{order.token}", "server"
        if lines:
            (self.world.ledger / order.token).write_text("\n".join(lines) + "\n")
        if phase:
            self.listed.append(self.record(order, phase, code))
        self.answers[order.token] = order.token
        return order

    def record(self, order, phase, code):
        return {
            "jobId": order.job_id,
            "phase": phase,
            "jobInfo": {"exitCode": code},
            "parameters": {"place": self.place(order, 0)},
            "results": [],
        }

    async def _listed(self, url):
        return self.listed

    async def _answer(self, job):
        token = next(token for token in self.orders if token in json.dumps(job))
        return self.answers[token]


@pytest.fixture
def bench(tmp_path, monkeypatch):
    monkeypatch.setattr(oracle_module, "END_TIMEOUT", 0.1)
    return Bench(tmp_path)


async def found(bench):
    """Check, and return the only violation."""
    await bench.check()
    assert len(bench.violations) == 1, bench.violations
    return bench.violations[0]


async def test_true_ledgers_violate_nothing(bench):
    bench.job()
    bench.job(phase="error", code=3, lines=["start 1", "end 3"])
    bench.job(phase="aborted", code=None, lines=["start 1"]).abort_asked = True
    bench.job(phase="error", code=-9, lines=["start 1"]).harmed = True
    bench.job(phase=None, lines=[], accepted=False).refused = "503"
    bench.job(phase=None).deleted = True
    over_sal = bench.job(face="SAL")
    for _ in range(2):
        bench.world.script.tell(over_sal.job_id, 0, "completed")
    bench.pushes = {"a": "done", "b": "failed", "c": ""}
    bench.world.redis.pushed = ["a", "c"]
    await bench.check()
    assert bench.violations == []


async def test_two_executions(bench):
    bench.job(lines=["start 1", "start 2", "end 0"])
    assert "executed 2 times" in await found(bench)


async def test_an_accepted_job_that_is_lost(bench):
    bench.job(phase=None)
    assert "accepted over HTTP and lost" in await found(bench)


async def test_a_refused_job_that_ran(bench):
    bench.job(phase=None, accepted=False).refused = "503"
    assert "refused (503) and yet executed" in await found(bench)


async def test_a_job_that_does_not_end(bench):
    bench.job(phase="executing", code=None)
    assert "in the end executing" in await found(bench)


async def test_a_job_that_is_held(bench):
    bench.job(phase="held", code=None)
    assert "in the end held" in await found(bench)


@pytest.mark.parametrize("lines", [[], ["start 1"], ["start 1", "end 3"]])
async def test_completed_though_the_ledger_says_otherwise(bench, lines):
    bench.job(lines=lines)
    assert "COMPLETED, but its ledger says" in await found(bench)


async def test_a_result_that_is_not_the_jobs(bench):
    order = bench.job()
    bench.answers[order.token] = ""
    assert "COMPLETED with the result ''" in await found(bench)


async def test_another_exit_code(bench):
    bench.job(phase="error", code=3, lines=["start 1", "end 77"])
    assert "ERROR 3, but its ledger says" in await found(bench)


@pytest.mark.parametrize(("code", "words"), [(None, "without an exit code"), (-9, "ended by signal 9")])
async def test_an_error_that_nobody_caused(bench, code, words):
    bench.job(phase="error", code=code, lines=["start 1"])
    assert words in await found(bench)


async def test_an_abort_that_nobody_asked_for(bench):
    bench.job(phase="aborted", code=None, lines=["start 1"])
    assert "nobody asked for that" in await found(bench)


async def test_another_result_after_a_crash(bench):
    order = bench.job()
    bench.compare(order, {"phase": "error", "exit_code": 1}, "over HTTP")
    assert "first {'phase': 'error'" in await found(bench)


async def test_a_job_that_nobody_asked_for(bench):
    order = bench.job()
    stranger = bench.record(order, "completed", 0) | {"parameters": {"place": "elsewhere"}}
    bench.listed.append(stranger)
    assert "nobody asked for it" in await found(bench)


async def test_two_records_of_one_job(bench):
    order = bench.job()
    bench.listed.append(bench.record(order, "completed", 0) | {"jobId": "other"})
    assert "two jobs on the server" in await found(bench)


async def test_one_job_on_two_servers(bench):
    bench.job()
    bench.world.servers = [SERVER, SERVER]
    assert "on two servers" in await found(bench)


async def test_a_deleted_job_that_is_still_there(bench):
    order = bench.job()
    order.deleted = order.gone = True
    assert "deleted, and still there" in await found(bench)


async def test_no_result_over_sal(bench):
    bench.job(face="SAL")
    assert "no job_result over SAL" in await found(bench)


async def test_two_different_results_over_sal(bench):
    order = bench.job(face="SAL")
    bench.world.script.tell(order.job_id, 0, "completed")
    bench.world.script.tell(order.job_id, 0, "completed", more=1)
    assert "2 different results over SAL" in await found(bench)


async def test_a_false_exit_code_over_sal(bench):
    order = bench.job(face="SAL")
    bench.world.script.tell(order.job_id, 1, "completed")
    assert "exit code 1 over SAL, phase completed" in await found(bench)


async def test_sal_and_the_ledger_disagree(bench):
    order = bench.job(face="SAL", phase="error", code=3, lines=["start 1", "end 3"])
    bench.world.script.tell(order.job_id, 0, "completed")
    assert "over SAL completed, on the server error" in await found(bench)


@pytest.mark.parametrize("token", ["762349952919", "76234995291e"])
async def test_a_pipeline_writes_its_token_as_yaml(bench, token, monkeypatch):
    monkeypatch.setattr("secrets.token_hex", lambda size: token)
    order = bench.job()
    order.way = "pipeline"
    bench.answers[token] = yaml.safe_dump({"token": token})
    await bench.check()
    assert not bench.violations
    bench.answers[token] = "token: other\n"
    assert "COMPLETED with the result" in await found(bench)


@pytest.mark.parametrize("said", [True, False])
async def test_a_job_goes_on_after_an_abort_only_if_that_was_said(bench, said):
    order = bench.job(face="SAL")
    order.abort_asked = True
    words = "aborted by command abort_job"
    words += " (the backend did not confirm within 8 s that it has stopped)" if said else ""
    bench.world.script.tell(order.job_id, 1, "aborted", errorSummary={"message": words})
    if said:
        await bench.check()
        assert not bench.violations
    else:
        assert "over SAL aborted, on the server completed" in await found(bench)


@pytest.mark.parametrize(
    ("pushes", "pushed"), [({"a": "done"}, []), ({"a": "failed"}, ["a", "a"]), ({}, ["a"])]
)
async def test_redis_has_something_else(bench, pushes, pushed):
    bench.pushes, bench.world.redis.pushed = pushes, pushed
    assert "in Redis" in await found(bench)


async def test_a_process_that_is_left(bench):
    order = bench.job()
    process = await asyncio.create_subprocess_exec(
        *("sh", "-c", f"read line; : {order.token}"), stdin=subprocess.PIPE
    )
    try:
        assert f"process {process.pid} is left" in await found(bench)
    finally:
        process.kill()
        await process.wait()


@pytest.mark.parametrize("how", ["change", "delete", "add", "kill"])
async def test_harm_to_others(tmp_path, how):
    with Bystanders([tmp_path / "others"]) as others:
        assert others.harm() == []
        path = next((tmp_path / "others").rglob("answer"))
        if how == "change":
            path.write_text("other")
        elif how == "delete":
            shutil.rmtree(path.parent)
        elif how == "add":
            path.with_name("new").touch()
        else:
            os.killpg(others.pid, signal.SIGKILL)
            others.wait()
        assert others.harm()


async def image(bench, before, started=()):
    """Check a crash image, and return the only violation."""
    scratch = bench.world.ledger / "scratch"
    scratch.mkdir(exist_ok=True)
    await bench.check_image("http://copy", before, set(started), scratch)
    assert len(bench.violations) == 1, bench.violations
    return bench.violations[0]


async def test_an_image_without_an_accepted_job(bench):
    order = bench.job(phase=None)
    assert "not in a crash image" in await image(bench, {order.token: None})


async def test_an_image_with_another_result(bench):
    order = bench.job(phase="error", code=3)
    told = {"phase": "completed", "exit_code": 0}
    assert "in a later crash image error" in await image(bench, {order.token: told})


async def test_an_image_that_runs_a_job_again(bench):
    order = bench.job()
    (bench.world.ledger / "scratch").mkdir()
    (bench.world.ledger / "scratch" / order.token).write_text("start 5\nend 0\n")
    assert "executed again" in await image(bench, {order.token: None}, [order.token])


async def test_an_image_whose_job_does_not_end(bench):
    order = bench.job(phase="executing", code=None)
    assert "does not end on a crash image" in await image(bench, {order.token: None})


async def test_an_image_with_a_false_result(bench):
    order = bench.job()
    bench.answers[order.token] = ""
    assert "COMPLETED on a crash image" in await image(bench, {order.token: None})


async def test_descriptors_and_gaps(bench):
    campaign.check_gap(bench, campaign.MAX_GAP + 0.9, 1)
    campaign.check_held(bench, "server", 50, 50 - campaign.SPARE)
    assert bench.violations == []
    campaign.check_gap(bench, campaign.MAX_GAP + 1.1, 1)
    campaign.check_held(bench, "server", 50, 49 - campaign.SPARE)
    assert len(bench.violations) == 2
