# SPDX-License-Identifier: GPL-3.0-or-later
"""How long from execute to job_result, against the same pipeline typed by hand.

Alternating pairs, so that both meet the same moods of the machine; medians.
The time of OCPS includes SAL, its queue and store, and the retrieval of the
outputs, which the cold run does not do. On a busy machine the CPU times tell
more: those of the job's processes, and of the cold process.
"""

from __future__ import annotations

import asyncio
import statistics
import tempfile
import time
from pathlib import Path

from lsst.dm.OCPS.testing import Script

from .common import parser, report
from .pool import cold_run, cpu_of_job, execute, make_repo, running_ocps


async def pairs(script: Script, folder: Path, repo: Path, pipeline: str, count: int) -> dict[str, float]:
    """Return the medians (s) of cold runs and of ``execute``, and their ratios."""
    times: dict[str, list[float]] = {"cold_s": [], "execute_s": [], "cold_cpu_s": [], "execute_cpu_s": []}
    for _ in range(count):
        begin = time.monotonic()
        times["cold_cpu_s"].append(await cold_run(repo, pipeline))
        times["cold_s"].append(time.monotonic() - begin)
        begin = time.monotonic()
        result = await execute(script, pipeline)
        times["execute_s"].append(time.monotonic() - begin)
        times["execute_cpu_s"].append(cpu_of_job(folder, result["job_id"]))
    found = {name: statistics.median(values) for name, values in times.items()}
    found["ratio"] = found["execute_s"] / found["cold_s"]
    found["cpu_ratio"] = found["execute_cpu_s"] / found["cold_cpu_s"]
    return {name: round(value, 3) for name, value in found.items()}


async def measure(count: int) -> dict[str, float]:
    """Return all figures (s)."""
    with tempfile.TemporaryDirectory(prefix="ocps-bench-") as name:
        folder = Path(name)
        repo = make_repo(folder)
        async with running_ocps(folder, repo) as (_, script):
            # The first of each registers dataset types, which later ones need not.
            for pipeline in ("oneQuantum", "bias"):
                await execute(script, pipeline)
            one = await pairs(script, folder, repo, "oneQuantum", count)
            bias = await pairs(script, folder, repo, "bias", count)
    return {**one, **{f"bias_{name}": value for name, value in bias.items()}, "pairs": count}


def main() -> None:
    """Measure and report."""
    arguments = parser(__doc__)
    arguments.add_argument("--pairs", type=int, default=9, help="runs of each (default: 9)")
    options = arguments.parse_args()
    report(asyncio.run(measure(options.pairs)), as_json=options.json)


if __name__ == "__main__":
    main()
