# SPDX-License-Identifier: GPL-3.0-or-later
"""Jobs in flight at a UWS server: how the CSC bears hundreds of them.

A stand-in for the server (``--dialect ours``: an OCPS whose jobs only last,
behind a proxy), the CSC and this remote are a process each. Jobs are
commanded, run for a while, and end one after the other.

``requests_per_s`` and ``cpu_fraction`` (of one core) are those of the CSC
while all jobs run (``in_flight`` is how many at the end of that time). The
heartbeat's gap is the longest from the first command to the last result.
``end_to_result`` is from the end at the server to the arrival of
``job_result``; it cannot be shorter than a server takes to answer, which is
not asked again before it has.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import yaml
from lsst.dm.OCPS.testing import CscProcess, private_bus
from lsst.ts import salobj

from .common import Heartbeats, Measured, cpu_seconds, parser, percentile, report

ROOT = Path(__file__).resolve().parents[1]
STANDIN = ROOT / "tests" / "backends" / "uws" / "standin.py"

COMMANDS_AT_A_TIME = 10
"""How many commands wait for their first answer at a time: as many as ScriptQueues would send."""


@asynccontextmanager
async def stand_in(options: argparse.Namespace, duration: float) -> AsyncIterator[str]:
    """Run a stand-in; give its address."""
    arguments = ["--duration", str(duration), "--spread", str(options.window)]
    arguments += ["--delay", str(options.server_delay)]
    if options.dialect == "ours":
        command = ["-m", "benchmarks.own_server", *arguments, "--cut", str(options.cut)]
    else:
        command = [str(STANDIN), *arguments, "--queued", "1"]
    process = await asyncio.create_subprocess_exec(
        sys.executable, *command, stdout=asyncio.subprocess.PIPE, cwd=ROOT
    )
    try:
        assert process.stdout is not None
        yield yaml.safe_load(await process.stdout.readline())["url"]
    finally:
        process.send_signal(signal.SIGINT)
        await process.wait()


async def state_of(url: str) -> dict[str, Any]:
    """Return what the stand-in has counted."""
    async with (
        aiohttp.ClientSession() as session,
        session.get(f"{url.removesuffix('/api/v1')}/standin") as answer,
    ):
        return dict(await answer.json())


def write_configuration(folder: Path, url: str, options: argparse.Namespace) -> None:
    """Write a configuration package with one configuration, ``bench``."""
    instance = {
        "sal_index": 1,
        "instance": "LATISS",
        "url": url,
        "poll_interval": options.poll_interval,
        "butler": "/repo/LATISS",
        "input_collection": "LATISS/defaults",
        "output_glob": "*",
        "work_dir": str(folder / "work"),
    }
    (folder / "bench.yaml").write_text(yaml.safe_dump({"instances": [instance]}))
    (folder / "_labels.yaml").write_text("bench: bench.yaml\n")


async def command(script: Measured, jobs: int) -> list[float]:
    """Command all jobs; return how long each took to be in progress (s)."""
    waits = []
    numbers = iter(range(jobs))

    async def send() -> None:
        for _ in numbers:
            begun = time.monotonic()
            await script.execute("$CP_PIPE_DIR/pipelines/bias.yaml", timeout=60, data_query="exposure=5")
            waits.append(time.monotonic() - begun)

    await asyncio.gather(*(send() for _ in range(COMMANDS_AT_A_TIME)))
    return waits


async def all_accepted(url: str, jobs: int) -> None:
    """Wait until the server has every job."""
    while (await state_of(url))["requests"].get("PUT", 0) < jobs:
        await asyncio.sleep(0.5)
    # The last answers, and the first poll with all of them.
    await asyncio.sleep(2)


async def measure(options: argparse.Namespace, folder: Path, url: str) -> dict[str, Any]:
    """Run the benchmark; return its figures."""
    write_configuration(folder, url, options)
    log = Path(options.log) if options.log else None
    async with CscProcess("1", "--configdir", str(folder), log=log) as csc, Measured.connect() as script:
        assert isinstance(script, Measured)
        await script.set_state(salobj.State.ENABLED, "bench")
        heartbeats = Heartbeats(script.remote)
        waits = await command(script, options.jobs)
        await all_accepted(url, options.jobs)
        before, cpu, begun = await state_of(url), cpu_seconds(csc.pid), time.monotonic()
        await asyncio.sleep(options.window)
        cpu, took, after = cpu_seconds(csc.pid) - cpu, time.monotonic() - begun, await state_of(url)
        in_flight = options.jobs - sum(when > 0 for when in after["ended"].values())
        while len(script.arrived) < options.jobs:
            await asyncio.sleep(0.2)
        ended = (await state_of(url))["ended"]
    requests = sum(after["requests"].values()) - sum(before["requests"].values())
    late = [script.arrived[run_id] - when for run_id, when in ended.items()]
    return {
        "requests_per_s": round(requests / took, 2),
        "cpu_fraction": round(cpu / took, 3),
        "heartbeat_max_gap_s": round(heartbeats.max_gap, 3),
        "inprogress_p95_s": round(percentile(waits, 95), 3),
        "end_to_result_median_s": round(statistics.median(late), 3),
        "in_flight": in_flight,
        "inprogress_median_s": round(statistics.median(waits), 3),
        "end_to_result_p95_s": round(percentile(late, 95), 3),
        "jobs": options.jobs,
        "poll_interval_s": options.poll_interval,
        "server_delay_s": options.server_delay,
        "dialect": options.dialect,
        "cut_s": options.cut,
    }


async def main() -> None:
    """Run as the command line says."""
    arguments = parser(__doc__)
    arguments.add_argument("--jobs", type=int, default=500, help="jobs in flight")
    arguments.add_argument("--dialect", choices=["rubin", "ours"], default="rubin", help="what the server is")
    arguments.add_argument("--server-delay", type=float, default=0.0, help="how long each answer takes (s)")
    arguments.add_argument("--cut", type=float, default=0.0, help="cut the change stream so often (s); ours")
    arguments.add_argument("--poll-interval", type=float, default=1.0, help="how often to ask (s)")
    arguments.add_argument("--window", type=float, default=20.0, help="how long all run, then end (s)")
    arguments.add_argument("--log", default="", help="file for the log of the CSC")
    options = arguments.parse_args()
    private_bus()
    # Longer than it takes until the last is there and has been watched.
    duration = options.window + 10 + options.jobs * (0.02 + options.server_delay / 14)
    with tempfile.TemporaryDirectory(prefix="ocps-in-flight-") as folder:
        async with stand_in(options, duration) as url:
            figures = await measure(options, Path(folder), url)
    report(figures, as_json=options.json)


if __name__ == "__main__":
    os.environ.setdefault("PYTHONUNBUFFERED", "1")
    asyncio.run(main())
