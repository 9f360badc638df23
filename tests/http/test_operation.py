# SPDX-License-Identifier: GPL-3.0-or-later
"""What operators watch: metrics, health checks, one prefix for all addresses."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import yaml
from lsst.dm.OCPS.client import Client
from lsst.dm.OCPS.jobs.errors import StoreError
from prometheus_client.parser import text_string_to_metric_families

MONITORING = Path(__file__).resolve().parents[2] / "deploy" / "monitoring"


def expressions() -> dict[str, list[str]]:
    """Return what the board and the alarm rules ask Prometheus for, by file."""
    board = json.loads((MONITORING / "grafana-ocps.json").read_text())
    rules = yaml.safe_load((MONITORING / "prometheus-alerts.yaml").read_text())
    return {
        "board": [target["expr"] for panel in board["panels"] for target in panel["targets"]],
        "rules": [rule["expr"] for group in rules["groups"] for rule in group["rules"]],
    }


def named(expression: str) -> set[str]:
    """Return the metrics that an expression names."""
    return set(re.findall(r"\b(?:ocps|process)_[a-z_]+", expression))


async def figures(served, path: str = "/metrics") -> dict[tuple[str, ...], float]:
    """Return the figures by name and the values of their labels."""
    status, body, _ = await served.ask("GET", path)
    assert status == 200, body
    return {
        (sample.name, *(value for _, value in sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(body)
        for sample in family.samples
    }


async def test_metrics_count_jobs_by_definition_and_phase(start):
    served = await start(max_workers=1)
    await served.ended(await served.create(run=True, duration="0"))
    await served.ended(await served.create(run=True, duration="0", fail="true"))
    running = await served.create(run=True, duration="600")
    await served.executing(running)
    await served.create(run=True, duration="600")
    await served.create()
    found = await figures(served)
    assert found["ocps_jobs_ended_total", "sleep", "COMPLETED"] == 1
    assert found["ocps_jobs_ended_total", "sleep", "ERROR"] == 1
    assert found["ocps_jobs", "sleep", "EXECUTING"] == 1
    assert found["ocps_jobs", "sleep", "QUEUED"] == 1
    assert found["ocps_jobs", "sleep", "PENDING"] == 1
    assert found["ocps_queue_length", "local"] == 1
    assert (found["ocps_workers_busy", "local"], found["ocps_workers_limit", "local"]) == (1, 1)
    assert found["ocps_job_running_seconds_count", "sleep"] == 2
    assert found["ocps_job_waiting_seconds_count", "sleep"] == 3
    assert found["ocps_store_write_seconds_count",] > 0
    assert found["ocps_http_connections",] >= 1
    assert found["ocps_ready", "store"] == 1
    assert found["ocps_backend_unreachable_seconds", "local"] == 0


async def test_metrics_need_a_caller_who_is_known(start, tmp_path):
    proxy = {"method": "proxy", "proxies": ["192.0.2.1"], "anonymous": True, "open": False}
    served = await start(http={"auth": proxy})
    assert (await served.ask("GET", "/metrics"))[0] == 401
    assert (await served.ask("GET", "/healthz"))[0] == 200
    assert (await served.ask("GET", "/readyz"))[0] == 200


async def test_readiness_tells_the_parts_apart(start, monkeypatch):
    served = await start()
    status, body, _ = await served.ask("GET", "/readyz")
    assert (status, json.loads(body)["ready"]) == (200, True)

    async def fail():
        raise StoreError("the disk is full")

    monkeypatch.setattr(served.manager.store, "last_sequence", fail)
    status, body, _ = await served.ask("GET", "/readyz")
    found = json.loads(body)
    assert (status, found["ready"]) == (503, False)
    assert found["store"] == {"ok": False, "reason": "the disk is full"}
    assert found["engine"]["ok"]
    assert found["backend"]["ok"]
    # Alive all the same: to start it again would not help.
    assert (await served.ask("GET", "/healthz"))[0] == 200
    assert (await figures(served))["ocps_ready", "store"] == 0


async def test_a_backend_that_is_away_makes_the_server_not_ready(start):
    served = await start(backend="uws", url="http://127.0.0.1:9/api/v1", environments=[])
    status, body, _ = await served.ask("GET", "/readyz")
    found = json.loads(body)
    assert (status, found["backend"]["ok"], found["store"]["ok"]) == (503, False, True)
    assert "127.0.0.1:9" in found["backend"]["reason"]


@pytest.mark.parametrize(
    "path", ["/healthz", "/readyz", "/metrics", "/availability", "/api/v1/job", "/uws/sleep"]
)
async def test_everything_lies_under_the_prefix(start, path):
    served = await start(http={"prefix": "/ocps"})
    assert (await served.ask("GET", f"/ocps{path}"))[0] == 200
    assert (await served.ask("GET", path))[0] == 404


async def test_addresses_in_answers_have_the_prefix(start):
    served = await start(http={"prefix": "/ocps"})
    status, _, answer = await served.ask("POST", f"{served.root}/ocps/uws/sleep", data={})
    location = answer.headers["Location"]
    assert (status, location.startswith(f"{served.root}/ocps/uws/sleep/")) == (303, True)
    assert (await served.ask("GET", location))[0] == 200
    _, body, _ = await served.ask("GET", "/ocps/uws/sleep")
    assert f'href="{location}"' in body
    _, body, _ = await served.ask("GET", "/ocps/capabilities")
    assert f"{served.root}/ocps/availability" in body
    _, body, _ = await served.ask("GET", "/ocps/api/v1/openapi.json")
    assert json.loads(body)["servers"] == [{"url": f"{served.root}/ocps/api/v1"}]


@pytest.mark.parametrize("path", ["", "/uws", "/uws/sleep", "/api/v1"])
async def test_the_client_finds_a_server_under_a_prefix(start, path):
    served = await start(http={"prefix": "/ocps"})
    async with Client(f"{served.root}/ocps{path}") as client:
        assert await client.availability() == ""
        job = await client.submit("sleep", {"duration": "0"})
        assert job.url.startswith(f"{served.root}/ocps/uws/sleep/")
        assert [found.id for found in await client.jobs()] == [job.id]


@pytest.mark.parametrize("file", ["board", "rules"])
async def test_each_metric_of_board_and_alarm_rules_is_exported(start, file):
    served = await start()
    await served.ended(await served.create(run=True, duration="0"))
    exported = {name for name, *_ in await figures(served)}
    wanted = set().union(*map(named, expressions()[file]))
    assert len(wanted) >= 8
    # Those of SAL are there beside a CSC only, those of notifications where some are configured.
    elsewhere = ("ocps_sal_", "ocps_notifications_")
    missing = {name for name in wanted - exported if not name.startswith(elsewhere)}
    assert not missing
