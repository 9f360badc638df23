# SPDX-License-Identifier: GPL-3.0-or-later
"""The dashboard in a browser: jobs of the real engine are asked for, followed, stopped and found."""

from __future__ import annotations

import asyncio
import json
import re
import shlex
import struct
import zlib
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import yaml
from lsst.dm.OCPS.http.secrets_file import hash_password, hash_token
from playwright.async_api import Page, expect

from tests.waiting import TIMEOUT, until

pytestmark = pytest.mark.asyncio(loop_scope="module")

AXE = (Path(__file__).parent / "axe.min.js").read_text()
HOSTILE = "<img src=x onerror=\"document.title='taken'\">&amp;"


async def has_phase(page: Page, phase: str) -> None:
    await expect(page.locator("main p .phase")).to_contain_text(phase)


async def serious_faults(page: Page) -> list[str]:
    """Return what axe finds that keeps somebody from using a page."""
    await page.evaluate(AXE)
    found = await page.evaluate("() => axe.run()")
    return [
        f"{one['id']}: {one['nodes'][0]['html']}"
        for one in found["violations"]
        if one["impact"] in ("serious", "critical")
    ]


def pixels(png: bytes) -> bytes:
    """Return red, green, blue of all pixels of a picture without interlacing."""
    data, at = b"", 8
    width = height = step = 0
    while at < len(png):
        (size,), kind = struct.unpack(">I", png[at : at + 4]), png[at + 4 : at + 8]
        body = png[at + 8 : at + 8 + size]
        if kind == b"IHDR":
            width, height = struct.unpack(">II", body[:8])
            step = {2: 3, 6: 4}[body[9]]
        data += body if kind == b"IDAT" else b""
        at += size + 12
    raw, rows, last = zlib.decompress(data), bytearray(), bytearray(width * step)
    for y in range(height):
        start = y * (width * step + 1)
        how, line = raw[start], bytearray(raw[start + 1 : start + 1 + width * step])
        for x in range(len(line)):
            left = line[x - step] if x >= step else 0
            up, corner = last[x], last[x - step] if x >= step else 0
            paeth = min((left, up, corner), key=lambda one: abs(left + up - corner - one))
            line[x] = (line[x] + (0, left, up, (left + up) // 2, paeth)[how]) & 255
        rows += b"".join(line[x : x + 3] for x in range(0, len(line), step))
        last = line
    return bytes(rows)


async def test_a_job_is_asked_for_by_form_followed_and_its_result_seen(served, open_page):
    page = await open_page(f"{served.root}/ui/submit")
    await page.get_by_role("link", name="sleep", exact=True).click()
    await page.get_by_label("duration").fill("-1")
    await page.get_by_role("button", name="Submit", exact=True).click()
    await expect(page.locator("#field-duration-help [role=alert]")).to_contain_text("0")
    assert not served.manager.live()
    await page.get_by_label("duration").fill("0.2")
    await page.get_by_label("text").fill(HOSTILE)
    await page.get_by_role("button", name="Check only").click()
    await expect(page.locator("form [role=status]")).not_to_be_empty()
    assert not served.manager.live()
    await page.get_by_role("button", name="Submit", exact=True).click()
    await has_phase(page, "COMPLETED")
    await page.get_by_role("button", name="Show result.txt").click()
    await expect(page.locator("li pre")).to_contain_text(HOSTILE)
    async with page.expect_download() as download:
        await page.get_by_role("button", name="Download result.txt").click()
    assert HOSTILE in (await (await download.value).path()).read_text()
    await page.get_by_text("The same from elsewhere").click()
    line = await page.locator("details pre").first.inner_text()
    assert shlex.split(line) == ["ocps", "submit", "sleep", "duration=0.2", f"text={HOSTILE}", "fail=false"]
    # The same again, with a change.
    await page.get_by_role("link", name="Run again, edited").click()
    await expect(page.get_by_label("text")).to_have_value(HOSTILE)
    # Parameters may be secret, and addresses get into logs.
    assert re.fullmatch("again=[^&=]+", page.url.partition("?")[2])
    assert await page.title() == "OCPS"
    assert await page.locator("img").count() == 0


async def test_a_running_job_is_aborted_and_found_in_the_history(served, open_page):
    url = await served.create(run=True, duration="600")
    await served.executing(url)
    failed = await served.create(run=True, duration="0", fail="true")
    assert await served.ended(failed) == "ERROR"
    # What a browser asks for at an address of UWS.
    page = await open_page(url)
    assert "/ui/job/" in page.url
    await page.get_by_role("button", name="Abort").click()
    await has_phase(page, "ABORTED")
    await page.get_by_role("link", name="History").click()
    await page.get_by_label("phase").select_option("ERROR")
    await expect(page.locator("tbody tr")).to_have_count(1)
    await expect(page.get_by_role("listitem").first).to_contain_text("1 job")
    await page.get_by_role("button", name="Report as text").click()
    report = page.get_by_label("Report", exact=True)
    await expect(report).to_contain_text("sleep: 1 ERROR; run time")
    await expect(report).to_contain_text(re.compile(r"1 job, first .* UTC: .*failing, as asked for"))
    await expect(report).to_contain_text(failed.rpartition("/")[2])
    shared = page.url
    assert "phase=ERROR" in shared
    await page.goto(shared)
    await expect(page.locator("tbody tr")).to_have_count(1)
    assert failed.rpartition("/")[2] in (await page.locator("tbody").inner_html())


async def test_the_server_searches_the_history_page_by_page(served, open_page):
    await asyncio.gather(*(served.create(text=f"needle {number}") for number in range(102)))
    hidden = (await served.create("write", text=HOSTILE)).rpartition("/")[2]
    page = await open_page(f"{served.root}/ui/history?q=needle")
    rows = page.locator("tbody tr")
    await expect(rows).to_have_count(100)
    await page.get_by_role("button", name="Older jobs").click()
    await expect(rows).to_have_count(102)
    await expect(page.get_by_role("button", name="Older jobs")).to_have_count(0)
    await page.get_by_label("words").clear()
    await page.get_by_label("words").press_sequentially("onerror PENDING")
    await expect(page.get_by_label("words")).to_have_value("onerror PENDING")
    await expect(rows).to_have_count(1)
    await expect(rows).to_contain_text(hidden)
    assert "q=onerror+PENDING" in page.url
    await page.get_by_label("after").fill("yesterday")
    await expect(page.get_by_role("alert")).to_contain_text("'yesterday' is not a time")
    # Blanks around are no part of what is looked for.
    await page.get_by_label("after").fill(" 2999 ")
    await expect(page.get_by_role("alert")).to_have_count(0)
    await expect(rows).to_have_count(0)


@pytest.mark.parametrize(("button", "late"), [("Older jobs", "cursor="), ("Report as text", "limit=1000")])
async def test_an_answer_for_words_that_have_changed_is_not_shown(served, open_page, button, late):
    await asyncio.gather(*(served.create(text=f"needle {number}") for number in range(101)))
    await served.create(text="other")
    page = await open_page(f"{served.root}/ui/history?q=needle")
    asked, free = asyncio.Event(), asyncio.Event()

    async def hold(route):
        asked.set()
        await free.wait()
        await route.continue_()

    rows = page.locator("tbody tr")
    await expect(rows).to_have_count(100)
    await page.route(re.compile(f"/api/v1/job.*{late}"), hold)
    await page.get_by_role("button", name=button).click()
    await asyncio.wait_for(asked.wait(), TIMEOUT)
    await page.get_by_label("words").fill("other")
    await expect(rows).to_have_count(1)
    async with page.expect_request_finished(lambda request: late in request.url):
        free.set()
    # Whatever the page makes of the answer, it has made when a later one has been read and drawn.
    await page.evaluate("""async () => {
        await (await fetch("/api/v1/job?limit=1000")).json();
        for (const _ of [1, 2]) await new Promise(requestAnimationFrame);
    }""")
    await expect(rows).to_have_count(1)
    await expect(page.get_by_role("button", name="Older jobs")).to_have_count(0)
    await expect(page.get_by_label("Report", exact=True)).to_have_count(0)


async def test_what_ended_last_is_shown_beside_many_newer_jobs(served, open_page):
    first, second = [(await served.create(duration="600")).rpartition("/")[2] for _ in range(2)]
    await served.manager.abort(second)
    end = datetime.now(UTC)
    await asyncio.gather(*(served.create() for _ in range(201)))
    page = await open_page(f"{served.root}/")
    ended = page.get_by_role("region", name="Jobs that ended last").locator("tbody tr")
    await expect(ended).to_have_text([re.compile(second)])
    # Documents have whole seconds.
    await until(lambda: datetime.now(UTC) - end > timedelta(seconds=1))
    await served.manager.abort(first)
    await expect(ended).to_have_text([re.compile(first), re.compile(second)])


async def test_run_times_stand_beside_the_usual_ones(served, open_page):
    done = [await served.create(run=True, duration="0") for _ in range(3)]
    assert {await served.ended(url) for url in done} == {"COMPLETED"}
    url = await served.create(run=True, duration="600")
    await served.executing(url)
    page = await open_page(f"{served.root}/")
    running = page.get_by_role("region", name="Running jobs")
    await expect(running).to_contain_text("usually")
    # It runs longer than those that did nothing.
    await expect(running).to_contain_text("slow")
    await running.get_by_role("link", name=url.rpartition("/")[2]).click()
    await expect(page.locator("main p").first).to_contain_text("usually")


async def test_why_jobs_wait_and_what_works_is_said(start, open_page):
    served = await start(max_workers=1)
    running = await served.create(run=True, duration="600")
    await served.executing(running)
    second = (await served.create(run=True, duration="0")).rpartition("/")[2]
    third = (await served.create(run=True, duration="0")).rpartition("/")[2]
    await served.create(run=True, duration="0", PREREQ_JOBS=second)
    page = await open_page(f"{served.root}/")
    await expect(page.get_by_text("1 of 1 workers used, 3 waiting")).to_be_visible()
    await expect(page.get_by_text("Engine, store and backend work")).to_be_visible()
    waiting = page.get_by_role("region", name="Waiting jobs").locator("tbody tr")
    await expect(waiting).to_have_text(
        [
            re.compile(f"{second}.*place 1 in"),
            re.compile(f"{third}.*place 2 in"),
            re.compile(f"waiting for {second}"),
        ]
    )
    # What stands in for a CSC, and for a store that does not answer.
    found = json.loads((await served.ask("GET", "/api/v1/status"))[1])
    csc = {
        "name": "OCPS",
        "index": 1,
        "state": "FAULT",
        "versions": {"cscVersion": HOSTILE},
        "configuration": {},
    }
    found |= {"csc": csc, "parts": found["parts"] | {"store": {"ok": False, "reason": HOSTILE}}}
    await page.route("**/api/v1/status", lambda route: route.fulfill(json=found))
    await page.reload()
    await expect(page.get_by_text("CSC OCPS:1 FAULT")).to_contain_text(HOSTILE)
    await expect(page.get_by_role("alert")).to_have_text(f"store does not work: {HOSTILE}")
    assert await page.title() == "OCPS"


async def test_a_held_job_waits_until_it_is_run(served, open_page):
    url = await served.create(duration="0")
    page = await open_page(url)
    await page.get_by_role("button", name="Hold").click()
    await has_phase(page, "HELD")
    await page.get_by_role("button", name="Run", exact=True).click()
    await has_phase(page, "COMPLETED")


async def test_changes_appear_by_themselves_and_the_log_can_be_searched(served, open_page):
    page = await open_page(f"{served.root}/")
    await expect(page.get_by_role("heading", name="Running (0)")).to_be_visible()
    url = await served.create(run=True, duration="600")
    await expect(page.get_by_role("heading", name="Running (1)")).to_be_visible()
    await page.get_by_role("link", name=url.rpartition("/")[2]).click()
    await page.get_by_role("button", name="Abort").click()
    await has_phase(page, "ABORTED")
    written = await served.create("write", run=True, text="needle")
    await served.ended(written)
    await page.goto(written)
    await page.get_by_label("Search the log").fill("no such words")
    await expect(page.get_by_text("0 lines")).to_be_visible()


async def test_pictures_and_tables_are_previewed(start, open_page, tmp_path):
    drawn = '<svg xmlns="http://www.w3.org/2000/svg" width="30" height="20"><rect width="9"/></svg>'
    command = f"echo '{drawn}' > plot.svg; printf 'band,seeing\\nr,0.7\\n' > seeing.csv"
    document = {
        "definitions": [
            {
                "name": "draw",
                "kind": "command",
                "argv": ["bash", "-c", command],
                "outputs": ["plot.svg", "seeing.csv"],
            }
        ]
    }
    path = tmp_path / "draw.yaml"
    path.write_text(yaml.safe_dump(document))
    served = await start(definitions=["sleep", str(path)])
    url = await served.create("draw", run=True)
    assert await served.ended(url) == "COMPLETED"
    page = await open_page(url)
    await page.get_by_role("button", name="Show plot.svg").click()
    await page.wait_for_function("() => document.querySelector('img')?.naturalWidth === 30")
    await page.get_by_role("button", name="Show seeing.csv").click()
    await expect(page.get_by_role("cell", name="0.7", exact=True)).to_be_visible()


async def test_users_log_in_and_see_their_own_jobs(start, open_page, tmp_path):
    path = tmp_path / "secrets.yaml"
    path.touch(0o600)
    users = {
        "alice": {"password": hash_password("wonder:land")},
        "bob": {"token": hash_token("bobs-long-token")},
    }
    path.write_text(yaml.safe_dump({"users": users}))
    served = await start(http={"auth": {"method": "secrets", "file": str(path)}})
    status, _, answer = await served.ask(
        "POST", served.url(), data={"duration": "600"}, headers={"Authorization": "Bearer bobs-long-token"}
    )
    assert status == 303
    bobs = answer.headers["Location"].rpartition("/")[2]
    page = await open_page(f"{served.root}/")
    await page.get_by_label("Password or token").fill("wrong")
    await page.get_by_role("button", name="Log in").click()
    await expect(page.get_by_role("alert")).to_contain_text("Wrong")
    await page.get_by_label("Password or token").fill("bobs-long-token")
    await page.get_by_role("button", name="Log in").click()
    await expect(page.get_by_role("link", name=bobs)).to_be_visible()
    hers = await open_page(f"{served.root}/ui/job/{bobs}")
    await hers.get_by_label("Name").fill("alice")
    await hers.get_by_label("Password or token").fill("wonder:land")
    await hers.get_by_role("button", name="Log in").click()
    await expect(hers.get_by_role("alert")).to_contain_text("belongs to somebody else")


async def test_a_phone_the_keyboard_the_dome_and_those_who_see_little(served, open_page):
    url = await served.create(run=True, duration="0", text="seen")
    await served.ended(url)
    page = await open_page(f"{served.root}/", viewport={"width": 360, "height": 640})
    for key, heading in (("2", "Submit"), ("3", "History"), ("1", "Now")):
        await page.keyboard.press(key)
        await expect(page.get_by_role("heading", name=heading, exact=True)).to_be_visible()
        assert not await serious_faults(page)
        assert await page.evaluate("() => document.documentElement.scrollWidth") <= 360
    await page.goto(url)
    await has_phase(page, "COMPLETED")
    assert not await serious_faults(page)
    assert await page.evaluate("() => document.documentElement.scrollWidth") <= 360
    await page.keyboard.press("n")
    seen = pixels(await page.screenshot())
    assert max(seen[0::3]) > 150
    assert max(seen[1::3]) == 0
    assert max(seen[2::3]) == 0


async def test_a_key_pressed_the_moment_the_page_is_there(served, open_page):
    page = await open_page(f"{served.root}/")
    press = "addEventListener('load', () => dispatchEvent(new KeyboardEvent('keydown', {key: '2'})))"
    await page.add_init_script(press)
    await page.reload()
    await expect(page.get_by_role("heading", name="Submit", exact=True)).to_be_visible()


async def test_under_a_prefix(start, open_page):
    served = await start(http={"prefix": "/ocps"})
    page = await open_page(f"{served.root}/ocps/uws/sleep")
    assert page.url.endswith("/ocps/ui/history?definition=sleep")
    await page.get_by_role("link", name="Now").click()
    await expect(page.get_by_role("heading", name="Now", exact=True)).to_be_visible()
    assert re.fullmatch(".*/ocps/", page.url)


@pytest.mark.parametrize("accept", ["*/*", "application/xml", "application/xml, text/html;q=0.5"])
async def test_clients_get_xml_at_addresses_of_uws(served, accept):
    status, body, answer = await served.ask("GET", "/uws/sleep", headers={"Accept": accept})
    assert status == 200
    assert answer.content_type == "application/xml"
    assert body.startswith("<?xml")


async def test_what_is_not_there_and_foreign_hosts(served):
    assert (await served.ask("GET", "/ui/static/../__init__.py"))[0] == 404
    assert (await served.ask("GET", "/ui/static/..%2fpage.html"))[0] == 404
    status, _, answer = await served.ask("GET", "/")
    assert status == 200
    assert "default-src 'none'" in answer.headers["Content-Security-Policy"]
    assert (await served.ask("GET", "/", headers={"Host": "evil.example"}))[0] == 403
