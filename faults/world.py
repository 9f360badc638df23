# SPDX-License-Identifier: GPL-3.0-or-later
"""The processes of a campaign: servers, a CSC that forwards to one through a proxy, and their files."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import aiohttp
import yaml
from lsst.dm.OCPS.testing import CscProcess, Script, private_bus
from lsst.ts import salobj

from tests.conftest import find_program
from tests.postgresql import Cluster
from tests.proxy import Proxy

from .bystanders import Bystanders
from .servers import START_TIMEOUT, Redis, Server

ROOT = Path(__file__).resolve().parents[1]
TICK = Path(__file__).with_name("tick.sh")

DISK_SIZE = 128 << 20
MIN_FREE = 4 << 20
INODES = 60_000


class World:
    """Everything that a campaign runs on.

    A server with its store in SQLite on a small disk; a CSC that forwards to
    it through a proxy; a server that runs pipelines in preloaded processes.
    Where PostgreSQL is installed, another server with its store
    there; where Redis is, a CSC of index 101.

    Parameters
    ----------
    folder : `pathlib.Path`
        For all files.
    repo : `pathlib.Path`
        A Butler with DemoCam's data, which a third server runs pipelines on.
    """

    def __init__(self, folder: Path, repo: Path) -> None:
        self.folder = folder
        self.repo = repo
        self.pipelines: Server
        self.ledger = folder / "ledger"
        self.disk = folder / "disk"
        self.small_disk = False
        self.clock: Path | None = None
        self.main: Server
        self.servers: list[Server] = []
        self.second: Server | None = None
        self.cluster: Cluster | None = None
        self.redis: Redis | None = None
        self.csc: CscProcess
        self.csc_harmed = False
        self.proxy: Proxy
        self.script: Script
        self.rapid: Script | None = None
        self.session: aiohttp.ClientSession
        self.bystanders: Bystanders
        self.jobs_busy = asyncio.Lock()
        """Held by the one fault that stops or ends jobs."""
        self._stack = contextlib.AsyncExitStack()

    async def open(self) -> None:
        """Make the files and start everything."""
        self.ledger.mkdir(parents=True)
        self.disk.mkdir()
        self.small_disk = os.geteuid() == 0 and mount(
            "-t", "tmpfs", "-o", f"size={DISK_SIZE},nr_inodes={INODES}", "ocps", self.disk
        )
        self._stack.push_async_callback(self._unmount)
        self.bystanders = self._stack.enter_context(
            Bystanders([self.folder / "others", self.disk / "others"])
        )
        self._build_clock()
        self.session = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=30))
        await self._make_servers()
        private_bus()
        await asyncio.gather(self._start_servers(), self._start_rapid_analysis())
        await self.enabled()

    async def _make_servers(self) -> None:
        """Configure the servers."""
        self.main = Server("server", self.folder, self._instance(self.disk / "server"), self.clock)
        pipelines = self._instance(self.folder / "server-3") | self._pipelines()
        self.pipelines = Server("server of pipelines", self.folder, pipelines)
        self.servers += [self.main, self.pipelines]
        if program := find_program("postgres"):
            self.cluster = Cluster(program)
            self._stack.callback(self.cluster.remove)
            await asyncio.to_thread(self.cluster.create)
            await asyncio.to_thread(self.cluster.create_database, "jobs")
            instance = self._instance(self.folder / "server-2") | {"database": self.cluster.url("jobs")}
            self.second = Server("server on PostgreSQL", self.folder, instance)
            self.servers.append(self.second)

    async def _start_servers(self) -> None:
        for server in self.servers:
            self._stack.push_async_callback(server.stop)
        await asyncio.gather(*(server.start() for server in self.servers))
        self.proxy = await Proxy(self.main.url).start()
        self._stack.push_async_callback(self.proxy.stop)
        self._configure_csc()
        await self.start_csc()
        self._stack.push_async_callback(self._stop_csc)
        self.script = await self._stack.enter_async_context(Script.connect())

    async def _start_rapid_analysis(self) -> None:
        """Start a Redis, and the CSC that pushes to it."""
        program = find_program("redis-server")
        if not program:
            return
        self.redis = Redis(program, self.folder / "redis")
        await self.redis.start()
        self._stack.push_async_callback(self.redis.stop)
        environment = {"REDIS_HOST": "127.0.0.1", "REDIS_PORT": str(self.redis.port), "REDIS_PASSWORD": ""}
        csc = CscProcess(
            *("101", "--state", "enabled"), environment=environment, log=self.folder / "csc-101.log"
        )
        await self._stack.enter_async_context(csc)
        self.rapid = await self._stack.enter_async_context(Script.connect(index=101))
        async with asyncio.timeout(START_TIMEOUT):
            while self.rapid.remote.evt_summaryState.get().summaryState != salobj.State.ENABLED:
                await asyncio.sleep(0.05)

    async def close(self) -> None:
        """Stop everything; jobs must have ended."""
        await self.session.close()
        await self._stack.aclose()

    async def _unmount(self) -> None:
        while (
            self.small_disk
            and subprocess.run(["umount", self.disk], stderr=subprocess.DEVNULL, check=False).returncode
        ):
            await asyncio.sleep(0.1)

    def _build_clock(self) -> None:
        """Build the library that shifts the main server's clock, where there is a compiler."""
        compiler, library = shutil.which("cc"), self.folder / "clock.so"
        source = str(Path(__file__).with_name("clock.c"))
        command = [str(compiler), "-shared", "-fPIC", "-o", str(library), source]
        if compiler and not subprocess.run(command, check=False).returncode:
            self.clock = library

    def _instance(self, work_dir: Path) -> dict[str, Any]:
        """Return the configuration of a server."""
        words = "Ledger, token, duration, exit code and way of the job"
        definition = {
            "name": "tick",
            "kind": "command",
            "argv": ["sh", str(TICK), "{place}"],
            "parameters": {"place": {"description": words}},
            "outputs": ["answer"],
        }
        (self.folder / "tick.yaml").write_text(yaml.safe_dump({"definitions": [definition]}))
        return {
            "sal_index": 1,
            "backend": "local",
            "work_dir": str(work_dir),
            "max_workers": 6,
            "min_free_space": MIN_FREE,
            "min_free_files": 200,
            "definitions": [str(self.folder / "tick.yaml")],
            "commands": [{"command": f"sh {TICK}"}],
        }

    def _pipelines(self) -> dict[str, Any]:
        """Return what the configuration of the server of pipelines has beside the others'."""
        definition = {
            "name": "tick",
            "kind": "pipeline",
            "pipeline": str(Path(__file__).with_name("ledger.yaml")),
            "options": ["--register-dataset-types", "-c", "ledger:place={place}"],
            "outputs": ["ledgerAnswer"],
            "parameters": {"place": {"description": "As of the others"}},
        }
        path = self.folder / "pipelines.yaml"
        path.write_text(yaml.safe_dump({"definitions": [definition]}))
        python_path = os.pathsep.join([str(ROOT), str(ROOT / "demo" / "python")])
        return {
            "butler": str(self.repo),
            "input_collection": "DemoCam/raw/all",
            "definitions": [str(path)],
            "commands": [],
            "max_workers": 2,
            "environments": [{"name": "default", "variables": {"PYTHONPATH": python_path}}],
        }

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

    async def start_csc(self) -> None:
        """Start the CSC; it enables itself."""
        arguments = ("1", "--configdir", str(self.folder / "config"), "--state", "enabled")
        self.csc = CscProcess(*arguments, "--settings", "campaign", log=self.folder / "csc.log")
        await self.csc.start()

    async def _stop_csc(self) -> None:
        await self.csc.stop()

    async def answer(self) -> None:
        """Wait until all servers answer."""
        for server in self.servers:
            await server.answers()

    async def enabled(self) -> None:
        """Wait until the CSC is ENABLED; enable it if that was refused because its server was away."""
        event = self.script.remote.evt_summaryState
        async with asyncio.timeout(START_TIMEOUT):
            while True:
                data = event.get()
                if data is not None and data.summaryState == salobj.State.ENABLED:
                    return
                if self.csc.process and self.csc.process.returncode is not None:
                    await self.start_csc()
                try:
                    await event.next(flush=False, timeout=10)
                except TimeoutError:
                    with contextlib.suppress(RuntimeError, salobj.AckError, TimeoutError):
                        await self.script.set_state(salobj.State.ENABLED, "campaign")


def mount(*arguments: object) -> bool:
    """Mount a file system; return whether that was possible."""
    command = ["mount", *map(str, arguments)]
    return not subprocess.run(command, stderr=subprocess.DEVNULL, check=False).returncode
