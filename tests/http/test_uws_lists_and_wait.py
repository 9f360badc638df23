# SPDX-License-Identifier: GPL-3.0-or-later
"""Job lists and their filters; WAIT."""

from __future__ import annotations

import asyncio
import re
import time
from urllib.parse import quote

import pytest

from tests.waiting import TIMEOUT, until


async def listed(served, query: str = "", name: str = "sleep") -> list[str]:
    """Return the ids in a list, in its order."""
    status, body, _ = await served.ask("GET", f"{served.url(name)}{query}")
    assert status == 200, body
    return re.findall(r'<uws:jobref id="(\w+)"', body)


def created(job: str) -> str:
    return re.search("<uws:creationTime>(.*?)<", job)[1]


async def five(served) -> list[str]:
    """Make five jobs, each later than the one before; return their ids."""
    ids = []
    for _ in range(5):
        ids.append((await served.create(duration="0")).rpartition("/")[2])
        await asyncio.sleep(0.002)
    return ids


async def test_a_list_has_its_own_jobs_only_with_or_without_a_slash(served):
    ids = await five(served)
    await served.create("typed")
    assert set(await listed(served)) == set(await listed(served, "/")) == set(ids)


async def test_last_means_the_newest_by_creation_newest_first(served):
    ids = await five(served)
    assert await listed(served, "?LAST=2") == [ids[4], ids[3]]
    assert await listed(served, "?last=99") == ids[::-1]


async def test_phases_can_be_repeated_and_archived_must_be_asked_for(served):
    ids = await five(served)
    for job_id in ids[:2]:
        await served.ask("POST", f"{served.url()}/{job_id}", data={"PHASE": "ABORT"})
    await served.ask("POST", f"{served.url()}/{ids[2]}", data={"PHASE": "RUN"})
    await served.ended(ids[2])
    assert set(await listed(served, "?PHASE=ABORTED&PHASE=COMPLETED")) == set(ids[:3])
    assert await listed(served, "?PHASE=ARCHIVED") == []
    assert await listed(served, "?PHASE=ABORTED&LAST=1") == [ids[1]]


async def test_after_is_strict_in_utc_and_at_the_precision_printed(served):
    ids = await five(served)
    time_of_third = created((await served.ask("GET", f"{served.url()}/{ids[2]}"))[1])
    for text in (time_of_third, time_of_third.removesuffix("Z"), time_of_third.replace("T", " ")):
        assert set(await listed(served, f"?AFTER={quote(text)}")) == set(ids[3:])
    assert await listed(served, f"?AFTER={time_of_third}&LAST=1&PHASE=PENDING") == [ids[4]]
    for text in ("2015", "2015-10", "20151026", "2015-10-26", "2015-10-26 09:00", "2015-10-26T09:15:35.5"):
        assert set(await listed(served, f"?AFTER={quote(text)}")) == set(ids)
    assert await listed(served, "?AFTER=2999") == []


@pytest.mark.parametrize(
    "query",
    [
        "PHASE=SUCCESS",
        "PHASE=pending",
        "PHASE=",
        "LAST=0",
        "LAST=-1",
        "LAST=x",
        "LAST=",
        "LAST=1.5",
        "AFTER=x",
        "AFTER=2015-26-10",
        "AFTER=",
        "AFTER=2015-10-26T09:00%2B01:00",
        "AFTER=2015-10-26T09",
        "AFTER=0000",
    ],
)
async def test_a_filter_that_makes_no_sense_is_refused(served, query):
    status, body, _ = await served.ask("GET", f"{served.url()}?{query}")
    assert (status, body.startswith(query.partition("=")[0])) == (400, True)


async def test_a_list_longer_than_a_page_is_whole_and_in_order(served, monkeypatch):
    jobs = [(await served.create(duration="0")).rpartition("/")[2] for _ in range(25)]
    pages = served.manager.store.pages
    monkeypatch.setattr(served.manager.store, "pages", lambda query, size: pages(query, min(size, 7)))
    assert await listed(served) == jobs
    assert await listed(served, "?LAST=15") == sorted(jobs, key=jobs.index)[:9:-1]
    assert await listed(served, "?LAST=14") == jobs[:10:-1]


# WAIT


async def asked(served, url: str) -> str:
    """Return an answer that must come although the time asked for is longer than any test waits."""
    async with asyncio.timeout(TIMEOUT):
        status, body, _ = await served.ask("GET", url)
    assert status == 200, body
    return body


async def took(served, url: str) -> float:
    """Return how long (s) an answer took."""
    start = time.monotonic()
    await asked(served, url)
    return time.monotonic() - start


async def waiters(served, count: int) -> None:
    """Return when so many requests wait for a job."""
    await until(lambda: served.waits == count)


async def test_wait_lasts_as_long_as_asked(served):
    job = await served.create()
    assert await took(served, f"{job}?WAIT=1") >= 1.0


async def test_wait_is_over_when_the_phase_changes(served):
    job = await served.create(duration="60")
    waiting = asyncio.create_task(asked(served, f"{job}?WAIT=3600&PHASE=PENDING"))
    await waiters(served, 1)
    await served.ask("POST", job, data={"PHASE": "ABORT"})
    assert "<uws:phase>ABORTED" in await waiting


async def test_wait_follows_a_job_through_its_phases(served):
    job = await served.create(run=True, duration="0.5")
    seen = []
    while not seen or seen[-1] in ("QUEUED", "EXECUTING"):
        seen.append(await asked(served, f"{job}/phase?WAIT=3600"))
    assert seen[-1] == "COMPLETED"
    assert len(seen) <= 3


@pytest.mark.parametrize(
    "query", ["WAIT=3600&PHASE=QUEUED", "WAIT=3600&PHASE=COMPLETED", "WAIT=0", "PHASE=QUEUED"]
)
async def test_there_is_no_wait_for_another_phase_or_no_time(served, query):
    job = await served.create()
    assert "PENDING" in await asked(served, f"{job}?{query}")


async def test_there_is_no_wait_in_a_phase_that_does_not_pass_by_itself(served):
    ended = await served.create()
    await served.ask("POST", ended, data={"PHASE": "ABORT"})
    held = await served.create()
    await served.manager.hold(held.rpartition("/")[2])
    for job, phase in ((ended, "ABORTED"), (held, "HELD")):
        assert phase in await asked(served, f"{job}?WAIT=3600")


@pytest.mark.parametrize("query", ["WAIT=x", "WAIT=1.5", "WAIT=", "WAIT=1&PHASE=NOSUCH"])
async def test_a_wait_that_makes_no_sense_is_refused(served, query):
    job = await served.create()
    assert (await served.ask("GET", f"{job}?{query}"))[0] == 400


async def test_a_wait_without_an_end_has_one(served, monkeypatch):
    from lsst.dm.OCPS.http import waiting

    monkeypatch.setattr(waiting, "FOREVER", 0.5)
    job = await served.create()
    for query in ("WAIT=-1", "WAIT=-5"):
        assert await took(served, f"{job}?{query}") >= 0.5


async def test_a_thousand_wait_at_once_and_all_hear_of_the_end(served):
    job = await served.create()
    waiting = [asyncio.create_task(asked(served, f"{job}/phase?WAIT=3600")) for _ in range(1000)]
    await waiters(served, 1000)
    # While they wait, the server has time for others.
    await asked(served, "/healthz")
    await served.ask("POST", job, data={"PHASE": "ABORT"})
    assert set(await asyncio.gather(*waiting)) == {"ABORTED"}


async def test_nobody_waits_for_a_client_that_has_gone(served, monkeypatch):
    from lsst.dm.OCPS.http import waiting

    monkeypatch.setattr(waiting, "LOOK_INTERVAL", 0.1)
    job = await served.create()
    _reader, writer = await asyncio.open_connection("127.0.0.1", served.server.port)
    path = job.removeprefix(served.root)
    writer.write(f"GET {path}?WAIT=3600 HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
    await waiters(served, 1)
    writer.close()
    await waiters(served, 0)
