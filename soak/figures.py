# SPDX-License-Identifier: GPL-3.0-or-later
"""The figures of a soak test: their samples, whether they stayed flat, and a picture of them."""

from __future__ import annotations

import statistics
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

PARTS = 4
"""The first quarter of the samples is compared with the last."""


@dataclass(frozen=True)
class Figure:
    """A quantity that is to stay flat.

    Parameters
    ----------
    name, unit : `str`
        Its name and unit, as the table shows them.
    factor, more : `float`
        How much the median of the last quarter may be: ``factor`` times that
        of the first quarter, plus ``more``.
    """

    name: str
    unit: str
    factor: float
    more: float


FIGURES = (
    Figure("memory", "MB", 1.10, 10),
    Figure("descriptors", "", 1.0, 20),
    Figure("threads", "", 1.0, 4),
    Figure("store", "MB", 1.05, 8),
    # Other programs on the machine delay answers; a leak makes them several times longer.
    Figure("memory (server)", "MB", 1.10, 10),
    Figure("descriptors (server)", "", 1.0, 20),
    Figure("threads (server)", "", 1.0, 4),
    Figure("creation of a command (server)", "ms", 2.0, 20),
    Figure("answer about one job", "ms", 2.0, 10),
    Figure("list of 100 jobs", "ms", 2.0, 20),
    Figure("creation of a job", "ms", 2.0, 20),
    Figure("execute to job id (SAL)", "ms", 2.0, 20),
)


@dataclass
class Samples:
    """Samples of all figures over time."""

    begin: float = field(default_factory=time.monotonic)
    values: dict[str, list[tuple[float, float]]] = field(default_factory=dict)

    def add(self, name: str, value: float) -> None:
        """Add a sample of the figure ``name``."""
        self.values.setdefault(name, []).append((time.monotonic() - self.begin, value))

    def take(self, pid: int, name: str, store: Path | None = None) -> None:
        """Sample a process, and the size of its store; ``name`` is added to the names of the figures."""
        process = psutil.Process(pid)
        with process.oneshot():
            self.add(f"memory{name}", process.memory_info().rss / 1e6)
            self.add(f"descriptors{name}", process.num_fds())
            self.add(f"threads{name}", process.num_threads())
        if store:
            size = sum(file.stat().st_size for file in store.parent.glob(f"{store.name}*"))
            self.add(f"store{name}", size / 1e6)

    def quarters(self, name: str) -> tuple[float, float]:
        """Return the medians of a figure in the first and the last quarter of its samples."""
        values = [value for _, value in self.values[name]]
        size = max(1, len(values) // PARTS)
        return statistics.median(values[:size]), statistics.median(values[-size:])

    def judge(self) -> tuple[str, list[str]]:
        """Return the table of all figures, and what was not flat, in words."""
        rows = [["figure", "first quarter", "last quarter", "at most", "samples"]]
        faults = []
        for figure in FIGURES:
            if len(self.values.get(figure.name, ())) < PARTS:
                faults.append(f"{figure.name}: fewer than {PARTS} samples")
                continue
            first, last = self.quarters(figure.name)
            most = first * figure.factor + figure.more
            unit = f" {figure.unit}" if figure.unit else ""
            cells = [f"{value:.1f}{unit}" for value in (first, last, most)]
            rows.append([figure.name, *cells, str(len(self.values[figure.name]))])
            if last > most:
                faults.append(
                    f"{figure.name}: {last:.1f}{unit} at the end, {first:.1f}{unit} at the beginning"
                )
        widths = [max(len(row[column]) for row in rows) for column in range(5)]
        lines = [
            "  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)) for row in rows
        ]
        lines.insert(1, "  ".join("-" * width for width in widths))
        return "\n".join(line.rstrip() for line in lines), faults

    def plot(self, path: Path, title: str) -> None:
        """Draw all figures over time to a picture."""
        # Only a soak needs it, and it takes a second to load.
        from matplotlib.figure import Figure as Picture

        picture = Picture(figsize=(10, 12), layout="constrained")
        picture.suptitle(title)
        axes: Any = picture.subplots(6, 2, sharex=True)
        for figure, axis in zip(FIGURES, axes.flat, strict=True):
            times, values = zip(*self.values.get(figure.name, [(0.0, 0.0)]), strict=True)
            axis.plot([at / 60 for at in times], values, ".", markersize=2, rasterized=True)
            axis.set_ylim(0, 1.3 * sorted(values)[int(0.98 * (len(values) - 1))] or 1)
            axis.set_ylabel(f"{figure.name}\n({figure.unit})" if figure.unit else figure.name)
            axis.grid(alpha=0.3)
        for axis in axes[-1]:
            axis.set_xlabel("time (min)")
        path.parent.mkdir(parents=True, exist_ok=True)
        picture.savefig(path, dpi=80)
