# SPDX-License-Identifier: GPL-3.0-or-later
"""Statistics of job definitions: how often jobs failed, and how long they usually run."""

from __future__ import annotations

__all__ = ["LEAST_COMPLETED", "DefinitionStatistics", "read_statistics"]

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from .model import TERMINAL, ExecutionPhase
from .query import JobQuery
from .records import jobs
from .store import JobStore

LEAST_COMPLETED = 3
"""How many jobs must have completed before a run time counts as usual."""


@dataclass(frozen=True, slots=True)
class DefinitionStatistics:
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
    ended: int
    completed: int
    failed: int
    aborted: int
    p50: float | None
    p90: float | None


async def read_statistics(
    store: JobStore, definitions: Iterable[str], owner: str | None, last: int
) -> list[DefinitionStatistics]:
    """Return the statistics of each of some definitions.

    Parameters
    ----------
    store : `JobStore`
        The job store.
    definitions : `~collections.abc.Iterable` [`str`]
        Names of the definitions.
    owner : `str` or `None`
        Count only the jobs of this owner; `None` for all.
    last : `int`
        How many of the newest jobs of each definition are counted.

    Raises
    ------
    StoreError
        If the store cannot be read.
    """
    times = [jobs.c.document[name].as_float() for name in ("start_time", "end_time")]
    phases = TERMINAL - {ExecutionPhase.ARCHIVED}
    found = []
    for name in definitions:
        query = JobQuery(definition=name, owner=owner, phases=phases, last=last)
        rows: list[Any] = await store.read(query.apply(sa.select(jobs.c.phase, *times)))
        counts = Counter(row[0] for row in rows)
        completed = [
            (end - start) / 1000
            for phase, start, end in rows
            if phase == ExecutionPhase.COMPLETED and start is not None and end is not None
        ]
        found.append(
            DefinitionStatistics(
                name,
                len(rows),
                counts[ExecutionPhase.COMPLETED],
                counts[ExecutionPhase.ERROR],
                counts[ExecutionPhase.ABORTED],
                _percentile(completed, 0.5),
                _percentile(completed, 0.9),
            )
        )
    return found


def _percentile(values: Sequence[float], part: float) -> float | None:
    """Return the smallest value that is not below this part of all; `None` for too few values."""
    if len(values) < LEAST_COMPLETED:
        return None
    return max(0.0, sorted(values)[math.ceil(part * len(values)) - 1])
