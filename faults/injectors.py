# SPDX-License-Identifier: GPL-3.0-or-later
"""What is done to OCPS: each injector breaks one thing and mends what OCPS cannot mend itself."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import random
import shutil
import signal
import sqlite3
import subprocess
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import yaml

from .oracle import Oracle
from .world import MIN_FREE, World

Injector = Callable[[], Awaitable[bool]]
"""Breaks something; returns whether there was anything to break."""


class Injectors:
    """All faults of a campaign, by name.

    Parameters
    ----------
    world : `World`
        What is broken.
    oracle : `Oracle`
        Is told which jobs were harmed, and of violations.
    chance : `random.Random`
        Decides how long and whom.
    """

    def __init__(self, world: World, oracle: Oracle, chance: random.Random) -> None:
        self.world = world
        self.oracle = oracle
        self.chance = chance
        self.lifted = 0.0
        """When (monotonic) what was broken last was mended; then OCPS is to recover."""
        self.all: dict[str, tuple[int, Injector]] = {
            "job killed": (10, self.kill_job),
            "job stopped": (6, self.stop_job),
            "supervisor killed": (10, self.kill_supervisor),
            "supervisor stopped": (6, self.stop_supervisor),
            "server killed": (3, self.kill_server),
            "server killed while starting": (1, self.kill_server_twice),
            "server stopped": (2, self.stop_server),
            "CSC killed": (1, self.kill_csc),
            "CSC stopped": (2, self.stop_csc),
            "link cut": (4, self.cut_link),
            "link slow": (3, self.slow_link),
            "answers lost": (4, self.lose_answers),
        }
        if world.small_disk:
            self.all["disk full"] = (3, self.fill_disk)
            self.all["inodes used up"] = (1, self.use_up_inodes)
        if world.clock:
            self.all["clock jump"] = (4, self.jump)
        if not world.database:
            self.all["store locked"] = (3, self.lock_store)
            self.all["store damaged (copy)"] = (1, self.damaged_copy)
        if os.geteuid() == 0:
            self.all["store read-only (copy)"] = (1, self.read_only_copy)

    def choose(self) -> tuple[str, Injector]:
        """Return a fault, more often one that costs little."""
        names = list(self.all)
        name = self.chance.choices(names, [self.all[name][0] for name in names])[0]
        return name, self.all[name][1]

    async def hold(self, longest: float) -> None:
        """Leave something broken for a while."""
        await asyncio.sleep(self.chance.uniform(0.1, longest))
        self.lifted = time.monotonic()

    # Processes

    async def kill_job(self) -> bool:
        return await self._to_job(harm=True)

    async def stop_job(self) -> bool:
        return await self._to_job(harm=False)

    async def _to_job(self, harm: bool, supervisor: bool = False) -> bool:
        running = self.oracle.running()
        if not running:
            return False
        order, pid = self.chance.choice(running)
        with contextlib.suppress(OSError):
            if supervisor:
                pid = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
                if b"supervisor.py" not in Path(f"/proc/{pid}/cmdline").read_bytes():
                    return False
            if harm:
                order.harmed = True
                os.kill(pid, signal.SIGKILL)
            else:
                os.kill(pid, signal.SIGSTOP)
                await self.hold(1)
                os.kill(pid, signal.SIGCONT)
            return True
        return False

    async def kill_supervisor(self) -> bool:
        return await self._to_job(harm=True, supervisor=True)

    async def stop_supervisor(self) -> bool:
        return await self._to_job(harm=False, supervisor=True)

    async def kill_server(self) -> bool:
        await self.world.stop_server(signal.SIGKILL)
        await self.hold(1)
        await self.world.start_server()
        return True

    async def kill_server_twice(self) -> bool:
        await self.world.stop_server(signal.SIGKILL)
        starting = asyncio.create_task(self.world.start_server())
        await asyncio.sleep(self.chance.uniform(0.5, 4))
        with contextlib.suppress(ProcessLookupError):
            await self.world.stop_server(signal.SIGKILL)
        starting.cancel()
        await asyncio.gather(starting, return_exceptions=True)
        await self.world.start_server()
        return True

    async def stop_server(self) -> bool:
        assert self.world.server
        self.world.server.send_signal(signal.SIGSTOP)
        await self.hold(3)
        self.world.server.send_signal(signal.SIGCONT)
        await self.world.answers()
        return True

    async def kill_csc(self) -> bool:
        assert self.world.csc
        await self.world.csc.kill()
        self.lifted = time.monotonic()
        self.world.script.remote.evt_summaryState.flush()
        await self.world.start_csc()
        # Its own first word, not what the former one left in the remote.
        event = self.world.script.remote.evt_summaryState
        async with asyncio.timeout(240):
            while (await event.next(flush=False)).summaryState != 2:
                pass
        return True

    async def stop_csc(self) -> bool:
        assert self.world.csc
        self.world.csc_harmed = True
        os.kill(self.world.csc.pid, signal.SIGSTOP)
        await self.hold(3)
        os.kill(self.world.csc.pid, signal.SIGCONT)
        return True

    # The link between CSC and server

    async def cut_link(self) -> bool:
        self.world.proxy.away = True
        self.world.proxy.cut_all()
        await self.hold(2)
        self.world.proxy.away = False
        return True

    async def slow_link(self) -> bool:
        self.world.proxy.delay = self.chance.uniform(0.2, 2)
        await self.hold(2)
        self.world.proxy.delay = 0
        return True

    async def lose_answers(self) -> bool:
        self.world.proxy.lose_answers += 1
        return True

    # Disk, store, clock

    async def fill_disk(self) -> bool:
        path = self.world.work / "filling"
        space = os.statvfs(self.world.work)
        # Below the floor, or to the last byte.
        left = self.chance.choice((0, MIN_FREE // 2))
        size = max(0, space.f_bavail * space.f_frsize - left)
        try:
            with path.open("wb", buffering=0) as file, contextlib.suppress(OSError):
                block = bytes(1 << 20)
                while size > 0 and (done := file.write(block[: min(size, len(block))])):
                    size -= done
            await self.hold(2)
        finally:
            path.unlink(missing_ok=True)
        return True

    async def use_up_inodes(self) -> bool:
        folder = self.world.work / "inodes"
        folder.mkdir(exist_ok=True)
        try:
            for number in range(1 << 20):
                (folder / str(number)).touch()
                if number % 500 == 0:
                    await asyncio.sleep(0)
        except OSError as error:
            if error.errno != errno.ENOSPC:
                raise
        await self.hold(1)
        shutil.rmtree(folder)
        return True

    async def lock_store(self) -> bool:
        connection = sqlite3.connect(
            self.world.work / "server" / "jobs.sqlite3", isolation_level=None, timeout=0
        )
        try:
            connection.execute("BEGIN IMMEDIATE")
            await self.hold(4)
            connection.execute("ROLLBACK")
        except sqlite3.OperationalError:
            return False
        finally:
            connection.close()
        return True

    async def damaged_copy(self) -> bool:
        folder = await self._copy()
        store = folder / "server" / "jobs.sqlite3"
        content = bytearray(store.read_bytes())
        for _ in range(20):
            place = self.chance.randrange(100, len(content))
            content[place : place + 200] = self.chance.randbytes(min(200, len(content) - place))
        store.write_bytes(content[: len(content) // 4096 * 4096])
        await self._start_copy(folder)
        return True

    async def read_only_copy(self) -> bool:
        folder = await self._copy()
        bind = ["mount", "--bind", str(folder), str(folder)]
        if subprocess.run(bind, stderr=subprocess.DEVNULL, check=False).returncode:
            return False
        try:
            subprocess.run(["mount", "-o", "remount,bind,ro", str(folder)], check=True)
            await self._start_copy(folder)
        finally:
            subprocess.run(["umount", "-l", str(folder)], check=False)
        return True

    async def _copy(self) -> Path:
        """Copy the job store as it is at this moment."""
        folder = self.world.folder / "copy"
        shutil.rmtree(folder, ignore_errors=True)
        (folder / "server").mkdir(parents=True)
        for name in ("jobs.sqlite3", "jobs.sqlite3-wal"):
            source = self.world.work / "server" / name
            if source.exists():
                await asyncio.to_thread(shutil.copy, source, folder / "server" / name)
        return folder

    async def _start_copy(self, folder: Path) -> None:
        """Start a server on a copy that is no good: it must say so in words, or work."""
        document = yaml.safe_load((self.world.folder / "server.yaml").read_text())
        instance = document["instances"][0]
        instance |= {"work_dir": str(folder / "server"), "min_free_space": 0}
        instance["http"]["port"] = 0
        # What is queued there has run, or will, on the original.
        instance["definitions"], instance["commands"] = [], []
        config = self.world.folder / "copy.yaml"
        config.write_text(yaml.safe_dump(document))
        # In a world of its own processes and with another ledger: its jobs are none of ours.
        scratch = self.world.folder / "scratch"
        scratch.mkdir(exist_ok=True)
        words = " ".join(self.world.server_command(config))
        command = f"mount --bind {scratch} {self.world.ledger} && exec {words}"
        process = await asyncio.create_subprocess_exec(
            *(("unshare", "-m", "-p", "-f", "--kill-child", "--mount-proc", "sh", "-c", command)),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
        )
        try:
            _, said = await asyncio.wait_for(process.communicate(), 20)
        except TimeoutError:
            process.kill()
            _, said = await process.communicate()
        if b"Traceback" in said:
            self.oracle.violate(f"a server on a bad copy: {said.decode(errors='replace')[-2000:]}")

    async def jump(self) -> bool:
        self.world.set_clock(self.chance.choice((-3600, 3600, -30, 30)))
        await self.hold(2)
        self.world.set_clock(0)
        return True
