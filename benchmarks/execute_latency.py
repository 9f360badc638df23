# SPDX-License-Identifier: GPL-3.0-or-later
"""How long from execute to job_result, against the same pipeline typed by hand.

Alternating pairs, so that both meet the same moods of the machine; medians.
The time of OCPS includes SAL, its queue and store, and the retrieval of the
outputs, which the cold run does not do.
"""

from __future__ import annotations

import asyncio
import statistics
import tempfile
import time
from pathlib import Path

from lsst.dm.OCPS.testing import Script

from .common import parser, report
from .pool import cold_run, execute, make_repo, running_ocps


async def pairs(script: Script, repo: Path, pipeline: str, count: int) -> tuple[float, float]:
    """Return the medians (s) of cold runs and of ``execute``."""
    cold, warm = [], []
    for _ in range(count):
        begin = time.monotonic()
        await cold_run(repo, pipeline)
        cold.append(time.monotonic() - begin)
        begin = time.monotonic()
        await execute(script, pipeline)
        warm.append(time.monotonic() - begin)
    return statistics.median(cold), statistics.median(warm)


async def measure(count: int) -> dict[str, float]:
    """Return all figures (s)."""
    with tempfile.TemporaryDirectory(prefix="ocps-bench-") as name:
        folder = Path(name)
        repo = make_repo(folder)
        async with running_ocps(folder, repo) as (_, script):
            # The first of each registers dataset types, which later ones need not.
            for pipeline in ("oneQuantum", "bias"):
                await execute(script, pipeline)
            cold, warm = await pairs(script, repo, "oneQuantum", count)
            bias_cold, bias_warm = await pairs(script, repo, "bias", count)
    return {
        "cold_s": round(cold, 3),
        "execute_s": round(warm, 3),
        "ratio": round(warm / cold, 3),
        "bias_cold_s": round(bias_cold, 3),
        "bias_execute_s": round(bias_warm, 3),
        "bias_ratio": round(bias_warm / bias_cold, 3),
        "pairs": count,
    }


def main() -> None:
    """Measure and report."""
    arguments = parser(__doc__)
    arguments.add_argument("--pairs", type=int, default=9, help="runs of each (default: 9)")
    options = arguments.parse_args()
    report(asyncio.run(measure(options.pairs)), as_json=options.json)


if __name__ == "__main__":
    main()
