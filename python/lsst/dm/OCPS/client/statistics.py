# SPDX-License-Identifier: GPL-3.0-or-later
"""Statistics of an OCPS: how jobs of each definition ended, and how long they usually run."""

from __future__ import annotations

__all__ = ["Statistics", "parse_statistics"]

import math
from dataclasses import dataclass
from typing import Any

from .errors import DocumentError
from .text import one_line


@dataclass(frozen=True, slots=True)
class Statistics:
    """Statistics of the newest jobs of a definition that have ended.

    Parameters
    ----------
    definition : `str`
        Name of the definition.
    ended, completed, failed, aborted : `int`
        How many jobs were counted, and how many of them ended in each way.
    p50, p90 : `float` or `None`
        Median and 90th percentile of the run times (s) of those that
        completed; `None` if there are too few.
    """

    definition: str
    ended: int = 0
    completed: int = 0
    failed: int = 0
    aborted: int = 0
    p50: float | None = None
    p90: float | None = None


def parse_statistics(document: Any) -> dict[str, Statistics]:
    """Return the statistics in an answer, by definition.

    Raises
    ------
    DocumentError
        If the answer is not a list of statistics.
    """
    if not isinstance(document, list) or not all(isinstance(item, dict) for item in document):
        raise DocumentError("it answered with no list of statistics")
    found = {}
    for item in document:
        name = one_line(item["definition"]) if isinstance(item.get("definition"), str) else ""
        counts = (item.get(key) for key in ("ended", "completed", "failed", "aborted"))
        times = (item.get(key) for key in ("p50", "p90"))
        found[name] = Statistics(name, *map(_count, counts), *map(_time, times))
    return found


def _count(value: Any) -> int:
    return value if type(value) is int and 0 <= value < 2**31 else 0


def _time(value: Any) -> float | None:
    return float(value) if type(value) in (int, float) and math.isfinite(value) and 0 <= value < 1e9 else None
