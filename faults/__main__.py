# SPDX-License-Identifier: GPL-3.0-or-later
"""Run the fault campaign: ``make faults [SECONDS=] [SEED=]``."""

from __future__ import annotations

import argparse
import asyncio
import os
import random
import secrets
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp

from .injectors import Injectors
from .load import Load
from .oracle import Oracle
from .world import World

MAX_GAP = 10.0
"""Longest time (s) between two heartbeats; Watcher alarms after 15 s."""

SPARE = 40
"""By how many descriptors and threads a process may exceed a new one: connections and threads are kept."""


@dataclass
class Tally:
    """What was injected, and how it went."""

    injected: Counter[str] = field(default_factory=Counter)
    survived: Counter[str] = field(default_factory=Counter)
    worst: dict[str, float] = field(default_factory=dict)
    jobs: int = 0
    accepted: int = 0
    ends: Counter[str] = field(default_factory=Counter)
    gap: float = 0.0
    delay: float = 0.0
    violations: list[str] = field(default_factory=list)
    pushes: int = 0
    begin: float = field(default_factory=time.monotonic)

    @property
    def age(self) -> float:
        """How long (s) the campaign has run."""
        return time.monotonic() - self.begin

    def table(self) -> str:
        """Return the table of faults."""
        rows = [("fault", "injected", "survived", "worst recovery (s)")]
        rows += [
            (name, str(count), str(self.survived[name]), f"{self.worst.get(name, 0):.1f}")
            for name, count in sorted(self.injected.items())
        ]
        total = sum(self.injected.values())
        rows.append(
            (
                "all",
                str(total),
                str(sum(self.survived.values())),
                f"{max(self.worst.values(), default=0):.1f}",
            )
        )
        widths = [max(len(row[column]) for row in rows) for column in range(4)]
        lines = [
            "  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)) for row in rows
        ]
        lines.insert(1, "  ".join("-" * width for width in widths))
        ends = ", ".join(f"{count} {phase}" for phase, count in sorted(self.ends.items()))
        lines += [
            "",
            f"{self.accepted} jobs accepted, of {self.jobs} asked for; they ended: {ends};",
            f"longest heartbeat gap {self.gap:.1f} s; {self.pushes} pushes to Redis; {self.age:.0f} s in all",
        ]
        return "\n".join(lines)


async def heartbeats(world: World, tally: Tally) -> None:
    """Measure the longest gap between heartbeats of a CSC that nobody harms, by its own clock."""
    last: tuple[float, int] | None = None
    while True:
        data = await world.script.remote.evt_heartbeat.next(flush=False)
        sent, pid = data.private_sndStamp, world.csc.pid
        if last and last[1] == pid and not world.csc_harmed:
            tally.gap = max(tally.gap, sent - last[0])
        last = (sent, pid)
        world.csc_harmed = False


async def delays(tally: Tally) -> None:
    """Measure by how much the machine delays a process that only sleeps."""
    while True:
        start = time.monotonic()
        await asyncio.sleep(0.2)
        tally.delay = max(tally.delay, time.monotonic() - start - 0.2)


def holdings(process: asyncio.subprocess.Process | None) -> int:
    """Return how many descriptors and threads a process has."""
    assert process
    folder = Path(f"/proc/{process.pid}")
    return len(os.listdir(folder / "fd")) + len(os.listdir(folder / "task"))


async def inject(injectors: Injectors, group: str, end: float, tally: Tally, verbose: bool) -> None:
    """Inject the faults of one group: each kind once, whatever the dice say, then by chance."""
    oracle, chance = injectors.oracle, injectors.chance
    todo = list(injectors.groups[group])
    chance.shuffle(todo)
    while todo or (injectors.groups[group] and time.monotonic() < end):
        name = todo.pop() if todo else injectors.choose(group)
        before = len(oracle.violations)
        recovery = await injectors.inject(group, name)
        if recovery is None:
            # There was nothing to break just now.
            todo += [] if tally.injected[name] else [name]
            await asyncio.sleep(0.1)
            continue
        tally.injected[name] += 1
        tally.survived[name] += len(oracle.violations) == before
        tally.worst[name] = max(tally.worst.get(name, 0.0), recovery)
        if verbose:
            print(f"{tally.age:6.1f} s: {name}", flush=True)
        if not todo:
            await injectors.pause(group)


async def campaign(
    seconds: float,
    seed: int,
    folder: Path,
    repo: Path,
    tally: Tally,
    *,
    clients: int = 8,
    pause: float = 0.05,
    verbose: bool = False,
) -> None:
    """Break OCPS while it works; then mend everything and check every job.

    Parameters
    ----------
    seconds : `float`
        How long (s) to inject faults; each kind is injected once anyway.
    seed : `int`
        Seed of the dice.
    folder, repo : `pathlib.Path`
        As for `World`.
    tally : `Tally`
        Gets the figures.
    clients : `int`
        How many clients work with each server over HTTP.
    pause : `float`
        How long (s) each client waits after a job until it asks for the next.
    verbose : `bool`
        Whether to print each fault.
    """
    chance = random.Random(seed)
    world = World(folder, repo)
    try:
        await world.open()
        oracle = Oracle(world)
        tally.violations = oracle.violations
        load = Load(world, oracle, random.Random(chance.random()), pause)
        csc_held = holdings(world.csc.process)
        measuring = [asyncio.create_task(heartbeats(world, tally)), asyncio.create_task(delays(tally))]
        load.start(clients)
        try:
            await inject_all(world, oracle, chance, seconds, tally, verbose)
        finally:
            await load.stop()
        await world.answer()
        await world.enabled()
        await oracle.check()
        for task in measuring:
            task.cancel()
        await asyncio.gather(*measuring, return_exceptions=True)
        check_gap(oracle, tally.gap, tally.delay)
        check_held(oracle, "CSC", holdings(world.csc.process), csc_held)
        await check_servers(world, oracle)
        tally.jobs = len(oracle.orders)
        tally.accepted = sum(order.accepted or token in oracle.seen for token, order in oracle.orders.items())
        tally.pushes = len(oracle.pushes)
        tally.ends += Counter(each["phase"] for each in oracle.seen.values())
    finally:
        await world.close()


async def inject_all(
    world: World, oracle: Oracle, chance: random.Random, seconds: float, tally: Tally, verbose: bool
) -> None:
    """Inject the faults of all groups at the same time."""
    end = time.monotonic() + seconds
    async with asyncio.TaskGroup() as tasks:
        for group in Injectors(world, oracle, chance).groups:
            injectors = Injectors(world, oracle, random.Random(chance.random()))
            tasks.create_task(inject(injectors, group, end, tally, verbose))


async def check_servers(world: World, oracle: Oracle) -> None:
    """Compare each server's descriptors and threads with those of a new process."""
    # Connections of ours are none of theirs.
    await world.session.close()
    world.session = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=30))
    await asyncio.sleep(2)
    held = [holdings(server.process) for server in world.servers]
    for server in world.servers:
        await server.stop()
    await asyncio.gather(*(server.start() for server in world.servers))
    await asyncio.sleep(1)
    for server, old in zip(world.servers, held, strict=True):
        check_held(oracle, server.name, old, holdings(server.process))


def check_gap(oracle: Oracle, gap: float, delay: float) -> None:
    """Compare the longest time (s) between heartbeats with what is allowed on so slow a machine."""
    if gap > MAX_GAP + delay:
        oracle.violate(f"a gap of {gap:.1f} s between heartbeats of a CSC that nobody harmed")


def check_held(oracle: Oracle, name: str, old: int, new: int) -> None:
    """Compare the descriptors and threads of a quiet process with those of a new one."""
    if old > new + SPARE:
        oracle.violate(f"{name}: {old} descriptors and threads when quiet, a new one {new}")


def main() -> int:
    """Run from the command line; return 1 if an invariant does not hold."""
    parser = argparse.ArgumentParser(
        description="Break OCPS on purpose while it works, and account for every job."
    )
    parser.add_argument("--seconds", type=float, default=60, help="how long to inject faults (default: 60)")
    parser.add_argument("--seed", type=int, default=None, help="seed of the dice (default: a new one)")
    parser.add_argument("--verbose", action="store_true", help="print each fault")
    arguments = parser.parse_args()
    seed = secrets.randbelow(10**6) if arguments.seed is None else arguments.seed
    print(f"fault campaign: {arguments.seconds:g} s, seed {seed}", flush=True)
    tally = Tally()
    folder = Path(tempfile.mkdtemp(prefix="ocps-faults-"))
    repo = folder / "repo"
    subprocess.run([sys.executable, "-m", "democam.make_repo", str(repo)], check=True)
    try:
        asyncio.run(campaign(arguments.seconds, seed, folder, repo, tally, verbose=arguments.verbose))
    finally:
        print(tally.table())
    if not tally.violations:
        shutil.rmtree(folder, ignore_errors=True)
    for violation in tally.violations:
        print(f"VIOLATION: {violation}")
    print(
        "every invariant held"
        if not tally.violations
        else f"{len(tally.violations)} violations; files: {folder}"
    )
    return 1 if tally.violations else 0


if __name__ == "__main__":
    sys.exit(main())
