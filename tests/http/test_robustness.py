# SPDX-License-Identifier: GPL-3.0-or-later
"""What strangers and broken clients send: refused or served, and the server stays up."""

from __future__ import annotations

import asyncio
from unittest.mock import ANY

import pytest
from lsst.dm.OCPS.jobs.errors import StoreError

from tests.waiting import TIMEOUT, until


async def raw(served, request: bytes, half: bool = False) -> bytes:
    """Send bytes as they are; return all that is answered."""
    reader, writer = await asyncio.open_connection("127.0.0.1", served.server.port)
    try:
        writer.write(request)
        if not half:
            writer.write_eof()
        async with asyncio.timeout(TIMEOUT):
            return await reader.read()
    finally:
        writer.close()


async def works(served) -> None:
    """Check that the server still does its work."""
    job = await served.create(run=True, duration="0", text="fine")
    assert await served.ended(job) == "COMPLETED"


PATHS = [
    "/uws/sleep/..",
    "/uws/../../etc/passwd",
    "/uws/sleep/..%2f..%2fetc%2fpasswd",
    "/uws/sleep/%2e%2e/%2e%2e/etc/passwd",
    "/uws/%2fetc",
    "/uws/sleep/a%00b",
    "/uws/sleep/%ff%fe",
    "/uws/sleep/" + "a" * 4000,
    "/uws/sleep/{job}/results/../../../jobs.sqlite3",
    "/uws/sleep/{job}/results/..%2f..%2f..%2f..%2fjobs.sqlite3",
    "/uws/sleep/{job}/results/%2fetc%2fpasswd",
    "/uws/sleep/{job}/results//etc/passwd",
    "/uws/sleep/{job}/parameters/..%2fplan.json",
    "/api/v1/job/..%2f..%2fetc",
    "/api/v1/job/{job}/..%2fplan.json",
    "/api/v1/job/result/{job}/-1",
    "/api/v1/job/result/{job}/99999999999999999999",
    "/api/v1/job/result/{job}/..%2f..%2fplan.json",
    "/api/v1/job/result/../0",
    "/api/v1/job?id=../../etc/passwd",
    "/api/v1/job?id=a%2fb",
]


async def test_no_path_leads_out(served):
    job = await served.create(run=True, duration="0")
    await served.ended(job)
    before = sorted(served.manager.workspaces.work_dir.rglob("*"))
    for path in PATHS:
        path = path.replace("{job}", job.rpartition("/")[2])
        for method in ("GET", "DELETE", "POST"):
            answer = await raw(
                served,
                f"{method} {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode(),
                half=True,
            )
            status = int(answer[9:12])
            assert status in (400, 403, 404, 405), (method, path, answer)
            assert b"root:" not in answer
            assert b"Traceback" not in answer
    assert sorted(served.manager.workspaces.work_dir.rglob("*")) == before
    assert (await served.ask("GET", f"{job}/phase"))[1] == "COMPLETED"


@pytest.mark.parametrize(
    "request_bytes",
    [
        b"\x00\x01\x02\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"GET /uws/sleep HTTP/1.1\r\n\r\n",
        b"GET /uws/sleep HTTP/1.1\r\nHost: a b<c>\r\n\r\n",
        b"GET /uws/sleep HTTP/1.1\r\nHost: localhost\r\nX: " + b"x" * 100_000 + b"\r\n\r\n",
        b"POST /uws/sleep HTTP/1.1\r\nHost: localhost\r\nContent-Length: -1\r\n\r\n",
        b"POST /uws/sleep HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"POST /uws/sleep HTTP/1.1\r\nHost: localhost\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nabc",
    ],
)
async def test_what_is_no_http_is_refused(served, request_bytes):
    answer = await raw(served, request_bytes)
    assert not answer or answer[9:10] == b"4" or b" 505 " in answer[:20], answer[:200]
    assert b"Traceback" not in answer
    await works(served)


MULTIPART = {"Content-Type": "multipart/form-data; boundary=x"}
FORM = {"Content-Type": "application/x-www-form-urlencoded"}
JSON = {"Content-Type": "application/json"}


@pytest.mark.parametrize(
    ("method", "path", "headers", "body", "status"),
    [
        ("POST", "/uws/sleep", FORM, b"text=" + b"x" * 2_000_000, 413),
        ("POST", "/uws/sleep", FORM, b"&".join([b"a"] * 200_000), 400),
        ("POST", "/uws/sleep", FORM, b"text=%ff%fe", 400),
        ("POST", "/uws/sleep", FORM, b"\xff\xfe", 400),
        ("POST", "/uws/sleep", FORM, b"text=a%00b", 400),
        ("POST", "/uws/sleep", FORM, b"text=a&text=b", 400),
        ("POST", "/uws/sleep", FORM, b"PHASE=RUN&phase=ABORT", 400),
        ("POST", "/uws/sleep", {"Content-Type": "text/xml"}, b"<a/>", 415),
        (
            "POST",
            "/uws/sleep",
            {"Content-Type": "application/x-www-form-urlencoded; charset=nosuch"},
            b"a=b",
            400,
        ),
        ("POST", "/uws/sleep", MULTIPART, b"", 400),
        ("POST", "/uws/sleep", MULTIPART, b"--y\r\n\r\nnothing", 400),
        ("POST", "/uws/sleep", {"Content-Type": "multipart/form-data"}, b"--x--", 400),
        ("POST", "/uws/sleep", MULTIPART, b"--x\r\n\r\nno name\r\n--x--\r\n", 400),
        (
            "POST",
            "/uws/sleep",
            MULTIPART,
            b'--x\r\nContent-Disposition: form-data; name="text"\r\n\r\n'
            + b"x" * 2_000_000
            + b"\r\n--x--\r\n",
            413,
        ),
        ("PUT", "/api/v1/job", JSON, b"x" * 2_000_000, 413),
        ("PUT", "/api/v1/job", JSON, b"[" * 100_000, 400),
        ("PUT", "/api/v1/job", JSON, b'{"a":' + b"9" * 10_000 + b"}", 400),
        ("POST", "/api/v1/job", JSON, b"\xff", 400),
        ("POST", "/api/v1/job", JSON, b'{"type": "sleep", "env": {"text": "\\ud800"}}', 400),
        ("PATCH", "/api/v1/job", JSON, b"{}", 405),
    ],
)
async def test_bodies_that_are_huge_or_make_no_sense_are_refused(served, method, path, headers, body, status):
    found, text, _ = await served.ask(method, path, data=body, headers=headers)
    assert found == status, text
    assert "Traceback" not in text
    assert not await served.manager.store.live()
    await works(served)


DIGITS = "0" * 9 + "1" + "0" * 4990
"""A whole number that Python refuses to convert: it has more than 4300 digits."""


@pytest.mark.parametrize(
    "path",
    [
        f"/api/v1/job?last={DIGITS}",
        f"/api/v1/job?limit={DIGITS}",
        f"/api/v1/job?limit=1&cursor={DIGITS}.1.a",
        f"/api/v1/events?last_event_id={DIGITS}",
        f"/uws/sleep?LAST={DIGITS}",
        f"/uws/sleep?AFTER={DIGITS}",
    ],
)
async def test_numbers_without_bound_are_refused(served, path):
    status, text, _ = await served.ask("GET", path)
    assert status == 400
    assert len(text) < 200


async def test_entities_of_xml_are_never_expanded(served):
    bomb = '<!DOCTYPE x [<!ENTITY a SYSTEM "file:///etc/passwd"><!ENTITY b "&a;&a;">]><x>&b;</x>'
    assert (await served.ask("POST", "/uws/sleep", data=bomb, headers={"Content-Type": "text/xml"}))[0] == 415
    job = await served.create(text=bomb)
    _, body, _ = await served.ask("GET", job)
    assert "&lt;!ENTITY a" in body
    assert "root:" not in body


async def test_slow_clients_hold_nobody_up(served, monkeypatch):
    from lsst.dm.OCPS.http import bodies

    monkeypatch.setattr(bodies, "GRACE", 2)
    head = b"POST /uws/sleep HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n"
    slow = [asyncio.create_task(raw(served, head + FORM_LINE + b"\r\ntext=", half=True)) for _ in range(50)]
    idle = [asyncio.create_task(raw(served, b"GET /uws", half=True)) for _ in range(50)]
    await works(served)
    answers = await asyncio.gather(*slow)
    assert {answer[9:12] for answer in answers} == {b"408"}
    for task in idle:
        task.cancel()
    await asyncio.gather(*idle, return_exceptions=True)


FORM_LINE = b"Content-Type: application/x-www-form-urlencoded\r\n"


async def test_a_client_that_goes_away_while_it_makes_a_job_leaves_a_job_that_runs(served):
    body = b"duration=0&PHASE=RUN"
    head = b"POST /uws/sleep HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n" % len(body)
    for _ in range(20):
        _, writer = await asyncio.open_connection("127.0.0.1", served.server.port)
        writer.write(head + FORM_LINE + b"\r\n" + body)
        writer.close()
    await works(served)
    for job in served.manager.live():
        assert (await served.manager.wait(job.id, TIMEOUT)).phase == "COMPLETED"


async def test_a_failure_of_ours_tells_a_stranger_nothing(served, monkeypatch):
    async def fail(*_):
        raise RuntimeError("secret-of-the-server")

    monkeypatch.setattr(served.manager, "get", fail)
    status, body, _ = await served.ask("GET", "/uws/sleep/" + "0" * 32)
    assert (status, "secret" in body) == (500, False)


@pytest.mark.parametrize("path", ["/uws/sleep", "/api/v1/job"])
async def test_a_list_that_cannot_be_read_to_its_end_is_refused_or_cut_off(served, monkeypatch, path):
    for _ in range(3):
        await served.create()
    store, count = served.manager.store, 0

    def failing(pages):
        async def fail(query, size=1):
            async for page in pages(query, 1):
                if count == 0:
                    raise StoreError("the disk is broken")
                yield page
                raise StoreError("the disk is broken")

        return fail

    for name in ("pages", "job_pages"):
        monkeypatch.setattr(store, name, failing(getattr(store, name)))
    assert await served.ask("GET", path) == (503, "the disk is broken\n", ANY)
    count = 1
    answer = await raw(served, f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode(), half=True)
    # No end of the chunks: a client knows that something is missing.
    assert b"200 OK" in answer
    assert not answer.endswith(b"0\r\n\r\n")
    # And no second answer behind it; ids of jobs may contain any digits.
    assert answer.count(b"HTTP/1.1 ") == 1


async def test_the_server_ends_in_a_moment_although_clients_wait(start):
    served = await start()
    job = await served.create()
    waiting = asyncio.create_task(served.ask("GET", f"{job}?WAIT=3600"))
    await until(lambda: served.waits == 1)
    async with asyncio.timeout(TIMEOUT):
        await served.server.close()
    await asyncio.gather(waiting, return_exceptions=True)
