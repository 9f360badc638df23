# SPDX-License-Identifier: GPL-3.0-or-later

"""Fixtures: a SAL of its own for each module, and processes to talk to."""

import asyncio
import contextlib
import json
import os
import pathlib
import sys
import uuid
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest

pytest.importorskip("cyclonedds", reason="the distributions in middleware/ are not installed")
salobj = pytest.importorskip("lsst.ts.salobj", reason="ts-salobj is not installed")

from tests.generations import ON_KAFKA  # noqa: E402

# middleware/ carries salobj 6; salobj 8 comes with what it needs.
collect_ignore_glob = ["test_*.py"] if ON_KAFKA else []

PEER = pathlib.Path(__file__).with_name("peer.py")

# Generous, for hosts under load; nothing waits this long unless it fails.
TIMEOUT = 60


@pytest.fixture(scope="module", autouse=True)
def sal(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Keep other programs on this host away, and give TestCsc a configuration."""
    config_dir = tmp_path_factory.mktemp("config")
    (config_dir / "_labels.yaml").write_text("{}")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LSST_DDS_PARTITION_PREFIX", f"test_{uuid.uuid4().hex}")
        # Domains above 100 would use ports that the kernel gives to clients.
        patch.setenv("LSST_DDS_DOMAIN_ID", str(1 + os.getpid() % 100))
        patch.delenv("CYCLONEDDS_URI", raising=False)
        patch.setenv("PEER_CONFIG_DIR", str(config_dir))
        yield


class Peer:
    """A running ``peer.py``."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process

    async def read(self) -> dict[str, Any]:
        """Return the next document that the process prints."""
        while True:
            line = await asyncio.wait_for(self.process.stdout.readline(), TIMEOUT)
            assert line, "the peer ended"
            if line.startswith(b"{"):
                return json.loads(line)

    async def kill(self) -> None:
        """End it with SIGKILL."""
        with contextlib.suppress(ProcessLookupError):
            self.process.kill()
        await self.process.wait()


@contextlib.asynccontextmanager
async def run_peer(*args: object) -> AsyncIterator[Peer]:
    """Run a peer and wait until it is ready; kill it at the end."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        PEER,
        *map(str, args),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
    )
    peer = Peer(process)
    try:
        peer.ready = await peer.read()
        yield peer
    finally:
        await peer.kill()


@pytest.fixture
def peer() -> Callable[..., contextlib.AbstractAsyncContextManager[Peer]]:
    """Give tests `run_peer`."""
    return run_peer
