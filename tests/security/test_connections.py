# SPDX-License-Identifier: GPL-3.0-or-later
"""Connections, silent or many; compressed bodies; floods of passwords and of log lines."""

from __future__ import annotations

import asyncio
import base64
import gzip
import logging
import os
import pwd
import socket
import stat
import time

import aiohttp
import pytest
from lsst.dm.OCPS.config import ConfigError
from lsst.dm.OCPS.http import connections, secrets_file
from lsst.dm.OCPS.http.connections import ConnectionLimits
from lsst.dm.OCPS.jobs.store import JobQuery
from lsst.dm.OCPS.logs import RateLimit, clean

from tests.security.conftest import attacker, bearer
from tests.waiting import until


async def closed(held: list) -> int:
    """Return how many of some connections the server has closed."""
    count = 0
    for sock in held:
        sock.setblocking(False)
        try:
            count += sock.recv(1000) == b""
        except BlockingIOError:
            pass
        except OSError:
            count += 1
    return count


async def test_idle_connections_make_room_for_one_that_asks(start):
    served = await start(http={"max_connections": 20, "max_connections_per_peer": 10})
    held = attacker(served).hold(40)
    status, _ = await attacker(served).ask("GET", "/healthz")
    assert status == 200
    assert await closed(held) >= 30
    for sock in held:
        sock.close()


async def test_where_all_connections_are_busy_one_more_is_refused_in_words(start):
    served = await start(http={"max_connections": 20, "max_connections_per_peer": 3})
    job = await served.create()
    request = f"GET {job}?WAIT=3600 HTTP/1.1\r\nHost: localhost\r\n\r\n".encode()
    held = attacker(served).hold(2, request)
    # The third connection is that of the client which made the job.
    await until(lambda: served.waits == 2)
    third = attacker(served).hold(1, request)
    answer = b""
    async with asyncio.timeout(60):
        while b" 503 " not in answer:
            answer = await attacker(served).send(
                b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n", end=False
            )
    assert b"Retry-After" in answer
    for sock in held + third:
        sock.close()
    async with asyncio.timeout(60):
        while (await attacker(served).ask("GET", "/healthz"))[0] != 200:
            await asyncio.sleep(0.05)


async def test_a_connection_that_sends_no_whole_head_is_closed(start, monkeypatch):
    monkeypatch.setattr(connections, "HEADER_TIMEOUT", 0.2)
    served = await start()
    for half in (b"", b"GET /healthz HTT", b"GET /healthz HTTP/1.1\r\nX: y\r\n"):
        assert await attacker(served).send(half, end=False) == b""


async def test_a_connection_is_not_kept_for_ever_between_requests(start, monkeypatch):
    monkeypatch.setattr(connections, "KEEPALIVE_TIMEOUT", 0.2)
    served = await start()
    request = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"
    answer = await attacker(served).send(request, end=False)
    assert answer.count(b"200 OK") == 1
    # Nor with half a head after the first request.
    assert (await attacker(served).send(request + b"GET /hea", end=False)).count(b"200 OK") == 1


@pytest.mark.parametrize(
    ("configured", "open_files", "expected"),
    [
        ((0, 0), 65_536, (4096, 2048)),
        ((0, 0), 1024, (768, 384)),
        ((0, 0), 256, (128, 64)),
        ((100, 10), 1024, (100, 10)),
        ((5000, 0), 1024, (768, 384)),
        ((10, 500), 1024, (10, 10)),
    ],
)
def test_descriptors_are_left_to_the_engine(configured, open_files, expected):
    limits = ConnectionLimits.of(*configured, open_files, lambda _: False)
    assert (limits.total, limits.per_peer) == expected


# Compressed bodies


async def test_nothing_is_decompressed(served):
    bomb = gzip.compress(b"\0" * 50_000_000)
    headers = {"Content-Encoding": "gzip", "Content-Type": "application/x-www-form-urlencoded"}
    for path in ("/uws/sleep", "/api/v1/job", "/no/such/path"):
        for encoding in ("gzip", "deflate", "br", "zstd", "GZIP"):
            headers["Content-Encoding"] = encoding
            before = time.process_time()
            status, _ = await attacker(served).ask("POST", path, bomb, headers)
            assert status == 415, (path, encoding)
            # Decompressing it takes many times that.
            assert time.process_time() - before < 5


# Passwords


def basic(name: str, password: str) -> dict[str, str]:
    return {"Authorization": "Basic " + base64.b64encode(f"{name}:{password}".encode()).decode()}


async def test_wrong_passwords_are_counted_and_then_not_even_checked(start, auth, monkeypatch):
    checked = []
    matches = secrets_file._matches

    def count(password: str, hashed: str) -> bool:
        checked.append(password)
        return matches(password, hashed)

    monkeypatch.setattr(secrets_file, "_matches", count)
    served = await start(http={"auth": auth})
    assert (await attacker(served).ask("GET", "/uws/sleep", headers=basic("alice", "wonder:land")))[0] == 200
    for names in (["bob"] * 100, [f"user{number}" for number in range(100)]):
        asked = (attacker(served).ask("GET", "/uws/sleep", headers=basic(name, "x")) for name in names)
        statuses = [status for status, _ in await asyncio.gather(*asked)]
        assert set(statuses) == {401, 429}
    # Far fewer than were sent; each costs 50 ms of a core.
    assert len(checked) < 60
    # Who was let in from there before is let in still, by another password of the name or by the same.
    assert (await attacker(served).ask("GET", "/uws/sleep", headers=basic("alice", "wonder:land")))[0] == 200
    assert (await attacker(served).ask("GET", "/uws/sleep", headers=bearer("alice")))[0] == 200


async def test_a_name_that_is_tried_too_often_is_told_when_to_come_back(start, auth):
    served = await start(http={"auth": auth})
    answers = [await attacker(served).ask("GET", "/uws/sleep", headers=basic("bob", "x")) for _ in range(6)]
    assert [status for status, _ in answers][:4] == [401] * 4
    assert answers[-1][0] == 429
    assert b"Retry-After: " in answers[-1][1]


# Logs


def test_a_log_lets_only_so_many_records_pass(caplog):
    log = logging.getLogger("tests.security.limited")
    limit = RateLimit(records=3, period=1e6)
    log.addFilter(limit)
    try:
        for number in range(100):
            log.warning("message %d", number)
        assert len(caplog.records) == 3
        limit._start -= 2e6
        log.warning("later")
        assert caplog.records[-1].getMessage() == "later (97 messages dropped)"
    finally:
        log.removeFilter(limit)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("plain é", "plain é"),
        ("a\nb", "a\\nb"),
        ("\x1b[31m", "\\x1b[31m"),
        ("\u202e", "\\u202e"),
        ("\udcff", "\\udcff"),
    ],
)
def test_no_control_character_reaches_a_log(text, expected):
    assert clean(text) == expected
    assert clean(text).isprintable()


# The Unix socket


async def test_at_the_unix_socket_callers_are_the_local_accounts(start, tmp_path):
    path = tmp_path / "ocps.socket"
    served = await start(http={"host": "", "socket": str(path), "auth": {"open": False}})
    assert stat.S_ISSOCK(path.stat().st_mode)
    account = pwd.getpwuid(os.getuid()).pw_name
    async with aiohttp.ClientSession(connector=aiohttp.UnixConnector(str(path))) as client:
        # What it says of itself counts for nothing.
        headers = {"X-Auth-Request-User": "olga", "Host": "evil.example.org"}
        async with client.post(
            "http://localhost/uws/sleep", headers=headers, allow_redirects=False
        ) as answer:
            assert answer.status == 303
        jobs = await served.manager.find(JobQuery())
        assert [job.owner for job in jobs] == [account]
        async with client.post("http://localhost/uws/pipetask", data={"pipeline": "x"}) as answer:
            assert answer.status == 403
    await served.server.close()
    assert not path.exists()


async def test_at_the_unix_socket_a_proxy_names_its_user(start, tmp_path):
    path = tmp_path / "ocps.socket"
    account = pwd.getpwuid(os.getuid()).pw_name
    auth = {"method": "proxy", "proxy_accounts": [account], "operators": ["olga"], "open": False}
    served = await start(http={"host": "", "socket": str(path), "domain": "x.example.org", "auth": auth})
    async with aiohttp.ClientSession(connector=aiohttp.UnixConnector(str(path))) as client:
        for headers, expected in (
            ({}, 401),
            ({"X-Auth-Request-User": "alice"}, 303),
            ({"X-Auth-Request-User": "sal"}, 403),
        ):
            async with client.post("http://x/uws/sleep", headers=headers, allow_redirects=False) as answer:
                assert answer.status == expected
    await served.server.close()


async def test_a_socket_that_is_served_is_not_taken_over_and_one_left_behind_is(start, tmp_path):
    path = tmp_path / "ocps.socket"
    left = socket.socket(socket.AF_UNIX)
    left.bind(str(path))
    left.close()
    served = await start(http={"socket": str(path)})
    with pytest.raises(ConfigError, match="it is in use"):
        await start(work_dir=str(tmp_path / "other"), http={"socket": str(path)})
    assert (await attacker(served).ask("GET", "/healthz"))[0] == 200
