# SPDX-License-Identifier: GPL-3.0-or-later
"""No answer is ever 500, no log line can be forged, and what a connection carries stays in step."""

# ruff: noqa: E501
from __future__ import annotations

import asyncio
import dataclasses
import json
import logging

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from lsst.dm.OCPS.http import events, uws_xml
from lsst.dm.OCPS.jobs.model import Result
from lsst.dm.OCPS.logs import CleanText

from tests.security.conftest import attacker, bearer

FORM = {"Content-Type": "application/x-www-form-urlencoded"}


async def test_head_of_a_streamed_document_sends_no_body(served):
    await served.create()
    for path in ("/uws/sleep", "/api/v1/job", "/uws/sleep?LAST=1"):
        head = f"HEAD {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode()
        last = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
        answer = await attacker(served).send(head + last, end=False)
        first, _, rest = answer.partition(b"\r\n\r\n")
        assert b"200 OK" in first, first
        # What follows the head is the next answer, not a body.
        assert rest.startswith(b"HTTP/1.1 200 OK"), rest


SIGNED = {
    "an answer": ("GET", "/healthz", 200),
    "a list": ("GET", "/uws/sleep", 200),
    "a redirection": ("GET", "/uws/sleep", 303),
    "an unknown address": ("GET", "/nowhere", 404),
    "another method": ("DELETE", "/healthz", 405),
    "an unknown job": ("GET", "/uws/sleep/nojob", 404),
    "a wrong request": ("GET", "/uws/sleep?LAST=x", 400),
    "a foreign name": ("GET", "/healthz", 403),
    "no HTTP": ("G\x7fT", "/healthz", 400),
}


async def test_each_answer_names_the_program_and_not_its_parts(served):
    headers = {"a redirection": {"Accept": "text/html"}, "a foreign name": {"Host": "evil.example"}}
    for kind, (method, path, expected) in SIGNED.items():
        status, answer = await attacker(served).ask(method, path, headers=headers.get(kind))
        head = answer.partition(b"\r\n\r\n")[0]
        assert status == expected, (kind, answer)
        assert b"\r\nServer: OCPS/" in head and b"\r\nX-OCPS: " in head, (kind, head)
        assert b"aiohttp" not in answer, (kind, answer)


async def test_nothing_is_answered_past_the_guard(served, monkeypatch):
    server = served.server._runner.server
    monkeypatch.setattr(server, "request_handler", served.server._runner.app._handle)
    for path in ("/healthz", "/uws/sleep", "/api/v1/job", "/"):
        status, answer = await attacker(served).ask("GET", path)
        assert status == 500, (path, answer)
        assert b"sleep" not in answer


async def test_an_open_stream_names_the_program(served):
    reader, writer = await asyncio.open_connection("127.0.0.1", served.server.port)
    writer.write(b"GET /api/v1/events HTTP/1.1\r\nHost: localhost\r\n\r\n")
    async with asyncio.timeout(60):
        assert b"\r\nX-OCPS: " in await reader.readuntil(b"\r\n\r\n")
    writer.close()


async def test_strangers_do_not_learn_which_addresses_exist(start, auth):
    who = attacker(await start(http={"auth": auth}))
    for path in ("/uws/sleep", "/uws/nolist", "/nowhere", "/uws/sleep/a/nowhere"):
        assert (await who.ask("GET", path))[0] == 401, path
    assert (await who.ask("GET", "/nowhere", headers=bearer("alice")))[0] == 404


async def test_a_client_that_leaves_in_mid_list_leaves_no_traceback(served, caplog):
    for _ in range(3):
        await served.create(text="x" * 60_000)
    for path in ("/uws/sleep", "/api/v1/job"):
        for _ in range(5):
            _, writer = await asyncio.open_connection("127.0.0.1", served.server.port)
            writer.write(f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
            await writer.drain()
            writer.transport.abort()
    assert (await attacker(served).ask("GET", "/healthz"))[0] == 200
    assert not [record for record in caplog.records if record.exc_info]


async def test_a_reader_that_left_does_not_count(served, monkeypatch):
    monkeypatch.setattr(events, "MAX_READERS_OF_OWNER", 3)
    request = b"GET /api/v1/events HTTP/1.1\r\nHost: localhost\r\n\r\n"
    for _ in range(10):
        reader, writer = await asyncio.open_connection("127.0.0.1", served.server.port)
        async with asyncio.timeout(60):
            while True:
                writer.write(request)
                if b"200 OK" in await reader.readline():
                    break
                # The server has not heard yet that the last one left.
                writer.close()
                reader, writer = await asyncio.open_connection("127.0.0.1", served.server.port)
        writer.close()


async def test_streams_are_limited_per_owner(start, auth, monkeypatch):
    monkeypatch.setattr(events, "MAX_READERS_OF_OWNER", 2)
    served = await start(http={"auth": auth})
    writers = []
    for name, expected in (("alice", b"200"), ("alice", b"200"), ("alice", b"503"), ("bob", b"200")):
        reader, writer = await asyncio.open_connection("127.0.0.1", served.server.port)
        writer.write(
            f"GET /api/v1/events HTTP/1.1\r\nHost: localhost\r\nAuthorization: {bearer(name)['Authorization']}\r\n\r\n".encode()
        )
        assert expected in await reader.readline()
        writers.append(writer)
    for writer in writers:
        writer.close()


# Logs


async def test_no_request_forges_a_line_of_the_log(served, monkeypatch, caplog):
    async def fail(*_):
        raise RuntimeError("broken\nERROR forged by the text of an error \x1b[2J")

    monkeypatch.setattr(served.manager, "get", fail)
    job = "0" * 32
    for path in (
        f"/uws/sleep/{job}/parameters/a%0aERROR%20forged",
        f"/uws/sleep/{job}/results/%1b[2J%e2%80%ae",
    ):
        status, answer = await attacker(served).ask("GET", path)
        assert status == 500
        assert b"forged" not in answer
    text = "\n".join(logging.Formatter().format(record) for record in caplog.records)
    assert "failed" in text
    for line in text.split("\n"):
        assert line.isprintable()
        assert not line.startswith("ERROR")


def test_a_record_of_another_part_is_escaped_too():
    record = logging.LogRecord("x", 20, "", 0, "Job %s failed: %s", ("a\nb", "\x1b[31m"), None)
    assert CleanText().filter(record)
    assert record.getMessage() == "Job a\\nb failed: \\x1b[31m"


# Uploads


def upload(size: int) -> tuple[bytes, dict[str, str]]:
    head = b'--b\r\nContent-Disposition: form-data; name="table"; filename="f"\r\n\r\n'
    return head + b"x" * size + b"\r\n--b--\r\n", {"Content-Type": "multipart/form-data; boundary=b"}


async def test_files_are_counted_per_request_per_owner_and_over_all(start, auth):
    limits = {"max_upload": 1000, "max_owner_uploads": 1500, "max_uploads": 2000}
    served = await start(http={"auth": auth} | limits)

    async def send(name: str, size: int, path: str = "/uws/copy") -> tuple[int, bytes]:
        body, headers = upload(size)
        return await attacker(served).ask("POST", path, body, headers | bearer(name))

    many = b"".join(
        b'--b\r\nContent-Disposition: form-data; name="f%d"; filename="f"\r\n\r\n%s\r\n'
        % (number, b"x" * 400)
        for number in range(5)
    )
    headers = {"Content-Type": "multipart/form-data; boundary=b"}
    status, _ = await attacker(served).ask("POST", "/uws/copy", many + b"--b--\r\n", headers | bearer("bob"))
    assert status == 413
    status, answer = await send("alice", 900)
    assert status == 303
    job = (
        answer.partition(b"Location: ")[2]
        .partition(b"\r\n")[0]
        .decode()
        .partition("://")[2]
        .partition("/")[2]
    )
    status, answer = await send("alice", 900)
    assert (status, b"your jobs keep" in answer) == (507, True)
    assert (await send("bob", 900))[0] == 303
    status, answer = await send("bob", 300)
    assert (status, b"all jobs keep" in answer) == (507, True)
    # What a deleted job kept counts no more; after a restart, what others keep still does.
    assert (await attacker(served).ask("DELETE", f"/{job}", headers=bearer("alice")))[0] == 303
    assert (await send("alice", 900))[0] == 303
    work_dir = served.manager.workspaces.work_dir
    assert not list(work_dir.glob("upload-*"))


async def test_a_disk_that_is_nearly_full_takes_no_files(start):
    served = await start(min_free_space=1 << 62)
    body, headers = upload(10)
    status, answer = await attacker(served).ask("POST", "/uws/copy", body, headers)
    assert (status, b"nearly full" in answer) == (507, True)


# Never 500

METHODS = st.sampled_from(["GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH"])
PIECES = st.sampled_from(
    [
        "/",
        "uws",
        "sleep",
        "copy",
        "pipetask",
        "api",
        "v1",
        "job",
        "events",
        "result",
        "results",
        "parameters",
        "phase",
        "error",
        "quote",
        "owner",
        "destruction",
        "executionDuration",
        "definitions",
        "openapi.json",
        "healthz",
        "capabilities",
        "%00",
        "%0a",
        "%ff",
        "..",
        "?",
        "&",
        "=",
        "WAIT",
        "0",
        "-1",
        "PHASE",
        "RUN",
        "AFTER",
        "LAST",
        "id",
        "last",
        "phase",
        "run_id",
        "list",
        "text",
        "duration",
        "{job}",
        "%2f",
        "#",
        ";",
        "é",
    ]
)
PATHS = st.lists(PIECES, max_size=9).map(
    lambda pieces: "/" + "/".join(pieces).replace("/?/", "?").replace("/=/", "=")
)
VALUES = st.one_of(
    st.sampled_from(
        [
            "",
            "bytes=0-",
            "bytes=-1",
            "W/x",
            "0",
            "-1",
            "gzip",
            "100-continue",
            "multipart/form-data; boundary=x",
        ]
    ),
    st.text(st.characters(min_codepoint=32, max_codepoint=0x2FF, blacklist_categories=["Cc"]), max_size=30),
)
HEADERS = st.dictionaries(
    st.sampled_from(
        [
            "Authorization",
            "Origin",
            "Content-Type",
            "Range",
            "If-None-Match",
            "Last-Event-ID",
            "Accept",
            "Expect",
            "X",
        ]
    ),
    VALUES,
    max_size=4,
)
BODIES = st.one_of(
    st.binary(max_size=200),
    st.sampled_from(
        [b"PHASE=RUN", b"PHASE=%ff", b"a=b&a=c", b"DESTRUCTION=x", b"text=%00", b"--x--", b"{}", b"[]"]
    ),
    st.dictionaries(
        st.sampled_from(["type", "command", "env", "environment", "run_id", "url", "commit_ref", "priority"]),
        st.recursive(
            st.none() | st.booleans() | st.floats() | st.text(max_size=9),
            lambda s: st.lists(s, max_size=3),
            max_leaves=4,
        ),
        max_size=4,
    ).map(lambda document: json.dumps(document).encode()),
)


async def test_no_answer_is_ever_500(served, caplog):
    job = (await served.create()).rpartition("/")[2]
    who = attacker(served)
    loop = asyncio.get_running_loop()

    @settings(max_examples=250, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(METHODS, PATHS, HEADERS, BODIES)
    def attack(method, path, headers, body):
        path = path.replace("{job}", job)
        if "events" in path or "WAIT" in path:
            # They would keep the connection open.
            return
        asking = asyncio.run_coroutine_threadsafe(who.ask(method, path, body, headers), loop)
        status, answer = asking.result(60)
        assert status < 500 or status in (503, 505, 507), (method, path, answer)
        assert b"Traceback" not in answer

    await asyncio.to_thread(attack)
    assert not [record for record in caplog.records if record.exc_info]


@pytest.mark.parametrize(
    ("path", "headers", "body"),
    [
        ("/uws/sleep", {"Origin": "http://["}, b""),
        (
            "/uws/sleep",
            FORM | {"Content-Type": "application/x-www-form-urlencoded; charset=nosuch"},
            b"text=x",
        ),
        ("/uws/sleep", {"Content-Type": "multipart/form-data; boundary=\udcff"}, b"--x"),
        ("/uws/sleep", {"Content-Type": "multipart/form-data; boundary=" + "x" * 80}, b"--x"),
        ("/uws/sleep", FORM, b"RUNID=%ed%a0%80"),
        ("/uws/sleep", FORM, b"text=\x00"),
        ("/uws/sleep?PHASE=%ff", FORM, b""),
        ("/api/v1/events?last_event_id=%ff", {}, b""),
    ],
)
async def test_what_was_answered_with_500_once_is_not_any_more(served, path, headers, body):
    status, answer = await attacker(served).ask("POST", path, body, headers)
    assert 300 <= status < 500, answer


async def test_the_document_of_a_job_with_a_result_whose_name_is_not_utf8_can_be_read(served):
    job = await served.create("write", run=True)
    await served.ended(job)
    found = await served.manager.get(job.rpartition("/")[2])
    odd = dataclasses.replace(found, results=(Result("a\udcff.txt", "file:///x/a%FF.txt"),))
    document = uws_xml.job_document(odd, job)
    document.encode()
    assert "/results/a%FF.txt" in document
