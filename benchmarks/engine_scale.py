# SPDX-License-Identifier: GPL-3.0-or-later
"""Many jobs at once on a private batch system: what submission, polling and ends cost.

``submit_per_s`` counts from the first request until the batch system has
all jobs. While they wait there, ``calls_per_poll`` is how many of the
system's commands one look at all jobs takes, and ``cpu_per_poll_s`` the CPU
time of OCPS for it. ``end_to_result_s`` is the time (median) from the
end of a job's script to its result, for a few jobs at a poll interval of
``poll_interval_s``.
"""

from __future__ import annotations

import asyncio
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

from tests.backends.batch.harness import Engine, configure, open_engine
from tests.backends.batch.slurm_cluster import SlurmCluster

from .common import parser, report

CLUSTERS = {"slurm": SlurmCluster}

POLL_INTERVAL = 0.5

POLLS = 10

FEW = 8


def count(target: Any, name: str, counts: dict[str, int]) -> None:
    """Count the calls of a method of an object."""
    method = getattr(target, name)

    def counted(*arguments: Any, **fields: Any) -> Any:
        counts[name] = counts.get(name, 0) + 1
        return method(*arguments, **fields)

    setattr(target, name, counted)


async def end_to_result(engine: Engine) -> float:
    """Run a job; return how long after the end of its script the engine knew it (s)."""
    job = await engine.run("date +%s.%N")
    log = engine.manager.workspaces.of(job.id).log.read_text()
    return float(job.end_time.timestamp() - float(log)) if job.end_time else float("nan")


async def measure(engine_name: str, jobs: int) -> dict[str, Any]:
    """Return the figures."""
    figures: dict[str, Any] = {"engine": engine_name, "jobs": jobs, "poll_interval_s": POLL_INTERVAL}
    with tempfile.TemporaryDirectory(prefix="b") as name:
        folder = Path(name)
        cluster = CLUSTERS[engine_name](folder / "c")
        try:
            fields = {
                "poll_interval": POLL_INTERVAL,
                "max_queued": jobs,
                "max_workers": jobs + FEW,
                "max_jobs_per_owner": 0,
            }
            async with open_engine(configure(cluster, folder, **fields)) as engine:
                delays = [await end_to_result(engine) for _ in range(FEW)]
                figures["end_to_result_s"] = round(statistics.median(delays), 3)
            held = configure(cluster, folder, backend_settings=cluster.held(), **fields)
            async with open_engine(held) as engine:
                backend = engine.manager.lane.backend
                started = time.perf_counter()
                submitted = await asyncio.gather(*(engine.submit("true") for _ in range(jobs)))
                figures["accepted_per_s"] = round(jobs / (time.perf_counter() - started), 1)
                for job in submitted:
                    while not (await engine.manager.get(job.id)).handle:
                        await asyncio.sleep(0.1)
                figures["submit_per_s"] = round(jobs / (time.perf_counter() - started), 1)
                counts: dict[str, int] = {}
                count(backend, "_look", counts)
                count(backend.system, "_run", counts)  # type: ignore[attr-defined]
                cpu = time.process_time()
                while counts.get("_look", 0) <= POLLS:
                    await asyncio.sleep(0.1)
                figures["cpu_per_poll_s"] = round((time.process_time() - cpu) / counts["_look"], 4)
                figures["calls_per_poll"] = round(counts["_run"] / counts["_look"], 2)
        finally:
            cluster.stop()
    return figures


def main() -> None:
    """Measure and print."""
    arguments = parser(__doc__)
    arguments.add_argument("--engine", choices=sorted(CLUSTERS), default="slurm", help="which batch system")
    arguments.add_argument("--jobs", type=int, default=1000, help="how many jobs")
    options = arguments.parse_args()
    report(asyncio.run(measure(options.engine, options.jobs)), as_json=options.json)


if __name__ == "__main__":
    main()
