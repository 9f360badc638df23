# SPDX-License-Identifier: GPL-3.0-or-later
"""Hostile servers: what they send stays in bounds, and what goes wrong is one error in words."""

from __future__ import annotations

import asyncio
import gzip
import itertools
import json
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from aiohttp import web
from hypothesis import given, settings
from hypothesis import strategies as st
from lsst.dm.OCPS.client import Client, ClientError, RemoteJob, RemoteResult
from lsst.dm.OCPS.client import link as link_module
from lsst.dm.OCPS.client.errors import DocumentError
from lsst.dm.OCPS.client.rubin import parse_json_job
from lsst.dm.OCPS.client.sse import MAX_EVENT, ServerEvent, read_events
from lsst.dm.OCPS.client.uws_xml import parse_job, parse_list

from tests.client.conftest import OCPS, environment, ocps
from tests.client.test_watch import Terminal
from tests.loopback import serve

ID = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._~@+:-]*")

CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\ud800-\udfff]")

# Documents, by many


def check_job(job: RemoteJob) -> None:
    """Check that nothing in a job does harm when it is shown, saved or stored."""
    assert ID.fullmatch(job.id)
    assert ".." not in job.id
    for text in (job.phase, job.run_id, job.owner, job.definition, job.message, job.error, job.url):
        assert not CONTROL.search(text)
    for result in job.results:
        assert not CONTROL.search(result.id + result.url + result.mime_type)
        assert result.size is None or result.size >= 0
    # It can be stored and sent on.
    json.dumps(dict(job.info), allow_nan=False).encode()
    "".join([*job.parameters, *job.parameters.values()]).encode()
    assert job.execution_duration >= 0


ODD = (
    "", "²", "1" * 5000, "1e999", "nan", "-1", "http://[", "http://[::1", "file:///etc/passwd", "//x",
    "\x1b[2J",
    "0001-01-01T00:00:00+23:59", "9999-12-31T23:59:59-23:59", "2026-01-01", "../..", "a" * 5000, "\ud800",
    "123456789 of 999999999 quanta done", "javascript:alert(1)", "s3://b/c", "EXECUTING", "http://h:99999/",
)  # fmt: skip


def check_words(error: Exception) -> None:
    """Check that an error can be shown."""
    assert str(error).isprintable()


TEXT = st.one_of(st.text(max_size=30), st.sampled_from(ODD))

JSON = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), TEXT),
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(TEXT, inner, max_size=4)),
    max_leaves=12,
)

MEMBERS = {
    "jobId": st.one_of(st.just("abc"), JSON),
    "phase": st.one_of(st.sampled_from(["executing", "error", "completed"]), JSON),
    "runId": JSON,
    "ownerId": JSON,
    "creationTime": JSON,
    "endTime": JSON,
    "exitCode": JSON,
    "errorSummary": st.one_of(JSON, st.fixed_dictionaries({"message": JSON})),
    "parameters": st.one_of(
        JSON,
        st.fixed_dictionaries(
            {"environment": st.lists(st.fixed_dictionaries({"name": JSON, "value": JSON}), max_size=3)}
        ),
    ),
    "results": st.one_of(
        JSON,
        st.lists(
            st.fixed_dictionaries(
                {"id": JSON, "uri": JSON}, optional={"size": JSON, "name": JSON, "mimeType": JSON}
            ),
            max_size=4,
        ),
    ),
    "jobInfo": st.one_of(
        JSON,
        st.fixed_dictionaries(
            {},
            optional=dict.fromkeys(
                ("definition", "uwsPhase", "progress", "exitCode", "metrics", "logTail"), JSON
            ),
        ),
    ),
}


NAMED = {"jobId": st.just("abc"), "phase": st.just("executing")}


@settings(max_examples=400, deadline=None)
@given(
    document=st.one_of(
        JSON,
        st.fixed_dictionaries({}, optional=MEMBERS),
        st.fixed_dictionaries(
            NAMED, optional={name: MEMBERS[name] for name in MEMBERS.keys() - NAMED.keys()}
        ),
    )
)
def test_any_json_is_a_job_or_a_document_error(document: Any) -> None:
    try:
        job = parse_json_job(document, "http://host/api/v1", "http://host/uws")
    except DocumentError as error:
        check_words(error)
    else:
        check_job(job)


def xml_text(text: str) -> str:
    """Return what of a text may be in XML, and what should not be on a terminal."""
    return "".join(c for c in text if c in "\t\n\u202e" or (c.isprintable() and c not in "<&\"'"))


NAMES = (
    "jobId", "runId", "ownerId", "phase", "creationTime", "endTime", "executionDuration",
    "jobInfo", "odd",
)  # fmt: skip

ELEMENT = st.tuples(
    st.sampled_from(NAMES),
    TEXT.map(xml_text),
).map(lambda pair: f"<{pair[0]}>{pair[1]}</{pair[0]}>")

ENTRY = st.tuples(TEXT.map(xml_text), TEXT.map(xml_text), TEXT.map(xml_text)).map(
    lambda three: f'<results><result id="{three[0]}" href="{three[1]}" size="{three[2]}"/></results>'
)


@settings(max_examples=300, deadline=None)
@given(parts=st.lists(st.one_of(ELEMENT, ENTRY), max_size=8), url=st.just("http://host/async/1?WAIT=1"))
def test_any_xml_is_a_job_or_a_document_error(parts: list[str], url: str) -> None:
    text = f"<job>{'<jobId>x1</jobId>' if len(parts) % 2 else ''}{''.join(parts)}</job>".encode(
        errors="replace"
    )
    try:
        job = parse_job(text, url)
    except DocumentError as error:
        check_words(error)
    else:
        check_job(job)


@settings(max_examples=200, deadline=None)
@given(job_id=TEXT.map(xml_text), href=TEXT.map(xml_text), phase=TEXT.map(xml_text))
def test_any_entry_of_a_list_is_a_job_or_a_document_error(job_id: str, href: str, phase: str) -> None:
    text = f'<jobs><jobref id="{job_id}" href="{href}"><phase>{phase}</phase></jobref></jobs>'
    try:
        jobs = parse_list(text.encode(errors="replace"), "http://host/async")
    except DocumentError as error:
        check_words(error)
    else:
        for job in jobs:
            check_job(job)


@settings(max_examples=300, deadline=None)
@given(text=st.binary(max_size=200))
def test_any_bytes_are_no_traceback(text: bytes) -> None:
    for parse in (parse_job, parse_list):
        with pytest.raises(DocumentError):
            parse(b"<job" + text, "http://host/async")


@pytest.mark.parametrize("depth", [1_000, 200_000])
def test_deep_xml_does_not_end_the_process(depth: int) -> None:
    for text in ("<job>" * depth, "<job>" * depth + "</job>" * depth):
        with pytest.raises(DocumentError):
            parse_job(text.encode(), "http://host/async/1")


async def collect(parts: list[bytes]) -> list[ServerEvent]:
    async def stream() -> AsyncIterator[bytes]:
        for part in parts:
            yield part

    return [event async for event in read_events(stream())]


@settings(max_examples=300, deadline=None)
@given(
    parts=st.lists(st.one_of(st.binary(max_size=40), st.sampled_from([b"data: a\n", b"\n", b"id: 1\x00\n"])))
)
def test_any_stream_is_events_or_a_document_error(parts: list[bytes]) -> None:
    try:
        events = asyncio.run(collect(parts))
    except DocumentError as error:
        check_words(error)
    else:
        for event in events:
            # It is sent back in a header.
            assert event.id.isprintable()
            assert event.id.isascii()


@settings(max_examples=100, deadline=None)
@given(text=st.text(alphabet="data:id event\n\r", max_size=60), cuts=st.lists(st.integers(0, 60), max_size=5))
def test_a_stream_means_the_same_however_it_is_cut(text: str, cuts: list[int]) -> None:
    whole = text.encode()
    places = [0, *sorted(cuts), len(whole)]
    parts = [whole[begin:end] for begin, end in itertools.pairwise(places)]
    assert asyncio.run(collect(parts)) == asyncio.run(collect([whole]))


@pytest.mark.parametrize("line", [b"data: xxxxxxxx\n", b"x" * 16, b": comment\n"])
async def test_an_event_without_an_end_is_given_up(line: bytes) -> None:
    seen = 0

    async def stream() -> AsyncIterator[bytes]:
        nonlocal seen
        while True:
            part = line * 10_000
            seen += len(part)
            assert seen < 2 * MAX_EVENT + len(part)
            yield part

    with pytest.raises(DocumentError, match="longer than"):
        async for _ in read_events(stream()):
            pass


# A server


Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Hostile:
    """A server that answers every request in one bad way."""

    def __init__(self) -> None:
        self.answer: Handler | None = None
        self.ours = False
        """Whether it says that it is an OCPS."""
        self.requests: list[str] = []

    async def start(self) -> Hostile:
        app = web.Application()
        app.add_routes([web.route("*", "/{path:.*}", self._handle)])
        self._runner, root = await serve(app)
        self.url = f"{root}/async"
        return self

    async def stop(self) -> None:
        await self._runner.cleanup()

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        self.requests.append(f"{request.method} {request.path_qs}")
        if "openapi.json" in request.path:
            document = {"info": {"title": "OCPS", "x-uws": "/uws"}}
            return web.json_response(document) if self.ours else web.Response(status=404)
        assert self.answer is not None
        return await self.answer(request)

    def answers(self, text: str | bytes, **options: Any) -> None:
        """Answer everything with one text."""

        async def answer(request: web.Request) -> web.StreamResponse:
            body = text if isinstance(text, bytes) else text.encode(errors="surrogatepass")
            return web.Response(body=body, **options)

        self.answer = answer


@pytest_asyncio.fixture
async def hostile() -> AsyncIterator[Hostile]:
    server = await Hostile().start()
    yield server
    await server.stop()


JOB = (
    "<job><jobId>{job}</jobId><phase>COMPLETED</phase>"
    '<results><result id="{name}" href="{href}"/></results></job>'
)


@pytest.mark.parametrize(
    "location",
    [
        "file:///etc/passwd",
        "http://[",
        "ftp://host/x",
        "javascript:alert(1)",
        "http://",
        "//",
        "http://h:99999/",
    ],
)
async def test_a_bad_redirection_is_an_error_in_words(hostile: Hostile, location: str) -> None:
    hostile.answers("", status=303, headers={"Location": location})
    async with Client(hostile.url, timeout=60) as client:
        with pytest.raises(ClientError) as caught:
            await client.jobs()
    assert str(caught.value).isprintable()


async def test_redirections_end(hostile: Hostile) -> None:
    hostile.answers("", status=302, headers={"Location": "/async?again"})
    async with Client(hostile.url, timeout=60) as client:
        with pytest.raises(ClientError, match="without an end"):
            await client.jobs()


@pytest.mark.parametrize("href", ["file:///etc/passwd", "gopher://x/", "s3://b/c"])
async def test_a_bad_address_of_a_result_is_an_error_in_words(
    hostile: Hostile, href: str, tmp_path: Path
) -> None:
    hostile.answers(JOB.format(job="x", name="a", href=href))
    async with Client(hostile.url, timeout=60) as client:
        with pytest.raises(ClientError):
            for result in await client.results("x"):
                await client.download(result, tmp_path)
    assert not list(tmp_path.iterdir())


async def test_a_document_that_is_too_long_is_given_up(
    hostile: Hostile, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(link_module, "MAX_ANSWER", 1 << 20)
    bomb = gzip.compress(b"<jobs>" + b" " * (64 << 20))
    hostile.answers(bomb, headers={"Content-Encoding": "gzip"})
    async with Client(hostile.url, timeout=30) as client:
        with pytest.raises(ClientError, match="longer than"):
            await client.jobs()


async def test_a_log_without_an_end_is_read_in_parts(hostile: Hostile) -> None:
    async def answer(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        while True:
            await response.write(b"x" * 65536)

    hostile.answer = answer
    async with Client(hostile.url, timeout=30) as client:
        job = RemoteJob("x", f"{hostile.url}/x", "EXECUTING")
        async with asyncio.timeout(60):
            text = await client.read_log(job)
    assert 0 < len(text) <= 64 << 20


@pytest.mark.parametrize(
    "body",
    [b"", b"\xff\xfe", b"[" * 100_000, b"{" * 100_000, b'{"a":' * 100_000, b"9" * 10_000, b"null", b"[[]]"],
)
async def test_json_that_makes_no_sense_is_an_error_in_words(hostile: Hostile, body: bytes) -> None:
    hostile.answers(body, content_type="application/json")
    hostile.ours = True
    async with Client(hostile.url, timeout=60) as client:
        for ask in (client.jobs(), client.get("abc"), client.definitions()):
            with pytest.raises(ClientError):
                await ask
        assert (await client.server()).ours


# Files


@pytest.mark.parametrize(
    "name", ["../x", "/etc/x", "a/../../x", "", "a\\..\\x", ".bashrc", ".ssh/keys", "a/.git/x"]
)
async def test_no_result_is_saved_outside_its_folder(hostile: Hostile, tmp_path: Path, name: str) -> None:
    hostile.answers("bad")
    async with Client(hostile.url) as client:
        with pytest.raises(ClientError, match="cannot be saved"):
            await client.download(RemoteResult(name, f"{hostile.url}/x"), tmp_path / "results")
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


async def test_no_result_is_saved_through_a_link(hostile: Hostile, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "results").mkdir()
    (tmp_path / "results" / "a").symlink_to(tmp_path / "elsewhere")
    hostile.answers("bad")
    async with Client(hostile.url) as client:
        with pytest.raises(ClientError, match="cannot be saved"):
            await client.download(RemoteResult("a/x", f"{hostile.url}/x"), tmp_path / "results")
    assert not list((tmp_path / "elsewhere").iterdir())


async def test_a_file_that_is_there_is_kept_unless_told(hostile: Hostile, tmp_path: Path) -> None:
    (tmp_path / "a").write_text("mine")
    hostile.answers("theirs")
    async with Client(hostile.url) as client:
        with pytest.raises(ClientError, match="exists"):
            await client.download(RemoteResult("a", f"{hostile.url}/x"), tmp_path)
        assert (tmp_path / "a").read_text() == "mine"
        await client.download(RemoteResult("a", f"{hostile.url}/x"), tmp_path, overwrite=True)
    assert (tmp_path / "a").read_text() == "theirs"
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


@pytest.mark.parametrize("job_id", [".ssh", "../..", "/etc", "a/b", "x y"])
async def test_ocps_results_makes_no_folder_of_a_bad_id(
    hostile: Hostile, tmp_path: Path, job_id: str
) -> None:
    hostile.answers(JOB.format(job=job_id, name="k", href="k"))
    home = tmp_path / "home"
    home.mkdir()
    code, _, err = await ocps(home, "results", "x", OCPS_URL=hostile.url)
    assert code == 3, err
    assert "jobId" in err
    assert not list(home.iterdir())


async def test_ocps_results_asks_before_it_overwrites(hostile: Hostile, tmp_path: Path) -> None:
    async def answer(request: web.Request) -> web.StreamResponse:
        return web.Response(
            text="theirs" if request.path.endswith("/k") else JOB.format(job="x", name="k", href="x/k")
        )

    hostile.answer = answer
    (tmp_path / "x").mkdir()
    (tmp_path / "x" / "k").write_text("mine")
    code, _, err = await ocps(tmp_path, "results", "x", OCPS_URL=hostile.url)
    assert code == 4
    assert "--force" in err
    assert (tmp_path / "x" / "k").read_text() == "mine"
    code, _, err = await ocps(tmp_path, "results", "x", "--force", OCPS_URL=hostile.url)
    assert code == 0, err
    assert (tmp_path / "x" / "k").read_text() == "theirs"


# Terminals


async def test_no_escape_sequence_reaches_a_terminal(hostile: Hostile, tmp_path: Path) -> None:
    nasty = "&#x9b;2J&#x202e;evil"
    document = (
        f"<job><jobId>x</jobId><runId>{nasty}</runId><ownerId>{nasty}</ownerId><phase>ERROR</phase>"
        f'<parameters><parameter id="p{nasty}">{nasty}</parameter></parameters>'
        f'<results><result id="r{nasty}" href="r"/></results><jobInfo>{nasty}</jobInfo>'
        f"<errorSummary><message>{nasty}</message></errorSummary></job>"
    )
    entry = f'<jobs><jobref id="x"><phase>ERROR</phase><runId>{nasty}</runId></jobref></jobs>'

    async def answer(request: web.Request) -> web.StreamResponse:
        return web.Response(text=entry if request.path == "/async" else document)

    hostile.answer = answer
    for command in (("list",), ("show", "x"), ("results", "x", "--list"), ("watch", "x")):
        _, out, err = await ocps(tmp_path, *command, OCPS_URL=hostile.url)
        assert not CONTROL.search(out + err), command
    hostile.answers("\x1b[2J\x9b2J" * 20, status=400)
    _, out, err = await ocps(tmp_path, "list", OCPS_URL=hostile.url)
    assert err
    assert not CONTROL.search(out + err)


async def test_a_log_cannot_command_a_terminal(hostile: Hostile, tmp_path: Path) -> None:
    text = "före\n\x1b[2J\x1b]0;title\x07\x9b31mefter\n".encode()

    async def answer(request: web.Request) -> web.StreamResponse:
        if request.path == "/async/x":
            return web.Response(text=JOB.format(job="x", name="a.log", href="x/log"))
        start = int(request.headers["Range"].removeprefix("bytes=").removesuffix("-"))
        return web.Response(status=206 if start < len(text) else 416, body=text[start:])

    hostile.answer = answer
    terminal = await Terminal().run(OCPS, "log", "x", env=environment(tmp_path, OCPS_URL=hostile.url))
    await terminal.shows("efter")
    assert await terminal.end() == 0
    assert "före" in terminal.raw.decode()
    assert not CONTROL.search(terminal.raw.decode().replace("\r", ""))
    # A file or a program gets it as it is.
    process = await asyncio.create_subprocess_exec(
        OCPS,
        "log",
        "x",
        env=environment(tmp_path, OCPS_URL=hostile.url),
        stdout=asyncio.subprocess.PIPE,
    )
    out, _ = await asyncio.wait_for(process.communicate(), 60)
    assert out == text
