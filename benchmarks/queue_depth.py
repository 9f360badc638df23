# SPDX-License-Identifier: GPL-3.0-or-later
"""10,000 simulated jobs in the queue of a CSC: what each costs, and whether its heart beats on.

``submit_per_s`` counts from the first command to the last CMD_INPROGRESS, a
few commands at a time; the costs per job are given for the first 100 and for
all, so that one sees whether they grow with the queue.
"""

from __future__ import annotations

import asyncio
import tempfile
import time
from pathlib import Path
from typing import Any

import psutil
import yaml
from lsst.dm.OCPS.testing import CscProcess, Script, private_bus
from lsst.ts import salobj

from .common import Heartbeats, cpu_seconds, parser, report

AT_A_TIME = 10
FEW, MANY = 100, 10_000


async def submit(script: Script, count: int) -> None:
    """Command so many jobs, and wait until each has its id."""
    left = iter(range(count))

    async def keep_commanding() -> None:
        for _ in left:
            await script.execute("true.yaml", timeout=60)

    await asyncio.gather(*(keep_commanding() for _ in range(AT_A_TIME)))


async def measure(folder: Path, many: int) -> dict[str, Any]:
    """Return the figures."""
    private_bus()
    instance = {"sal_index": 1, "max_workers": 1, "max_queued": 2 * many, "simulation_duration": 36000}
    (folder / "bench.yaml").write_text(yaml.safe_dump({"instances": [instance]}))
    async with CscProcess("1", "--simulate", "--configdir", str(folder)) as csc, Script.connect() as script:
        await script.set_state(salobj.State.ENABLED, "bench.yaml")
        await submit(script, 10)
        heart = Heartbeats(script.remote)
        figures: dict[str, Any] = {}
        process = psutil.Process(csc.pid)
        for count, name in ((FEW, "few"), (many - FEW, "many")):
            cpu, rss, started = cpu_seconds(csc.pid), process.memory_info().rss, time.perf_counter()
            await submit(script, count)
            figures[f"submit_per_s_{name}"] = round(count / (time.perf_counter() - started), 1)
            figures[f"cpu_ms_per_job_{name}"] = round((cpu_seconds(csc.pid) - cpu) / count * 1000, 2)
            figures[f"rss_kb_per_job_{name}"] = round((process.memory_info().rss - rss) / count / 1024, 1)
        # Idle with a full queue, the heart must beat as well.
        for _ in range(3):
            await asyncio.sleep(1)
        return {
            "submit_per_s": figures["submit_per_s_many"],
            "rss_kb_per_job": figures["rss_kb_per_job_many"],
            "heartbeat_max_gap_s": round(heart.max_gap, 3),
            **figures,
        }


def main() -> None:
    """Measure and print."""
    arguments = parser(__doc__)
    arguments.add_argument("--jobs", type=int, default=MANY, help="how many jobs")
    options = arguments.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        report(asyncio.run(measure(Path(folder), options.jobs)), as_json=options.json)


if __name__ == "__main__":
    main()
