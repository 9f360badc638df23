# SPDX-License-Identifier: GPL-3.0-or-later
"""SAL between two processes: how long a command, an event and a start take.

``command_ms`` is from sending ``setLogLevel`` to its CMD_COMPLETE,
``event_ms`` from the writing of the ``logLevel`` event to its arrival (medians
of 200), ``start_s`` from the start of the program to its first summary state.
"""

from __future__ import annotations

import asyncio
import statistics
import time
from typing import Any

from lsst.dm.OCPS.testing import CscProcess, Script, private_bus
from lsst.ts import utils

from .common import parser, report

COUNT = 200


async def measure() -> dict[str, Any]:
    """Return the figures."""
    private_bus()
    commands: list[float] = []
    events: list[float] = []
    async with Script.connect(wait=False) as script:
        remote = script.remote
        remote.evt_logLevel.callback = lambda data: events.append(utils.current_tai() - data.private_sndStamp)
        started = time.perf_counter()
        async with CscProcess("1", "--simulate"):
            await script.wait_for_csc()
            start = time.perf_counter() - started
            for number in range(COUNT + 10):
                sent = time.perf_counter()
                await remote.cmd_setLogLevel.set_start(level=20 + number % 2, timeout=10)
                commands.append(time.perf_counter() - sent)
            while len(events) < COUNT:
                await asyncio.sleep(0.01)
    return {
        "command_ms": round(statistics.median(commands[10:]) * 1000, 3),
        "event_ms": round(statistics.median(events[-COUNT:]) * 1000, 3),
        "start_s": round(start, 2),
    }


def main() -> None:
    """Measure and print."""
    options = parser(__doc__).parse_args()
    report(asyncio.run(measure()), as_json=options.json)


if __name__ == "__main__":
    main()
