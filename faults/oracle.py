# SPDX-License-Identifier: GPL-3.0-or-later
"""The oracle: compares what OCPS says of each job with what the job wrote itself."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import secrets
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import yaml

from .world import World

END_TIMEOUT = 300.0
"""How long (s) all jobs may take to end when nothing is broken any more."""

ENDED = frozenset({"completed", "error", "aborted", "archived"})

ANSWER = re.compile(r"/answer$|ledgerAnswer")
"""The URI of the result of a job that completes, be it a script or a pipeline."""

REDIS_KEY = "ocps-faults"
"""Where index 101 pushes to."""


@dataclass
class Order:
    """A job that was asked for, and what became of the request."""

    token: str
    way: str
    code: int
    face: str
    server: str = ""
    """Name of the server that is to run it."""
    job_id: str = ""
    accepted: bool = False
    refused: str = ""
    abort_asked: bool = False
    deleted: bool = False
    gone: bool = False
    """Whether its deletion was acknowledged."""
    harmed: bool = False
    """Whether its process or its supervisor was killed or stopped on purpose."""
    over: bool = False
    """Whether it is known that it does not run any more."""


@dataclass
class Ledger:
    """What one job wrote."""

    starts: list[int] = field(default_factory=list)
    codes: list[int] = field(default_factory=list)


UNCONFIRMED = "the backend did not confirm within"
"""What OCPS says of an aborted job about which it could not hear from the server."""


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
        self.unconfirmed: set[str] = set()
        """Jobs that were aborted over SAL while it was not known what the server did."""
        self.pushes: dict[str, str] = {}
        """What was given to Redis, and what the CSC said: ``done``, ``failed`` or nothing."""
        self.violations: list[str] = []

    def new(self, way: str, code: int, face: str) -> Order:
        """Return a new job to ask for."""
        order = Order(secrets.token_hex(6), way, code, face)
        self.orders[order.token] = order
        return order

    def place(self, order: Order, duration: float) -> str:
        """Return the argument of a job."""
        return f"{self.world.ledger}/{order.token}-{duration:g}-{order.code}-{order.way}.yaml"

    def read(self, token: str, folder: Path | None = None) -> Ledger:
        """Return what a job wrote; ``folder`` is where, if not in the ledger of the campaign."""
        found = Ledger()
        with contextlib.suppress(FileNotFoundError):
            for line in ((folder or self.world.ledger) / token).read_text().splitlines():
                word, _, number = line.partition(" ")
                (found.starts if word == "start" else found.codes).append(int(number))
        return found

    def running(self) -> list[tuple[Order, int]]:
        """Return the jobs that run, by their ledgers, with their process ids."""
        found = []
        for token, order in self.orders.items():
            if order.over or order.harmed or token in self.seen:
                continue
            ledger = self.read(token)
            if ledger.codes:
                order.over = True
            elif ledger.starts and Path(f"/proc/{ledger.starts[-1]}").exists():
                found.append((order, ledger.starts[-1]))
        return found

    def violate(self, words: str) -> None:
        """Note that an invariant does not hold."""
        print(f"VIOLATION: {words}", flush=True)
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
            if order.gone:
                self.violate(f"{order.token}: deleted, and still there")
            self.compare(order, job, "at the end")
            told = self.told_over_sal.get(order.token, job["phase"])
            # OCPS had said that the job may have gone on at a server that could not be reached.
            doubtful = order.token in self.unconfirmed and order.abort_asked
            if told != job["phase"] and not doubtful:
                self.violate(f"{order.token}: over SAL {told}, on the server {job['phase']}")
            await self.check_end(order, job, ledger)
        await self._check_pushes()
        self.violations += self.world.bystanders.harm()
        self._check_orphans()

    async def _all_ended(self) -> dict[str, dict[str, Any]]:
        """Return the record of each job by its token, from all servers."""
        jobs: dict[str, dict[str, Any]] = {}
        for server in self.world.servers:
            for token, job in (await self.ended_on(server.url)).items():
                if token in jobs:
                    self.violate(f"{token}: on two servers, {job['jobId']} and {jobs[token]['jobId']}")
                jobs[token] = {**job, "url": server.url}
        return jobs

    async def ended_on(self, url: str) -> dict[str, dict[str, Any]]:
        """Return a server's record of each job by its token, when all have ended or had time to end."""
        begin = time.monotonic()
        while True:
            listed = await self._listed(url)
            if all(job["phase"] in ENDED for job in listed) or time.monotonic() > begin + END_TIMEOUT:
                return self._by_token(listed)
            await asyncio.sleep(0.2)

    async def _listed(self, url: str) -> list[dict[str, Any]]:
        """Return the records of all jobs of a server."""
        async with self.world.session.get(f"{url}/api/v1/job", timeout=aiohttp.ClientTimeout(120)) as answer:
            answer.raise_for_status()
            listed: list[dict[str, Any]] = await answer.json()
            return listed

    def _by_token(self, listed: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
        """Return records by the tokens in their parameters."""
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

    async def check_image(
        self, url: str, before: dict[str, dict[str, Any] | None], started: set[str], scratch: Path
    ) -> None:
        """Check a server on a copy of the work directory.

        Parameters
        ----------
        url : `str`
            The server.
        before : `dict`
            The jobs that had been accepted when the copy was taken, and what
            was told of those that had ended.
        started : `set` [`str`]
            Those that had begun to run.
        scratch : `pathlib.Path`
            The ledger of what ran on the copy.
        """
        jobs = await self.ended_on(url)
        for token, told in before.items():
            job = jobs.get(token)
            if job is None:
                # It may have been deleted before the copy was taken.
                if not self.orders[token].deleted:
                    self.violate(f"{token}: accepted, and not in a crash image that was taken later")
            elif told and {name: job.get(name) for name in told} != told:
                self.violate(f"{token}: told {told}, and in a later crash image {job['phase']}")
        for token, job in jobs.items():
            ledger = self.read(token, scratch)
            if len(ledger.starts) > 1 or (ledger.starts and token in started):
                self.violate(f"{token}: executed again on a crash image")
            if job["phase"] not in ENDED:
                self.violate(f"{token}: does not end on a crash image: {job['phase']}")
            if job["phase"] == "completed":
                codes = ledger.codes or self.read(token).codes
                answer = await self._answer({**job, "url": url})
                if codes != [0] or answer.strip() != token:
                    self.violate(f"{token}: COMPLETED on a crash image, codes {codes}, result {answer!r}")

    async def check_end(self, order: Order, job: dict[str, Any], ledger: Ledger) -> None:
        phase, code = job["phase"], job["exit_code"]
        name = f"{order.token} ({order.way}, {order.face})"
        if phase == "completed":
            if ledger.codes != [0] or not ledger.starts:
                self.violate(f"{name}: COMPLETED, but its ledger says {ledger}")
            answer = await self._answer(job)
            # A pipeline's result is YAML, in which a token that is all digits stands in quotes.
            written = yaml.safe_dump({"token": order.token}) if order.way == "pipeline" else order.token
            if answer.strip() != written.strip():
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
        found = next((result for result in job["results"] if ANSWER.search(str(result["uri"]))), None)
        if found is None:
            return "no such result"
        url = f"{job['url']}/api/v1/job/result/{job['jobId']}/{found['id']}"
        async with self.world.session.get(url) as answer:
            if answer.status != 404:
                answer.raise_for_status()
            return await answer.text()

    async def _check_sal(self) -> None:
        """Every accepted command gets its result, with identical content when it is told again."""
        mine = [order for order in self.orders.values() if order.face == "SAL" and order.accepted]
        for order in mine:
            try:
                await self.world.script.result(order.job_id, END_TIMEOUT)
            except TimeoutError:
                self.violate(f"{order.token}: no job_result over SAL")
        told: dict[str, set[tuple[int, str]]] = {}
        for each in self.world.script.results:
            told.setdefault(each.job_id, set()).add((each.exit_code, each.result))
        for order in mine:
            if order.job_id in told:
                self._check_told(order, told[order.job_id])

    def _check_told(self, order: Order, texts: set[tuple[int, str]]) -> None:
        """What SAL says of a job is said once or identically, and agrees with itself."""
        if len(texts) > 1:
            self.violate(f"{order.token}: {len(texts)} different results over SAL")
        exit_code, text = next(iter(texts))
        document = json.loads(text)
        phase = self.told_over_sal[order.token] = document["phase"]
        if phase == "aborted" and UNCONFIRMED in (document.get("errorSummary") or {}).get("message", ""):
            self.unconfirmed.add(order.token)
        if (exit_code == 0) != (phase == "completed"):
            self.violate(f"{order.token}: exit code {exit_code} over SAL, phase {phase}")

    async def _check_pushes(self) -> None:
        """What was acknowledged is in Redis exactly once, anything else at most once."""
        if not self.world.redis:
            return
        counts = Counter(await self.world.redis.values(REDIS_KEY))
        for token in counts.keys() - self.pushes.keys():
            self.violate(f"{token}: in Redis, and nobody asked for it")
        for token, answer in self.pushes.items():
            if counts[token] > 1 or (answer == "done" and not counts[token]):
                self.violate(f"{token}: {answer or 'not answered'}, and {counts[token]} times in Redis")

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
