# SPDX-License-Identifier: GPL-3.0-or-later
"""The processes of a campaign: a server, a CSC that forwards to it through a proxy, their files."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import struct
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import aiohttp
import yaml
from lsst.dm.OCPS.testing import CscProcess, Script, private_bus
from lsst.ts import salobj

from tests.ports import free_port
from tests.proxy import Proxy

ROOT = Path(__file__).resolve().parents[1]
TICK = Path(__file__).with_name("tick.sh")
START_TIMEOUT = 240.0
"""How long (s) a process may take to answer on a busy machine."""

DISK_SIZE = 48 << 20
MIN_FREE = 4 << 20
INODES = 20_000


class World:
    """Everything that a campaign runs on.

    Parameters
    ----------
    folder : `pathlib.Path`
        For all files.
    database : `str`
        URL of the server's job store; empty for SQLite.
    """

    def __init__(self, folder: Path, database: str = "") -> None:
        self.folder = folder
        self.ledger = folder / "ledger"
        self.work = folder / "disk"
        self.database = database
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.server: asyncio.subprocess.Process | None = None
        self.csc: CscProcess | None = None
        self.proxy: Proxy
        self.script: Script
        self.session: aiohttp.ClientSession
        self.small_disk = False
        self.clock: Path | None = None
        self.csc_harmed = False
        self._stack = contextlib.AsyncExitStack()

    async def open(self) -> None:
        """Make the files and start everything."""
        self.ledger.mkdir(parents=True)
        self.work.mkdir()
        self.small_disk = os.geteuid() == 0 and mount(
            "-t", "tmpfs", "-o", f"size={DISK_SIZE},nr_inodes={INODES}", "ocps", self.work
        )
        self._build_clock()
        self._configure()
        await self.start_server()
        self.proxy = await Proxy(self.url).start()
        self._configure_csc()
        private_bus()
        self.session = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=30))
        await self.start_csc()
        self.script = await self._stack.enter_async_context(Script.connect())
        await self.settled()

    async def close(self) -> None:
        """Stop everything; jobs must have ended."""
        await self.session.close()
        await self._stack.aclose()
        if self.csc:
            await self.csc.stop()
        await self.stop_server()
        await self.proxy.stop()
        if self.small_disk:
            for _ in range(100):
                if (
                    subprocess.run(["umount", self.work], stderr=subprocess.DEVNULL, check=False).returncode
                    == 0
                ):
                    break
                await asyncio.sleep(0.1)

    def _build_clock(self) -> None:
        """Build what shifts the server's clock, where there is a compiler."""
        compiler, library = shutil.which("cc"), self.folder / "clock.so"
        source = str(Path(__file__).with_name("clock.c"))
        if (
            compiler
            and not subprocess.run(
                [compiler, "-shared", "-fPIC", "-o", library, source], check=False
            ).returncode
        ):
            self.clock = self.folder / "clock-offset"
            self.set_clock(0)

    def set_clock(self, offset: int) -> None:
        """Shift the server's wall clock (s)."""
        assert self.clock
        with self.clock.open("r+b" if self.clock.exists() else "wb") as file:
            file.write(struct.pack("q", offset))

    def _configure(self) -> None:
        token = {"name": "place", "description": "Ledger, token, duration, exit code and way of the job"}
        definition = {
            "name": "tick",
            "kind": "command",
            "argv": ["sh", str(TICK), "{place}"],
            "parameters": {"place": {"description": token["description"]}},
            "outputs": ["answer"],
        }
        (self.folder / "tick.yaml").write_text(yaml.safe_dump({"definitions": [definition]}))
        instance = {
            "sal_index": 1,
            "backend": "local",
            "work_dir": str(self.work / "server"),
            "max_workers": 6,
            "min_free_space": MIN_FREE,
            "min_free_files": 200,
            "definitions": [str(self.folder / "tick.yaml")],
            "commands": [{"command": f"sh {TICK}"}],
            "http": {"port": self.port, "auth": {"open": True}},
            **({"database": self.database} if self.database else {}),
        }
        (self.folder / "server.yaml").write_text(yaml.safe_dump({"instances": [instance]}))

    def _configure_csc(self) -> None:
        folder = self.folder / "config"
        folder.mkdir(exist_ok=True)
        instance = {
            "sal_index": 1,
            "url": f"{self.proxy.url}/api/v1",
            "poll_interval": 0.3,
            "butler": "/none",
            "input_collection": "none",
            "work_dir": str(self.folder / "csc"),
            "uws": {"command": f"sh {TICK}", "source_url": "", "commit_ref": "", "timeout": 10},
        }
        (folder / "campaign.yaml").write_text(yaml.safe_dump({"instances": [instance]}))
        (folder / "_labels.yaml").write_text("campaign: campaign.yaml\n")

    async def start_server(self) -> None:
        """Start the server process and wait until it answers."""
        environment = dict(os.environ)
        if self.clock:
            environment |= {"LD_PRELOAD": str(self.folder / "clock.so"), "CLOCK_OFFSET": str(self.clock)}
        with open(self.folder / "server.log", "ab") as log:
            self.server = await asyncio.create_subprocess_exec(
                *self.server_command(self.folder / "server.yaml"),
                env=environment,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        await self.answers()

    def server_command(self, config: Path) -> Sequence[str]:
        """Return the command line of a server."""
        return (sys.executable, "-m", "faults.server", "--config", str(config), "--loglevel", "WARNING")

    async def answers(self, timeout: float = START_TIMEOUT) -> None:
        """Wait until the server answers."""
        async with asyncio.timeout(timeout), aiohttp.ClientSession() as session:
            while True:
                with contextlib.suppress(aiohttp.ClientError, TimeoutError):
                    async with session.get(
                        f"{self.url}/uws/tick?LAST=1", timeout=aiohttp.ClientTimeout(5)
                    ) as answer:
                        if answer.status == 200:
                            return
                if self.server and self.server.returncode not in (None, -signal.SIGKILL, -signal.SIGTERM):
                    raise RuntimeError(f"the server ended by itself with exit code {self.server.returncode}")
                await asyncio.sleep(0.05)

    async def stop_server(self, number: int = signal.SIGTERM) -> None:
        """End the server with a signal."""
        if self.server and self.server.returncode is None:
            self.server.send_signal(signal.SIGCONT)
            self.server.send_signal(number)
            await self.server.wait()

    async def start_csc(self) -> None:
        """Start the CSC; it enables itself."""
        arguments = (
            "1",
            "--configdir",
            str(self.folder / "config"),
            "--state",
            "enabled",
            "--settings",
            "campaign",
        )
        self.csc = CscProcess(*arguments, log=self.folder / "csc.log")
        await self.csc.start()

    async def settled(self) -> None:
        """Wait until the server answers and the CSC is ENABLED."""
        await self.answers()
        event = self.script.remote.evt_summaryState
        async with asyncio.timeout(START_TIMEOUT):
            data = await event.aget()
            while data is None or data.summaryState != salobj.State.ENABLED:
                data = await event.next(flush=False)


def mount(*arguments: object) -> bool:
    """Mount a file system; return whether that was possible."""
    return (
        subprocess.run(["mount", *map(str, arguments)], stderr=subprocess.DEVNULL, check=False).returncode
        == 0
    )
