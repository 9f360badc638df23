# SPDX-License-Identifier: GPL-3.0-or-later
"""Servers for clients: ours, ours behind a proxy, and a stand-in for another."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from lsst.dm.OCPS.client import Client

from tests.http.conftest import Served, served, start
from tests.proxy import Proxy
from tests.uws11 import other
from tests.waiting import TIMEOUT

__all__ = ["other", "served", "start"]


OCPS = str(Path(sys.executable).parent / "ocps")


@pytest_asyncio.fixture
async def client(served: Served) -> AsyncIterator[Client]:
    """A client of our own server."""
    async with Client(served.root, poll_interval=0.1) as client:
        yield client


@pytest_asyncio.fixture
async def proxy(served: Served) -> AsyncIterator[Proxy]:
    """A proxy before our own server."""
    proxy = await Proxy(served.root).start()
    yield proxy
    await proxy.stop()


_NOT_KEPT = ("OCPS", "XDG", "COLUMNS", "LINES")


def environment(home: Path, **more: str) -> dict[str, str]:
    """Return the environment of a user who has nothing configured."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(_NOT_KEPT)}
    return {**kept, "HOME": str(home), "XDG_CONFIG_HOME": str(home / "config"), **more}


async def ocps(home: Path, *arguments: str, **variables: str) -> tuple[int, str, str]:
    """Run the command; return exit code and what it wrote."""
    process = await asyncio.create_subprocess_exec(
        OCPS,
        *arguments,
        env=environment(home, **variables),
        cwd=home,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await asyncio.wait_for(process.communicate(), TIMEOUT)
    assert process.returncode is not None
    assert "Traceback" not in err.decode(), err.decode()
    return process.returncode, out.decode(), err.decode()


class User:
    """Somebody with a terminal and a server."""

    def __init__(self, home: Path, url: str) -> None:
        self.home = home
        self.url = url

    async def __call__(self, *arguments: str, **variables: str) -> tuple[int, str, str]:
        return await ocps(self.home, *arguments, OCPS_URL=self.url, **variables)

    async def json(self, *arguments: str) -> Any:
        """Run a command that must go well; return what it says to programs."""
        code, out, err = await self(*arguments, "--json")
        assert code == 0, err
        return json.loads(out)


@pytest.fixture
def user(served: Served, tmp_path: Path) -> User:
    home = tmp_path / "home"
    home.mkdir()
    return User(home, served.root)
