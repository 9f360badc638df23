# SPDX-License-Identifier: GPL-3.0-or-later
"""What OCPS itself costs per job, and the memory of the preloaded pool.

``cpu_s_per_job`` is the CPU time of the OCPS process (SAL, queue, store,
reading results); ``zygote_cpu_s_per_job`` that of the preloaded process,
which starts the jobs. Neither holds anything of the pipelines.
``idle_cpu_fraction`` is of one core. Memory is PSS: pages that are shared
count in parts.
"""

from __future__ import annotations

import asyncio
import json
import tempfile
import time
from pathlib import Path

import psutil
from lsst.dm.OCPS.testing import Script

from .common import parser, report
from .pool import execute, make_repo, running_ocps

IDLE_SECONDS = 5.0


def own_cpu(process: psutil.Process) -> float:
    """Return the CPU time (s) that a process has used itself."""
    times = process.cpu_times()
    return float(times.user + times.system)


def pss_mb(process: psutil.Process) -> float:
    """Return the memory of a process (MB); that of the preloaded process only root may see."""
    return round(process.memory_full_info().pss / 1e6, 1)


async def memory_of_child(script: Script, jobs: Path) -> float:
    """Return the memory (MB) of a job's process while its task runs."""
    execution = await script.execute(
        "$DEMOCAM_DIR/pipelines/misbehave.yaml",
        config="--register-dataset-types -c misbehave:how=hang -c misbehave:duration=60",
    )
    folder = jobs / execution.job_id
    group = jobs.parent / "engine" / execution.job_id / "group.json"
    log = folder / "output" / "ocps.log"
    while not log.exists() or "about to misbehave" not in log.read_text():
        await asyncio.sleep(0.05)
    memory = pss_mb(psutil.Process(json.loads(group.read_text())["pid"]))
    await script.remote.cmd_abort_job.set_start(job_id=execution.job_id, timeout=10)
    return memory


async def measure(jobs: int) -> dict[str, float]:
    """Return all figures."""
    with tempfile.TemporaryDirectory(prefix="ocps-bench-") as name:
        folder = Path(name)
        repo = make_repo(folder)
        async with running_ocps(folder, repo) as (csc, script):
            ocps = psutil.Process(csc.pid)
            await execute(script, "oneQuantum")
            (zygote,) = [child for child in ocps.children() if "zygote/main.py" in str(child.cmdline())]
            idle, begin = own_cpu(ocps), time.monotonic()
            await asyncio.sleep(IDLE_SECONDS)
            idle = (own_cpu(ocps) - idle) / (time.monotonic() - begin)
            before, zygote_before, begin = own_cpu(ocps), own_cpu(zygote), time.monotonic()
            for _ in range(jobs):
                await execute(script, "oneQuantum")
            elapsed = time.monotonic() - begin
            used = own_cpu(ocps) - before - idle * elapsed
            return {
                "cpu_s_per_job": round(used / jobs, 4),
                "zygote_cpu_s_per_job": round((own_cpu(zygote) - zygote_before) / jobs, 4),
                "idle_cpu_fraction": round(idle, 4),
                "ocps_pss_mb": pss_mb(ocps),
                "zygote_pss_mb": pss_mb(zygote),
                "child_pss_mb": await memory_of_child(script, folder / "work" / "jobs"),
                "jobs": jobs,
            }


def main() -> None:
    """Measure and report."""
    arguments = parser(__doc__)
    arguments.add_argument("--jobs", type=int, default=40, help="how many jobs (default: 40)")
    options = arguments.parse_args()
    report(asyncio.run(measure(options.jobs)), as_json=options.json)


if __name__ == "__main__":
    main()
