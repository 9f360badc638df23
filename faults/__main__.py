# SPDX-License-Identifier: GPL-3.0-or-later
"""Run the fault campaign: ``make faults [SECONDS=] [SEED=]``."""

from __future__ import annotations

import argparse
import asyncio
import os
import random
import secrets
import shutil
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


@dataclass
class Tally:
    """What was injected, and how it went."""

    injected: Counter[str] = field(default_factory=Counter)
    survived: Counter[str] = field(default_factory=Counter)
    worst: dict[str, float] = field(default_factory=dict)
    jobs: int = 0
    ends: Counter[str] = field(default_factory=Counter)
    gap: float = 0.0
    violations: list[str] = field(default_factory=list)
    leftover: str = ""

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
            f"{self.jobs} jobs asked for; they ended: {ends}; longest heartbeat gap {self.gap:.1f} s",
        ]
        return "\n".join(lines)


async def heartbeats(world: World, tally: Tally) -> None:
    """Measure the longest gap between heartbeats of a CSC that nobody harms."""
    last: tuple[float, int] | None = None
    while True:
        await world.script.remote.evt_heartbeat.next(flush=False)
        pid = world.csc.pid if world.csc else 0
        present = time.monotonic()
        if last and last[1] == pid and not world.csc_harmed:
            tally.gap = max(tally.gap, present - last[0])
        last = (present, pid)
        world.csc_harmed = False


async def descriptors(world: World) -> int:
    """Return how many descriptors and threads the server has, when it is quiet."""
    assert world.server
    await world.session.close()
    world.session = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=30))
    await asyncio.sleep(2)
    folder = Path(f"/proc/{world.server.pid}")
    return len(os.listdir(folder / "fd")) + len(os.listdir(folder / "task"))


async def campaign(seconds: float, seed: int, folder: Path, tally: Tally, verbose: bool) -> None:
    """Break OCPS for so long (s); then mend everything and check every job."""
    chance = random.Random(seed)
    world = World(folder)
    await world.open()
    oracle = Oracle(world)
    injectors = Injectors(world, oracle, random.Random(chance.random()))
    load = Load(world, oracle, random.Random(chance.random()))
    beating = asyncio.create_task(heartbeats(world, tally))
    load.start(http=5, sal=2)
    begin = time.monotonic()
    end = begin + seconds
    # Each kind once, whatever the dice say; then by chance.
    todo = list(injectors.all)
    chance.shuffle(todo)
    while time.monotonic() < end or todo:
        name = todo.pop() if todo else injectors.choose()[0]
        before, started = len(oracle.violations), time.monotonic()
        if not await injectors.all[name][1]():
            if name in (
                "job killed",
                "job stopped",
                "supervisor killed",
                "supervisor stopped",
                "store locked",
            ):
                # Nothing ran just now.
                todo += [name] if not tally.injected[name] else []
            await asyncio.sleep(0.1)
            continue
        await world.answers()
        # From when it was mended, where that is told, until the server answers.
        recovery = time.monotonic() - max(started, injectors.lifted)
        tally.injected[name] += 1
        if verbose:
            print(f"{time.monotonic() - begin:6.1f} s: {name}", flush=True)
        tally.survived[name] += len(oracle.violations) == before
        tally.worst[name] = max(tally.worst.get(name, 0.0), recovery)
        await asyncio.sleep(chance.uniform(0.05, 0.4))
    await load.stop()
    await world.settled()
    await oracle.check()
    beating.cancel()
    await asyncio.gather(beating, return_exceptions=True)
    tally.jobs += len(oracle.orders)
    tally.ends += Counter(each["phase"] for each in oracle.seen.values())
    old = await descriptors(world)
    await world.stop_server()
    await world.start_server()
    new = await descriptors(world)
    if old > new + 25:
        oracle.violate(f"the server has {old} descriptors and threads when quiet, a new one {new}")
    tally.violations += oracle.violations
    await world.close()


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
    try:
        asyncio.run(campaign(arguments.seconds, seed, folder, tally, arguments.verbose))
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
