# SPDX-License-Identifier: GPL-3.0-or-later
"""Short pipelines per minute with 1, 2 and 4 workers, against as many cold processes side by side.

Jobs are commanded over SAL all at once and counted when their results have
arrived; cold processes are started as soon as one ends.
"""

from __future__ import annotations

import asyncio
import tempfile
import time
from pathlib import Path

from .common import parser, report
from .pool import cold_run, execute, make_repo, running_ocps

WORKERS = (1, 2, 4)


async def pooled(folder: Path, repo: Path, workers: int, jobs: int) -> float:
    """Return the jobs per minute of a pool."""
    place = folder / str(workers)
    place.mkdir()
    async with running_ocps(place, repo, max_workers=workers) as (_, script):
        await execute(script, "oneQuantum")
        begin = time.monotonic()
        await asyncio.gather(*(execute(script, "oneQuantum") for _ in range(jobs)))
        return 60 * jobs / (time.monotonic() - begin)


async def cold(repo: Path, processes: int, runs: int) -> float:
    """Return the runs per minute of as many processes side by side."""
    free = asyncio.Semaphore(processes)

    async def run() -> None:
        async with free:
            await cold_run(repo, "oneQuantum")

    begin = time.monotonic()
    await asyncio.gather(*(run() for _ in range(runs)))
    return 60 * runs / (time.monotonic() - begin)


async def measure(jobs: int, runs: int) -> dict[str, float]:
    """Return all figures."""
    figures = {}
    with tempfile.TemporaryDirectory(prefix="ocps-bench-") as name:
        folder = Path(name)
        repo = make_repo(folder)
        for workers in WORKERS:
            fast = await pooled(folder, repo, workers, jobs)
            slow = await cold(repo, workers, runs)
            figures[f"per_minute_{workers}"] = round(fast, 1)
            figures[f"cold_per_minute_{workers}"] = round(slow, 1)
            figures[f"gain_{workers}"] = round(fast / slow, 2)
    return figures


def main() -> None:
    """Measure and report."""
    arguments = parser(__doc__)
    arguments.add_argument("--jobs", type=int, default=40, help="jobs of the pool each (default: 40)")
    arguments.add_argument("--runs", type=int, default=8, help="cold runs each (default: 8)")
    options = arguments.parse_args()
    report(asyncio.run(measure(options.jobs, options.runs)), as_json=options.json)


if __name__ == "__main__":
    main()
