# SPDX-License-Identifier: GPL-3.0-or-later
"""Files: as parameters, and as results."""

from __future__ import annotations

import aiohttp
import pytest
from aiohttp import web

from tests.waiting import until


def form(**fields) -> aiohttp.FormData:
    """Return a multipart form; bytes become files."""
    data = aiohttp.FormData()
    for name, value in fields.items():
        if isinstance(value, bytes):
            data.add_field(name, value, filename="../../evil.dat")
        else:
            data.add_field(name, value)
    return data


@pytest.mark.parametrize("fields", [{"table": b"x" * 300_000}, {"table": "param:upl", "upl": b"x" * 300_000}])
async def test_a_file_that_comes_with_the_request_is_given_to_the_job(served, fields):
    status, body, answer = await served.ask("POST", served.url("copy"), data=form(**fields, PHASE="RUN"))
    assert status == 303, body
    job = answer.headers["Location"]
    assert await served.ended(job) == "COMPLETED"
    assert (await served.ask("GET", f"{job}/results/copied.dat"))[1] == "x" * 300_000
    shown = (await served.ask("GET", job))[1]
    assert f'<uws:parameter id="table" byReference="true">{job}/parameters/table<' in shown
    assert (await served.ask("GET", f"{job}/parameters/table"))[1] == "x" * 300_000
    assert not list(served.manager.workspaces.work_dir.glob("upload-*"))


async def test_the_file_of_a_pending_job_can_be_replaced(served):
    _, _, answer = await served.ask("POST", served.url("copy"), data=form(table=b"old"))
    job = answer.headers["Location"]
    assert (await served.ask("POST", job, data=form(table=b"new")))[0] == 303
    await served.ask("POST", job, data={"PHASE": "RUN"})
    await served.ended(job)
    assert (await served.ask("GET", f"{job}/results/copied.dat"))[1] == "new"
    assert (await served.ask("POST", job, data=form(table=b"late")))[0] == 403
    assert (await served.ask("GET", f"{job}/parameters/table"))[1] == "new"


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"table": "param:other"}, "no file 'other'"),
        ({"table": "/etc/passwd"}, "is not a file"),
        ({"table": "file:///etc/passwd"}, "is not a file"),
        ({"table": "http://example.org/x"}, "is not a file"),
        ({"other": b"x"}, "not a file parameter"),
    ],
)
async def test_what_is_no_file_is_refused(served, fields, words):
    status, body, _ = await served.ask("POST", served.url("copy"), data=form(**fields, PHASE="RUN"))
    assert (status, words in body) == (400, True), body
    assert not list((served.manager.workspaces.work_dir / "jobs").iterdir())


async def test_a_file_that_is_too_long_is_refused(start):
    served = await start(http={"max_upload": 1000})
    assert (await served.ask("POST", served.url("copy"), data=form(table=b"x" * 1001)))[0] == 413
    assert not list(served.manager.workspaces.work_dir.glob("upload-*"))


async def test_a_file_can_be_given_by_reference_and_is_not_fetched_from_elsewhere(served):
    async def table(request):
        return web.Response(text="from afar")

    async def away(request):
        raise web.HTTPFound("http://localhost:1/secret")

    app = web.Application()
    app.add_routes([web.get("/table", table), web.get("/away", away)])
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    base = f"http://127.0.0.1:{runner.addresses[0][1]}"
    try:
        job = await served.create("copy", run=True, table=f"{base}/table")
        assert await served.ended(job) == "COMPLETED"
        assert (await served.ask("GET", f"{job}/results/copied.dat"))[1] == "from afar"
        assert f'byReference="true">{base}/table<' in (await served.ask("GET", job))[1]
        led_away = await served.create("copy", run=True, table=f"{base}/away")
        assert await served.ended(led_away) == "ERROR"
        assert "not allowed" in (await served.ask("GET", f"{led_away}/error"))[1]
    finally:
        await runner.cleanup()


# Results


@pytest.mark.parametrize(
    ("asked", "status", "expected"),
    [
        ("bytes=2-4", 206, "cde"),
        ("bytes=-3", 206, "hij"),
        ("bytes=7-", 206, "hij"),
        ("bytes=99-", 416, ""),
        (None, 200, "abcdefghij"),
    ],
)
async def test_a_part_of_a_result_can_be_asked_for(served, asked, status, expected):
    job = await served.create(run=True, duration="0", text="abcdefghij")
    await served.ended(job)
    headers = {"Range": asked} if asked else {}
    found, body, _ = await served.ask("GET", f"{job}/results/result.txt", headers=headers)
    assert (found, body) == (status, expected)


async def test_what_a_job_wrote_cannot_run_as_a_page_of_ours(served):
    job = await served.create("write", run=True)
    await served.ended(job)
    _, _, answer = await served.ask("GET", f"{job}/results/page.html")
    assert "sandbox" in answer.headers["Content-Security-Policy"]
    assert answer.headers["X-Content-Type-Options"] == "nosniff"


async def test_the_log_of_a_running_job_can_be_read(served):
    job = await served.create(run=True, duration="3600")
    await served.executing(job)
    path = served.manager.workspaces.of(job.rpartition("/")[2]).log
    await until(lambda: path.exists() and path.read_bytes())
    status, body, _ = await served.ask("GET", f"{job}/results/ocps.log")
    assert (status, body) == (200, "sleeping for 3600 s\n")


async def test_a_link_that_leads_out_is_no_result_also_when_it_is_made_later(served):
    job = await served.create("write", run=True)
    await served.ended(job)
    assert (await served.ask("GET", f"{job}/results/out"))[0] == 404
    page = served.manager.workspaces.of(job.rpartition("/")[2]).output / "page.html"
    page.unlink()
    page.symlink_to("/etc/passwd")
    status, body, _ = await served.ask("GET", f"{job}/results/page.html")
    assert (status, "root:" in body) == (404, False)
