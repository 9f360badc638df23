# SPDX-License-Identifier: GPL-3.0-or-later
"""A steady mix of jobs over SAL and HTTP."""

from __future__ import annotations

import asyncio
import functools
import json
import random
import secrets
from collections.abc import Awaitable, Callable
from typing import Any

import aiohttp
from lsst.ts import salobj

from .oracle import END_TIMEOUT, ENDED, REDIS_KEY, Oracle, Order
from .servers import Server
from .world import World

WAYS = ("plain", "plain", "plain", "plain", "escape", "deaf", "write")
CODES = (0, 0, 0, 0, 3, 77)
FAILURES = (aiohttp.ClientError, TimeoutError, json.JSONDecodeError)


class Load:
    """Asks for jobs until it is stopped, and follows each to its end.

    Parameters
    ----------
    world : `World`
        What the campaign runs on.
    oracle : `Oracle`
        Is told of every job.
    chance : `random.Random`
        Decides what is asked for.
    pause : `float`
        How long (s) each client waits after a job until it asks for the next.
    """

    def __init__(self, world: World, oracle: Oracle, chance: random.Random, pause: float = 0.05) -> None:
        self.world = world
        self.oracle = oracle
        self.chance = chance
        self.pause = pause
        self.stopping = False
        self._tasks: list[asyncio.Task[None]] = []

    def start(self, clients: int) -> None:
        """Start so many clients over HTTP for each server, two thirds of that over SAL, and one for Redis."""
        workers: list[Callable[[], Awaitable[bool]]] = [self._one_sal] * (clients * 2 // 3)
        for server in self.world.servers:
            # A pipeline costs much more than a shell script.
            count = max(1, clients // 4) if server is self.world.pipelines else clients
            workers += [functools.partial(self._one_http, server)] * count
        if self.world.rapid:
            workers.append(self._one_push)
        self._tasks = [asyncio.create_task(self._work(one)) for one in workers]

    async def stop(self) -> None:
        """Ask for no more jobs, and wait until those that were asked for have ended."""
        self.stopping = True
        _, late = await asyncio.wait(self._tasks, timeout=END_TIMEOUT)
        for task in late:
            task.cancel()
        outcomes = await asyncio.gather(*self._tasks, return_exceptions=True)
        for outcome in outcomes:
            if isinstance(outcome, Exception):
                raise outcome

    async def _work(self, one: Callable[[], Awaitable[bool]]) -> None:
        while not self.stopping:
            accepted = await one()
            await asyncio.sleep(self.pause if accepted else max(self.pause, 0.5))

    def _order(self, face: str, server: Server) -> tuple[Order, str]:
        way = "pipeline" if server is self.world.pipelines else self.chance.choice(WAYS)
        order = self.oracle.new(way, self.chance.choice(CODES), face)
        order.server = server.name
        return order, self.oracle.place(order, self.chance.choice((0, 0, 0.1, 0.5, 2)))

    async def _one_http(self, server: Server) -> bool:
        order, place = self._order("HTTP", server)
        form = {"place": place, "PHASE": "RUN"}
        url = f"{server.url}/uws/tick"
        try:
            async with self.world.session.post(url, data=form, allow_redirects=False) as answer:
                if answer.status != 303:
                    order.refused = f"{answer.status} {(await answer.text())[:200]}"
                    if answer.status not in (503, 507):
                        self.oracle.violate(f"{order.token}: {order.refused}")
                    return False
                order.job_id = answer.headers["Location"].rpartition("/")[2]
                order.accepted = True
        except FAILURES:
            # Nobody knows whether it was accepted.
            return False
        if self.chance.random() < 0.08:
            order.abort_asked = True
            await asyncio.sleep(self.chance.random())
            await self._post(f"{url}/{order.job_id}/phase", {"PHASE": "ABORT"})
        job = await self._follow(order, server)
        if server is self.world.pipelines:
            # Each costs seconds while the preloaded process is away.
            await asyncio.sleep(4 * self.pause)
        if job and self.chance.random() < 0.6 and await self._checked(order, job):
            order.deleted = True
            status = await self._post(f"{url}/{order.job_id}", {"ACTION": "DELETE"})
            order.gone = status in (200, 303)
        return True

    async def _post(self, url: str, form: dict[str, str]) -> int:
        """Send a form; return the status of the answer, 0 if there was none."""
        try:
            async with self.world.session.post(url, data=form, allow_redirects=False) as answer:
                return answer.status
        except FAILURES:
            return 0

    async def _checked(self, order: Order, job: dict[str, Any]) -> bool:
        """Check a job that is to be deleted; return whether that was possible."""
        try:
            await self.oracle.check_end(order, job, self.oracle.read(order.token))
        except FAILURES:
            return False
        return True

    async def _follow(self, order: Order, server: Server) -> dict[str, Any] | None:
        """Ask for a job's phase until it has ended; return its record then."""
        url = f"{server.url}/api/v1/job/{order.job_id}"
        while True:
            await asyncio.sleep(0.3)
            try:
                async with self.world.session.get(url) as answer:
                    if answer.status == 404:
                        self.oracle.violate(f"{order.token}: accepted as {order.job_id}, then 404")
                        return None
                    if answer.status != 200:
                        continue
                    job = await answer.json()
            except FAILURES:
                continue
            if job["phase"] in ENDED:
                told = {**job, "exit_code": (job.get("jobInfo") or {}).get("exitCode")}
                self.oracle.compare(order, told, "over HTTP")
                return told | {"url": server.url}

    async def _one_sal(self) -> bool:
        order, place = self._order("SAL", self.world.main)
        try:
            execution = await self.world.script.execute(place, timeout=20)
        except (salobj.AckError, RuntimeError, TimeoutError, KeyError, ValueError):
            return False
        order.job_id, order.accepted = execution.job_id, True
        if self.chance.random() < 0.08:
            order.abort_asked = True
            remote = self.world.script.remote
            remote.cmd_abort_job.set(job_id=order.job_id)
            try:
                await remote.cmd_abort_job.start(timeout=20)
            except salobj.AckError:
                pass
        while not any(each.job_id == order.job_id for each in self.world.script.results):
            if self.stopping:
                return True
            await asyncio.sleep(0.2)
        order.over = True
        return True

    async def _one_push(self) -> bool:
        """Let the CSC of index 101 push something to Redis."""
        assert self.world.rapid
        token = secrets.token_hex(6)
        self.oracle.pushes[token] = ""
        command = self.world.rapid.remote.cmd_execute
        config = json.dumps({REDIS_KEY: token})
        try:
            await command.set_start(pipeline="", version="", config=config, data_query="", timeout=60)
        except salobj.AckTimeoutError:
            return False
        except salobj.AckError:
            self.oracle.pushes[token] = "failed"
            return False
        self.oracle.pushes[token] = "done"
        await asyncio.sleep(0.5)
        return True
