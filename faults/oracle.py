# SPDX-License-Identifier: GPL-3.0-or-later
"""The oracle: compares what OCPS says of each job with what the job wrote itself."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import secrets
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp

from .world import World

END_TIMEOUT = 300.0
"""How long (s) all jobs may take to end when nothing is broken any more."""


@dataclass
class Order:
    """A job that was asked for, and what became of the request."""

    token: str
    way: str
    code: int
    face: str
    job_id: str = ""
    accepted: bool = False
    refused: str = ""
    abort_asked: bool = False
    deleted: bool = False
    harmed: bool = False
    """Whether its process or its supervisor was killed or stopped on purpose."""


@dataclass
class Ledger:
    """What one job wrote."""

    starts: list[int] = field(default_factory=list)
    codes: list[int] = field(default_factory=list)


class Oracle:
    """Knows every job of a campaign.

    Parameters
    ----------
    world : `World`
        What the campaign runs on.
    """

    def __init__(self, world: World) -> None:
        self.world = world
        self.orders: dict[str, Order] = {}
        self.seen: dict[str, dict[str, Any]] = {}
        self.told_over_sal: dict[str, str] = {}
        self.violations: list[str] = []

    def new(self, way: str, code: int, face: str) -> Order:
        """Return a new job to ask for."""
        order = Order(secrets.token_hex(6), way, code, face)
        self.orders[order.token] = order
        return order

    def place(self, order: Order, duration: float) -> str:
        """Return the argument of a job."""
        return f"{self.world.ledger}/{order.token}-{duration:g}-{order.code}-{order.way}.yaml"

    def read(self, token: str) -> Ledger:
        """Return what a job wrote."""
        found = Ledger()
        with contextlib.suppress(FileNotFoundError):
            for line in (self.world.ledger / token).read_text().splitlines():
                word, _, number = line.partition(" ")
                (found.starts if word == "start" else found.codes).append(int(number))
        return found

    def running(self) -> list[tuple[Order, int]]:
        """Return the jobs that run, by their ledgers, with their process ids."""
        found = []
        for token, order in self.orders.items():
            if token in self.seen or order.harmed:
                continue
            ledger = self.read(token)
            if ledger.starts and not ledger.codes and Path(f"/proc/{ledger.starts[-1]}").exists():
                found.append((order, ledger.starts[-1]))
        return found

    def violate(self, words: str) -> None:
        """Note that an invariant does not hold."""
        self.violations.append(words)

    def compare(self, order: Order, job: dict[str, Any], source: str) -> None:
        """Compare what was said of an ended job with what was said before."""
        told = {name: job.get(name) for name in ("phase", "exit_code")}
        before = self.seen.setdefault(order.token, told)
        if before != told:
            self.violate(f"{order.token}: first {before}, then {told} ({source})")

    async def check(self) -> None:
        """Wait until all jobs have ended; check every invariant."""
        jobs = await self._all_ended()
        await self._check_sal()
        for order in self.orders.values():
            ledger = self.read(order.token)
            if len(ledger.starts) > 1:
                self.violate(f"{order.token}: executed {len(ledger.starts)} times")
            job = jobs.get(order.token)
            if job is None and self.told_over_sal.get(order.token) == "aborted" and order.abort_asked:
                # The CSC has deleted it on the server.
                continue
            if job is None:
                if order.accepted and not order.deleted:
                    self.violate(f"{order.token}: accepted over {order.face} and lost")
                elif ledger.starts and not order.deleted and order.refused:
                    self.violate(f"{order.token}: refused ({order.refused}) and yet executed")
                continue
            self.compare(order, job, "at the end")
            await self._check_end(order, job, ledger)
        self._check_orphans()

    async def _all_ended(self) -> dict[str, dict[str, Any]]:
        """Return the server's record of each job by its token."""
        async with asyncio.timeout(END_TIMEOUT):
            while True:
                jobs = await self._records()
                open_ = [
                    token for token, job in jobs.items() if job["phase"] in ("queued", "executing", "unknown")
                ]
                if not open_:
                    return jobs
                await asyncio.sleep(0.2)

    async def _records(self) -> dict[str, dict[str, Any]]:
        async with self.world.session.get(
            f"{self.world.url}/api/v1/job", timeout=aiohttp.ClientTimeout(120)
        ) as answer:
            answer.raise_for_status()
            listed = await answer.json()
        found: dict[str, dict[str, Any]] = {}
        for job in listed:
            text = json.dumps(job["parameters"])
            token = next((word for word in text.replace("/", "-").split("-") if word in self.orders), None)
            if token is None:
                self.violate(f"job {job['jobId']}: nobody asked for it")
            elif token in found:
                self.violate(f"{token}: two jobs on the server, {job['jobId']} and {found[token]['jobId']}")
            else:
                code = (job.get("jobInfo") or {}).get("exitCode")
                found[token] = {**job, "exit_code": code}
        return found

    async def _check_end(self, order: Order, job: dict[str, Any], ledger: Ledger) -> None:
        phase, code = job["phase"], job["exit_code"]
        name = f"{order.token} ({order.way}, {order.face})"
        if phase == "completed":
            if ledger.codes != [0] or not ledger.starts:
                self.violate(f"{name}: COMPLETED, but its ledger says {ledger}")
            answer = await self._answer(job)
            if answer.strip() != order.token:
                self.violate(f"{name}: COMPLETED with the result {answer!r}")
        elif phase == "error":
            words = (job.get("errorSummary") or {}).get("message", "")
            if code is None and not order.harmed and "could not be started" not in words:
                self.violate(f"{name}: ERROR without an exit code, and nothing harmed it: {words}")
            # 126: its log could not be opened. 2: the shell could not write to the ledger.
            if code is not None and code >= 0 and code not in (126, 2) and ledger.codes != [code]:
                self.violate(f"{name}: ERROR {code}, but its ledger says {ledger}")
            if code is not None and code < 0 and not order.harmed and not order.abort_asked:
                self.violate(f"{name}: ended by signal {-code}, and nobody sent one")
        elif phase == "aborted":
            if not order.abort_asked:
                self.violate(f"{name}: ABORTED, and nobody asked for that")
        else:
            self.violate(f"{name}: in the end {phase}")

    async def _answer(self, job: dict[str, Any]) -> str:
        found = next((result for result in job["results"] if str(result["uri"]).endswith("/answer")), None)
        if found is None:
            return "no such result"
        url = f"{self.world.url}/api/v1/job/result/{job['jobId']}/{found['id']}"
        async with self.world.session.get(url) as answer:
            return await answer.text()

    async def _check_sal(self) -> None:
        """Every accepted command gets its result, with identical content when it is told again."""
        mine = [order for order in self.orders.values() if order.face == "SAL" and order.accepted]
        for order in mine:
            try:
                await self.world.script.result(order.job_id, END_TIMEOUT)
            except TimeoutError:
                self.violate(f"{order.token}: no job_result over SAL")
                continue
            texts = {
                (each.exit_code, each.result)
                for each in self.world.script.results
                if each.job_id == order.job_id
            }
            if len(texts) > 1:
                self.violate(f"{order.token}: {len(texts)} different results over SAL")
            exit_code, text = next(iter(texts))
            phase = self.told_over_sal[order.token] = json.loads(text)["phase"]
            if (exit_code == 0) != (phase == "completed"):
                self.violate(f"{order.token}: exit code {exit_code} over SAL, phase {phase}")

    def _check_orphans(self) -> None:
        """Nothing that a job started runs any more."""
        for name in os.listdir("/proc"):
            if not name.isdigit():
                continue
            with contextlib.suppress(OSError):
                words = Path(f"/proc/{name}/cmdline").read_bytes().decode(errors="replace")
                token = next((token for token in self.orders if token in words), None)
                if token and "faults" not in words.split("\0")[1:3]:
                    self.violate(f"{token}: process {name} is left over: {words!r}")
