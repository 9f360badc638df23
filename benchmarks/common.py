# SPDX-License-Identifier: GPL-3.0-or-later
"""What the benchmarks share."""

from __future__ import annotations

__all__ = ["Heartbeats", "Measured", "cpu_seconds", "parser", "percentile", "report"]

import argparse
import json
import math
import time
from collections.abc import Mapping, Sequence
from typing import Any

import psutil
from lsst.dm.OCPS.testing import Script


def parser(description: str | None) -> argparse.ArgumentParser:
    """Return an argument parser with what every benchmark takes."""
    arguments = argparse.ArgumentParser(description=(description or "").partition("\n")[0])
    arguments.add_argument("--json", action="store_true", help="print only one line of JSON")
    return arguments


def report(figures: Mapping[str, Any], *, as_json: bool) -> None:
    """Print figures; the last line is one JSON object."""
    if not as_json:
        for name, value in figures.items():
            print(f"{name:28} {value}")
    print(json.dumps(figures), flush=True)


def percentile(values: Sequence[float], percent: float) -> float:
    """Return the value that ``percent`` of all do not exceed."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(len(ordered) * percent / 100) - 1)]


def cpu_seconds(pid: int) -> float:
    """Return the CPU time (s) that a process has used, with its children that have ended."""
    times = psutil.Process(pid).cpu_times()
    return float(times.user + times.system + times.children_user + times.children_system)


class Heartbeats:
    """Follows a CSC's heartbeat.

    Gaps are counted from when each was sent, so that a benchmark that is busy
    itself does not spoil them.

    Parameters
    ----------
    remote : `lsst.ts.salobj.Remote`
        A started remote.
    """

    def __init__(self, remote: Any) -> None:
        self.max_gap = 0.0
        self._last = 0.0
        remote.evt_heartbeat.callback = self._heard

    def _heard(self, data: Any) -> None:
        if self._last:
            self.max_gap = max(self.max_gap, data.private_sndStamp - self._last)
        self._last = data.private_sndStamp

    def restart(self) -> None:
        """Forget the gaps so far."""
        self.max_gap = 0.0


class Measured(Script):
    """A script that notes when results come."""

    def __init__(self, remote: Any) -> None:
        super().__init__(remote)
        self.arrived: dict[str, float] = {}

    async def _heard_result(self, data: Any) -> None:
        self.arrived.setdefault(data.job_id, time.time())
        await super()._heard_result(data)
