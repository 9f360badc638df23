# SPDX-License-Identifier: GPL-3.0-or-later
"""The JSON list of jobs, page by page."""

from __future__ import annotations

import json

import pytest
from lsst.dm.OCPS.client import Client


@pytest.fixture
def made(start):
    """Return a function that starts a server with so many jobs."""

    async def make(count: int):
        served = await start()
        jobs = [(await served.create()).rpartition("/")[2] for _ in range(count)]
        return served, jobs

    return make


async def walk(served, query: str) -> list[list[dict]]:
    """Return all pages, as the header Link leads from one to the next."""
    pages, url = [], f"{served.root}/api/v1/job?{query}"
    while url:
        status, body, answer = await served.ask("GET", url)
        assert status == 200, body
        pages.append(json.loads(body))
        link = answer.links.get("next")
        url = str(link["url"]) if link else ""
    return pages


@pytest.mark.parametrize("view", ["whole", "short", "table"])
async def test_pages_lead_through_all_jobs_once_and_in_order(made, view):
    served, _ = await made(7)
    whole = [job["jobId"] for page in await walk(served, "") for job in page]
    pages = await walk(served, f"limit=3&view={view}")
    assert [len(page) for page in pages] == [3, 3, 1]
    assert [job["jobId"] for page in pages for job in page] == whole
    newest = await walk(served, f"limit=2&last=5&view={view}")
    assert [len(page) for page in newest] == [2, 2, 1]
    assert [job["jobId"] for page in newest for job in page] == whole[:1:-1]


async def test_a_job_made_or_removed_meanwhile_shifts_no_page(made):
    served, _ = await made(4)
    whole = [job["jobId"] for page in await walk(served, "") for job in page]
    _, body, answer = await served.ask("GET", "/api/v1/job?limit=2")
    assert [job["jobId"] for job in json.loads(body)] == whole[:2]
    await served.ask("DELETE", f"/api/v1/job/{whole[1]}")
    new = (await served.create()).rpartition("/")[2]
    _, body, _ = await served.ask("GET", f"{answer.links['next']['url']}&limit=9".replace("limit=2&", ""))
    assert [job["jobId"] for job in json.loads(body)] == [*whole[2:], new]


async def test_a_short_entry_is_enough_for_the_phase(made):
    served, (job,) = await made(1)
    ((entry,),) = await walk(served, "limit=5&view=short")
    assert entry["jobId"] == job
    assert entry["jobInfo"] == {"definition": "sleep", "uwsPhase": "PENDING"}


async def test_jobs_are_searched_page_by_page(start):
    served = await start(max_workers=1)
    for text in ("Needle one", "hay", "needle two"):
        await served.create(text=text)
    failed = (await served.create(run=True, duration="0", fail="true")).rpartition("/")[2]
    await served.ended(failed)
    await served.create("write", text="needle three")

    async def ids(query: str) -> list[str]:
        return [job["jobId"] for page in await walk(served, query) for job in page]

    needles = await ids("q=NEEDLE&last=9")
    assert len(needles) == 3
    pages = await walk(served, "q=needle&last=9&limit=2&view=table")
    assert [[job["jobId"] for job in page] for page in pages] == [needles[:2], needles[2:]]
    assert await ids("q=needle+two") == [needles[1]]
    assert await ids("q=needle&definition=write") == [needles[0]]
    assert await ids("q=failing+error") == await ids("uws_phase=ERROR") == [failed]
    assert len(await ids("uws_phase=ERROR&uws_phase=pending")) == 5
    assert await ids("uws_phase=ERROR&phase=completed") == await ids("q=needle+nothing") == []
    ((entry,),) = await walk(served, "q=asked+for&view=table&limit=9")
    whole = json.loads((await served.ask("GET", f"/api/v1/job/{failed}"))[1])
    info = {name: whole["jobInfo"][name] for name in ("definition", "uwsPhase", "progress")}
    info |= {"attempt": 1, "maxAttempts": 1}
    members = entry.keys() - {"jobInfo"}
    assert entry == {name: whole[name] for name in members} | {"jobInfo": info}
    assert "parameters" not in members
    created = whole["creationTime"].replace(" ", "T").replace("+00:00", "Z")
    assert failed in await ids(f"before=2999-01-01T00:00:00Z&after={created[:4]}-01-01T00:00:00Z")
    assert await ids(f"before={created[:4]}-01-01T00:00:00Z") == []


@pytest.mark.parametrize(
    ("query", "word"),
    [
        ("limit=0", "limit"),
        ("limit=x", "limit"),
        ("cursor=1.0.a", "limit"),
        ("limit=1&cursor=;", "cursor"),
        ("view=x", "view"),
        ("uws_phase=NAP", "uws_phase"),
        (f"q={'+'.join('abcdefghijk')}", "at most 10 words"),
        (f"q={'x' * 201}", "200 characters"),
    ],
)
async def test_wrong_pages_are_refused_in_words(start, query, word):
    served = await start()
    status, body, _ = await served.ask("GET", f"/api/v1/job?{query}")
    assert (status, word in body) == (400, True)


async def test_the_client_reads_all_pages(made, monkeypatch):
    monkeypatch.setattr("lsst.dm.OCPS.client.rubin.PAGE", 2)
    served, jobs = await made(5)
    async with Client(served.root) as client:
        found = await client.jobs()
        assert {job.id for job in found} == set(jobs)
        assert [job.id for job in await client.jobs(last=3)] == [job.id for job in found[:1:-1]]
        assert len(await client.jobs(phases="PENDING", last=4)) == 4
