# SPDX-License-Identifier: GPL-3.0-or-later
"""Short pipelines per minute with 1, 2 and 4 workers, against as many cold processes side by side.

Jobs are commanded over SAL all at once and counted when their results have
arrived; cold processes are started as soon as one ends. Both take turns, so
that they meet the same moods of the machine; ``gain`` is the median of the
ratios. ``cpu_s`` and ``cold_cpu_s`` are CPU times per pipeline. Figures with
``pg_`` are those of a repository whose registry is on PostgreSQL, on this
machine; the others are on SQLite.
"""

from __future__ import annotations

import asyncio
import contextlib
import resource
import shutil
import statistics
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from lsst.dm.OCPS.testing import Script

from tests.postgresql import postgresql_server

from .common import parser, report
from .pool import cold_run, cpu_of_job, execute, make_repo, running_ocps

WORKERS = (1, 2, 4)
DATABASES = {"sqlite": "", "postgresql": "pg_"}


async def pooled(script: Script, folder: Path, jobs: int) -> tuple[float, float]:
    """Return the jobs per minute of a pool, and the CPU time (s) of each."""
    begin = time.monotonic()
    results = await asyncio.gather(*(execute(script, "oneQuantum") for _ in range(jobs)))
    took = time.monotonic() - begin
    return 60 * jobs / took, statistics.median(cpu_of_job(folder, result["job_id"]) for result in results)


async def cold(repo: Path, processes: int, runs: int) -> tuple[float, float]:
    """Return the runs per minute of as many processes side by side, and the CPU time (s) of each."""
    free = asyncio.Semaphore(processes)

    async def run() -> None:
        async with free:
            await cold_run(repo, "oneQuantum")

    before, begin = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    await asyncio.gather(*(run() for _ in range(runs)))
    took, after = time.monotonic() - begin, resource.getrusage(resource.RUSAGE_CHILDREN)
    used = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return 60 * runs / took, used / runs


@contextlib.contextmanager
def repository(database: str, folder: Path) -> Iterator[Path]:
    """Make a repository on a database."""
    if database == "sqlite":
        yield make_repo(folder)
        return
    programs = [*Path("/usr/lib/postgresql").glob("*/bin/postgres")]
    program = shutil.which("postgres") or (str(sorted(programs)[-1]) if programs else None)
    if program is None:
        raise SystemExit("PostgreSQL is not installed (make services); without it: --databases sqlite")
    with postgresql_server(Path(program), fsync=True) as url:
        yield make_repo(folder, registry_db=url)


async def measure(databases: list[str], jobs: int, runs: int, rounds: int) -> dict[str, float]:
    """Return all figures."""
    figures: dict[str, float] = {}
    for database in databases:
        with tempfile.TemporaryDirectory(prefix="ocps-bench-") as name, contextlib.ExitStack() as stack:
            folder = Path(name)
            repo = stack.enter_context(repository(database, folder))
            for workers in WORKERS:
                place = folder / str(workers)
                place.mkdir()
                fast, slow = [], []
                async with running_ocps(place, repo, max_workers=workers) as (_, script):
                    await execute(script, "oneQuantum")
                    for _ in range(rounds):
                        slow.append(await cold(repo, workers, max(runs, workers)))
                        fast.append(await pooled(script, place, jobs))
                gains = [ours / theirs for (ours, _), (theirs, _) in zip(fast, slow, strict=True)]
                found = {
                    "per_minute": round(statistics.median(rate for rate, _ in fast), 1),
                    "cold_per_minute": round(statistics.median(rate for rate, _ in slow), 1),
                    "gain": round(statistics.median(gains), 2),
                    "cpu_s": round(statistics.median(used for _, used in fast), 3),
                    "cold_cpu_s": round(statistics.median(used for _, used in slow), 3),
                }
                figures |= {
                    f"{DATABASES[database]}{figure}_{workers}": value for figure, value in found.items()
                }
    return figures | {"jobs": jobs, "runs": runs, "rounds": rounds}


def main() -> None:
    """Measure and report."""
    arguments = parser(__doc__)
    arguments.add_argument("--jobs", type=int, default=24, help="jobs of the pool each time (default: 24)")
    arguments.add_argument("--runs", type=int, default=4, help="cold runs each time (default: 4)")
    arguments.add_argument("--rounds", type=int, default=3, help="how often each (default: 3)")
    arguments.add_argument(
        "--databases",
        default=",".join(DATABASES),
        type=lambda text: text.split(","),
        help="of sqlite and postgresql, with a comma between them (default: both)",
    )
    options = arguments.parse_args()
    figures = asyncio.run(measure(options.databases, options.jobs, options.runs, options.rounds))
    report(figures, as_json=options.json)


if __name__ == "__main__":
    main()
