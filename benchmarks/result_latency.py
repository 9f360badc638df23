# SPDX-License-Identifier: GPL-3.0-or-later
"""From the end of a job's process to its ``job_result`` at the remote.

The job writes the time as the last thing that it does, so the few
milliseconds in which its process ends count too.
"""

from __future__ import annotations

import asyncio
import json
import statistics
import tempfile
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import yaml
from democam.make_repo import make_repo
from lsst.dm.OCPS.testing import CscProcess, private_bus
from lsst.ts import salobj

from .common import Measured, parser, report

COUNT = 50

DEFINITION = {"definitions": [{"name": "clock", "kind": "command", "argv": ["date", "+%s.%N"]}]}


async def measure(folder: Path) -> dict[str, Any]:
    """Return the figures."""
    private_bus()
    make_repo(folder / "repo")
    config = folder / "config"
    config.mkdir()
    (config / "clock.yaml").write_text(yaml.safe_dump(DEFINITION))
    instance = {
        "sal_index": 1,
        "butler": str(folder / "repo"),
        "work_dir": str(folder / "work"),
        "definitions": [str(config / "clock.yaml")],
    }
    (config / "bench.yaml").write_text(yaml.safe_dump({"instances": [instance]}))
    latencies = []
    async with (
        CscProcess("1", "--configdir", str(config), log=folder / "csc.log"),
        Measured.connect() as script,
    ):
        await script.set_state(salobj.State.ENABLED, "bench.yaml")
        for _ in range(COUNT + 3):
            execution = await script.execute("job:clock")
            await execution.done()
            data = await script.result(execution.job_id)
            log = json.loads(data.result)["results"][0]["uri"]
            ended = float(Path(unquote(urlsplit(log).path)).read_text())
            latencies.append(script.arrived[execution.job_id] - ended)
    return {
        "median_s": round(statistics.median(latencies[3:]), 4),
        "max_s": round(max(latencies[3:]), 4),
    }


def main() -> None:
    """Measure and print."""
    options = parser(__doc__).parse_args()
    with tempfile.TemporaryDirectory() as folder:
        report(asyncio.run(measure(Path(folder))), as_json=options.json)


if __name__ == "__main__":
    main()
