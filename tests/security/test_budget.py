# SPDX-License-Identifier: GPL-3.0-or-later
"""A server with few descriptors, flooded with connections: it answers, and tells the truth of its jobs."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import sys
from pathlib import Path

import aiohttp
import yaml

from tests.security.conftest import Attacker

ROOT = Path(__file__).resolve().parents[2]

OPEN_FILES = 256
FLOOD = 400
"""More connections than the server may have descriptors."""

JOBS = 6


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextlib.asynccontextmanager
async def limited_server(tmp_path: Path, repo: Path):
    """A server of its own process that may open so many files; yields its port."""
    port = free_port()
    instance = {
        "sal_index": 1,
        "butler": str(repo),
        "work_dir": str(tmp_path / "work"),
        "definitions": ["sleep"],
        "general_users": [],
        "environments": [{"name": "default", "preload": False}],
        "max_workers": 2,
        "http": {"port": port},
    }
    (tmp_path / "config.yaml").write_text(yaml.safe_dump({"instances": [instance]}))
    program = f"{sys.executable} {ROOT}/bin/run_uws.py --config {tmp_path}/config.yaml"
    command = f"ulimit -n {OPEN_FILES}; exec {program}"
    with (tmp_path / "log").open("wb") as log:
        process = await asyncio.create_subprocess_exec("bash", "-c", command, stdout=log, stderr=log)
    try:
        async with asyncio.timeout(90):
            while not await answers(port):
                assert process.returncode is None, (tmp_path / "log").read_text()
                await asyncio.sleep(0.1)
        yield port
    finally:
        if process.returncode is None:
            process.terminate()
        await process.wait()


async def answers(port: int) -> bool:
    try:
        return (await Attacker(port).ask("GET", "/healthz"))[0] == 200
    except OSError:
        return False


async def test_a_flood_of_connections_neither_silences_a_small_server_nor_makes_it_lie(tmp_path, repo):
    async with limited_server(tmp_path, repo) as port, aiohttp.ClientSession() as client:
        url = f"http://127.0.0.1:{port}/uws/sleep"
        jobs = []
        for _ in range(JOBS):
            async with client.post(url, data={"duration": "1", "PHASE": "RUN"}) as answer:
                jobs.append(str(answer.url))
        flood = Attacker(port).hold(FLOOD)
        for round_ in range(10):
            # Some send half a request, some nothing; those that were closed come again.
            flood += Attacker(port).hold(FLOOD // 10, b"GET /uws" if round_ % 2 else b"")
            assert await answers(port)
        for job in jobs:
            async with asyncio.timeout(120):
                while (phase := await phase_of(port, job)) not in ("COMPLETED", "ERROR", "ABORTED"):
                    assert phase
                    await asyncio.sleep(0.1)
            assert phase == "COMPLETED"
        for sock in flood:
            sock.close()
    log = (tmp_path / "log").read_bytes()
    assert len(log) < 100_000
    assert b"Traceback" not in log
    assert all(line.decode().isprintable() for line in log.splitlines())


async def phase_of(port: int, job: str) -> str:
    status, answer = await Attacker(port).ask("GET", f"/{job.partition('://')[2].partition('/')[2]}/phase")
    assert status == 200, answer
    return answer.rpartition(b"\r\n\r\n")[2].decode()
