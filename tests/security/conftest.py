# SPDX-License-Identifier: GPL-3.0-or-later
"""Attackers: servers to attack, raw requests, and the count of what was tried."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from lsst.dm.OCPS.http.secrets_file import hash_password, hash_token

from tests.http.conftest import Served, served, start

__all__ = ["served", "start"]

TOKENS = {name: f"{name}s-long-token" for name in ("alice", "bob", "olga")}


class Attacks:
    """Counts attacks of one class, and which got through."""

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self.tried = 0
        self.through: list[str] = []

    def count(self, held: bool, what: object) -> None:
        """Count an attack; ``what`` describes one that got through."""
        self.tried += 1
        if not held:
            self.through.append(str(what))


@pytest.fixture
def attacks(record_property: Callable[[str, Any], None]) -> Iterator[Callable[[str], Attacks]]:
    """Counters of attacks by class; the test fails at its end if one got through."""
    counters: list[Attacks] = []

    def make(kind: str) -> Attacks:
        counters.append(Attacks(kind))
        return counters[-1]

    yield make
    for counter in counters:
        record_property("attacks", [counter.kind, counter.tried, len(counter.through)])
        assert counter.tried
        assert not counter.through


class Attacker:
    """Somebody with a socket."""

    def __init__(self, port: int) -> None:
        self.port = port

    async def send(self, request: bytes, end: bool = True, timeout: float = 60.0) -> bytes:
        """Send bytes as they are; return all that is answered until the connection is closed."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        try:
            writer.write(request)
            if end:
                writer.write_eof()
            async with asyncio.timeout(timeout):
                return await reader.read()
        except ConnectionError:
            return b""
        finally:
            writer.close()

    async def ask(
        self, method: str, path: str, body: bytes = b"", headers: dict[str, str] | None = None
    ) -> tuple[int, bytes]:
        """Send one request; return status (0 for no answer) and all that was answered."""
        fields = {"Host": "localhost", "Connection": "close", **(headers or {})}
        if body:
            fields.setdefault("Content-Length", str(len(body)))
        lines = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
        head = f"{method} {path} HTTP/1.1\r\n{lines}\r\n".encode("utf-8", "surrogateescape")
        answer = await self.send(head + body, end=False)
        return int(answer[9:12] or 0), answer

    def hold(self, count: int, request: bytes = b"") -> list[socket.socket]:
        """Open connections and leave them so."""
        held = []
        for _ in range(count):
            try:
                held.append(socket.create_connection(("127.0.0.1", self.port), timeout=10))
                if request:
                    held[-1].send(request)
            except OSError:
                break
        return held


def bearer(name: str) -> dict[str, str]:
    """Return the header of a user who shows their token."""
    return {"Authorization": f"Bearer {TOKENS[name]}"}


@pytest.fixture
def auth(tmp_path: Path) -> dict[str, Any]:
    """Authentication with tokens for alice, bob and the operator olga, and a password for alice."""
    users: dict[str, dict[str, str]] = {name: {"token": hash_token(token)} for name, token in TOKENS.items()}
    users["alice"]["password"] = hash_password("wonder:land")
    path = tmp_path / "secrets.yaml"
    path.touch(0o600)
    path.write_text(yaml.safe_dump({"users": users}))
    return {"method": "secrets", "file": str(path), "operators": ["olga"], "open": False}


def attacker(served: Served) -> Attacker:
    """Return somebody who attacks a server."""
    return Attacker(served.server.port)


def put_job(**fields: Any) -> bytes:
    """Return the body of a ``PUT /job``."""
    return json.dumps(fields).encode()
