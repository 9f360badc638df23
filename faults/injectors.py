# SPDX-License-Identifier: GPL-3.0-or-later
"""The faults: each injector breaks one thing, and repairs what OCPS cannot repair itself."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import signal
import sqlite3
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

from . import copies, disk
from .oracle import Oracle, Order
from .servers import Server
from .world import World

PAUSES = {"jobs": 1.0, "CSC": 2.0, "services": 2.0, "server": 4.0, "copies": 20.0, "zygote": 8.0}
"""Mean time (s) between two faults of a group; what costs much is done less often."""

Injector = Callable[[], Awaitable[bool]]
"""Breaks something; returns whether there was anything to break."""


class Injectors:
    """All faults of a campaign, by group and name.

    Faults of one group are injected one after the other, those of different
    groups at the same time.

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
        self.mended = 0.0
        """When (monotonic) the last fault was over, and OCPS was to recover."""
        self.groups: dict[str, dict[str, tuple[int, Injector]]] = {
            "jobs": {
                "job killed": (10, self.kill_job),
                "job stopped": (6, self.stop_job),
                "supervisor killed": (10, self.kill_supervisor),
                "supervisor stopped": (6, self.stop_supervisor),
            },
            "CSC": {
                "CSC killed": (1, self.kill_csc),
                "CSC stopped": (2, self.stop_csc),
                "link cut": (4, self.cut_link),
                "link slow": (3, self.slow_link),
                "answers lost": (4, self.lose_answers),
            },
            "server": {
                "server killed": (3, lambda: self.kill_server(world.main)),
                "server killed while starting": (1, self.kill_server_twice),
                "server stopped": (2, lambda: self.stop_server(world.main)),
                "store locked": (3, self.lock_store),
            },
            "copies": {},
        }
        server, copied = self.groups["server"], self.groups["copies"]
        if os.geteuid() == 0:
            copied["store damaged (copy)"] = (1, lambda: copies.damaged(world, oracle, chance))
            copied["store read-only (copy)"] = (1, lambda: copies.read_only(world, oracle))
            copied["crash image"] = (1, lambda: copies.crash_image(world, oracle))
        if world.small_disk:
            server["disk full"] = (3, lambda: disk.fill(world.disk, self.hold, chance))
            server["inodes used up"] = (1, lambda: disk.use_up_inodes(world.disk, self.hold))
        if world.clock:
            server["clock jump"] = (4, self.jump)
        self.groups["zygote"] = {
            "zygote killed": (2, self.kill_zygote),
            "zygote stopped": (1, self.stop_zygote),
        }
        services = self.groups["services"] = {}
        if world.cluster:
            second = world.second
            assert second
            services["PostgreSQL restarted"] = (2, lambda: self.restart_postgresql("fast"))
            services["PostgreSQL killed"] = (2, lambda: self.restart_postgresql("immediate"))
            services["PostgreSQL stopped"] = (2, self.stop_postgresql)
            services["server on PostgreSQL killed"] = (2, lambda: self.kill_server(second))
            services["server on PostgreSQL stopped"] = (1, lambda: self.stop_server(second))
        if world.redis:
            services["Redis restarted"] = (2, lambda: self.restart_redis(signal.SIGTERM))
            services["Redis killed"] = (2, lambda: self.restart_redis(signal.SIGKILL))

    def choose(self, group: str) -> str:
        """Return the name of a fault of a group, more often one that costs little."""
        faults = self.groups[group]
        return self.chance.choices(list(faults), [weight for weight, _ in faults.values()])[0]

    async def inject(self, group: str, name: str) -> float | None:
        """Inject a fault, and wait until OCPS answers again.

        Returns
        -------
        recovery : `float` or `None`
            How long (s) OCPS took from when the fault was over; `None` if
            there was nothing to break.
        """
        self.mended = time.monotonic()
        if not await self.groups[group][name][1]():
            return None
        # A fault of one job concerns nothing else.
        if group != "jobs":
            await self.world.answer()
        if group == "CSC":
            await self.world.enabled()
        return time.monotonic() - self.mended

    async def pause(self, group: str) -> None:
        """Wait before the next fault of a group."""
        await asyncio.sleep(PAUSES[group] * self.chance.uniform(0.5, 1.5))

    async def hold(self, longest: float) -> None:
        """Leave something broken for a while."""
        await asyncio.sleep(self.chance.uniform(0.1, longest))
        self.mended = time.monotonic()

    # Jobs

    async def kill_job(self) -> bool:
        return await self._to_job(harm=True)

    async def stop_job(self) -> bool:
        return await self._to_job(harm=False)

    async def kill_supervisor(self) -> bool:
        return await self._to_job(harm=True, supervisor=True)

    async def stop_supervisor(self) -> bool:
        return await self._to_job(harm=False, supervisor=True)

    async def _to_job(self, harm: bool, supervisor: bool = False) -> bool:
        async with self.world.jobs_busy:
            return await self._to_one_of(self.oracle.running(), harm, supervisor)

    async def _to_one_of(self, running: list[tuple[Order, int]], harm: bool, supervisor: bool) -> bool:
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

    # Servers

    async def kill_server(self, server: Server) -> bool:
        async with server.busy:
            await server.stop(signal.SIGKILL)
            await self.hold(1)
            await server.start()
        return True

    async def kill_server_twice(self) -> bool:
        server = self.world.main
        async with server.busy:
            await server.stop(signal.SIGKILL)
            starting = asyncio.create_task(server.start())
            await asyncio.sleep(self.chance.uniform(0.5, 4))
            await server.stop(signal.SIGKILL)
            self.mended = time.monotonic()
            starting.cancel()
            await asyncio.gather(starting, return_exceptions=True)
            await server.start()
        return True

    async def stop_server(self, server: Server) -> bool:
        async with server.busy:
            assert server.process
            server.process.send_signal(signal.SIGSTOP)
            await self.hold(3)
            server.process.send_signal(signal.SIGCONT)
        return True

    async def lock_store(self) -> bool:
        store = self.world.main.work_dir / "jobs.sqlite3"
        connection = sqlite3.connect(store, isolation_level=None, timeout=0)
        try:
            connection.execute("BEGIN IMMEDIATE")
            await self.hold(4)
            connection.execute("ROLLBACK")
        except sqlite3.OperationalError:
            return False
        finally:
            connection.close()
        return True

    async def jump(self) -> bool:
        self.world.main.set_clock(self.chance.choice((-3600, 3600, -30, 30)))
        await self.hold(2)
        self.world.main.set_clock(0)
        return True

    # The preloaded process

    def _zygote(self) -> int | None:
        """Return the process id of the preloaded process of the server of pipelines."""
        assert self.world.pipelines.process
        server = self.world.pipelines.process.pid
        for task in Path(f"/proc/{server}/task").iterdir():
            # Threads and processes may end meanwhile.
            with contextlib.suppress(OSError):
                for child in (task / "children").read_text().split():
                    if b"/zygote/main.py" in Path(f"/proc/{child}/cmdline").read_bytes():
                        return int(child)
        return None

    async def kill_zygote(self) -> bool:
        if (zygote := self._zygote()) is None:
            return False
        os.kill(zygote, signal.SIGKILL)
        return True

    async def stop_zygote(self) -> bool:
        if (zygote := self._zygote()) is None:
            return False
        os.kill(zygote, signal.SIGSTOP)
        await self.hold(5)
        with contextlib.suppress(ProcessLookupError):
            os.kill(zygote, signal.SIGCONT)
        return True

    # The CSC, and the link between it and its server

    async def kill_csc(self) -> bool:
        await self.world.csc.kill()
        event = self.world.script.remote.evt_summaryState
        event.flush()
        await self.world.start_csc()
        # The new one's own word, not what the former one left in the remote.
        with contextlib.suppress(TimeoutError):
            await event.next(flush=False, timeout=60)
        return True

    async def stop_csc(self) -> bool:
        self.world.csc_harmed = True
        os.kill(self.world.csc.pid, signal.SIGSTOP)
        await self.hold(3)
        os.kill(self.world.csc.pid, signal.SIGCONT)
        return True

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
        await self.hold(0.5)
        return True

    # Services that OCPS stands on

    async def restart_postgresql(self, mode: str) -> bool:
        cluster = self.world.cluster
        assert cluster
        await asyncio.to_thread(cluster.stop, mode)
        await self.hold(2)
        await asyncio.to_thread(cluster.start)
        return True

    async def stop_postgresql(self) -> bool:
        assert self.world.cluster
        with self.world.cluster.stopped():
            await self.hold(4)
        return True

    async def restart_redis(self, number: int) -> bool:
        assert self.world.redis
        await self.world.redis.stop(number)
        await self.hold(1)
        await self.world.redis.start()
        return True
