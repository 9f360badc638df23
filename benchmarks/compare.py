# SPDX-License-Identifier: GPL-3.0-or-later
"""Figures of two checkouts, before and after, measured in turns.

    python -m benchmarks.compare OLD NEW execute_latency "queue_depth --jobs=2000"

Each checkout runs its own benchmarks with the Python in its own ``.venv``. They
take turns, and every second round begins with the other one, so that both
meet the same moods of the machine. Printed are the medians of each figure
that both report, and the median of the ratios of the pairs. Options are given with
the benchmark, as one word each; a checkout whose benchmark does not know one
of them runs without it.
"""

from __future__ import annotations

import argparse
import json
import shlex
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

SHORT = {"execute_latency": ["--pairs=1"]}
"""Options where each run need not repeat what the rounds repeat."""

TIMEOUT = 1800.0
"""How long (s) one run may take."""


def python(checkout: Path) -> str:
    """Return the Python of a checkout."""
    return str(checkout / ".venv" / "bin" / "python")


def known_options(checkout: Path, name: str, options: list[str]) -> list[str]:
    """Return those options that a checkout's benchmark knows."""
    command = [python(checkout), "-m", f"benchmarks.{name}", "--help"]
    shown = subprocess.run(command, cwd=checkout, capture_output=True, text=True, check=False)
    if shown.returncode:
        raise RuntimeError(f"{checkout}: there is no benchmark {name}: {shown.stderr.strip()[-300:]}")
    words = shown.stdout.replace(",", " ").replace("]", " ").split()
    return [option for option in options if option.partition("=")[0] in words]


def run(checkout: Path, name: str, options: list[str]) -> dict[str, Any]:
    """Run a benchmark of a checkout; return its figures.

    Raises
    ------
    RuntimeError
        If it fails.
    """
    command = [python(checkout), "-m", f"benchmarks.{name}", "--json", *options]
    done = subprocess.run(
        command,
        cwd=checkout,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
        check=False,
    )
    try:
        figures = json.loads(done.stdout.splitlines()[-1])
    except (ValueError, IndexError):
        figures = None
    if done.returncode or not isinstance(figures, dict):
        lines = (done.stderr or done.stdout).strip().splitlines()
        raise RuntimeError(f"{checkout}: {name} failed: {' / '.join(lines[-3:])}")
    return figures


def numbers(figures: dict[str, Any]) -> dict[str, float]:
    """Return the figures that are numbers."""
    return {
        name: value
        for name, value in figures.items()
        if isinstance(value, int | float) and not isinstance(value, bool)
    }


def compare(old: Path, new: Path, words: list[str], rounds: int) -> dict[str, dict[str, float | None]]:
    """Return what was measured of one benchmark, by figure."""
    name, *options = words
    options = options or SHORT.get(name, [])
    sides = {side: known_options(side, name, options) for side in (old, new)}
    found: dict[Path, list[dict[str, float]]] = {old: [], new: []}
    for number in range(rounds):
        for side in (old, new) if number % 2 == 0 else (new, old):
            found[side].append(numbers(run(side, name, sides[side])))
            print(f"# {name}: round {number + 1} of {rounds}, {side.name}", file=sys.stderr, flush=True)
    common = [figure for figure in found[new][0] if figure in found[old][0]]
    figures: dict[str, dict[str, float | None]] = {}
    for figure in common:
        before, after = ([result[figure] for result in found[side]] for side in (old, new))
        ratios = [later / earlier for earlier, later in zip(before, after, strict=True) if earlier]
        figures[figure] = {
            "before": statistics.median(before),
            "after": statistics.median(after),
            "ratio": round(statistics.median(ratios), 3) if ratios else None,
        }
    for figure in found[new][0].keys() - found[old][0].keys():
        after = [result[figure] for result in found[new]]
        figures[figure] = {"before": None, "after": statistics.median(after), "ratio": None}
    return figures


def main() -> int:
    """Measure and print; return the exit status."""
    arguments = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    arguments.add_argument("old", type=Path, help="checkout before, with a .venv of its own")
    arguments.add_argument("new", type=Path, help="checkout after, with a .venv of its own")
    arguments.add_argument("benchmark", nargs="+", help="name, and options if any, as one argument")
    arguments.add_argument("--rounds", type=int, default=9, help="how often each runs (default: 9)")
    arguments.add_argument("--json", action="store_true", help="print only one line of JSON")
    options = arguments.parse_args()
    old, new = options.old.resolve(), options.new.resolve()
    results: dict[str, Any] = {}
    status = 0
    for benchmark in options.benchmark:
        try:
            figures = compare(old, new, shlex.split(benchmark), options.rounds)
        except (RuntimeError, subprocess.TimeoutExpired) as error:
            print(f"{benchmark}: {error}", file=sys.stderr, flush=True)
            results[benchmark] = {"error": str(error)}
            status = 1
            continue
        results[benchmark] = figures
        if not options.json:
            print(f"{benchmark:32} {'before':>12} {'after':>12} {'after/before':>13}")
            for figure, row in figures.items():
                cells = [
                    "" if row[key] is None else f"{row[key]:.4g}" for key in ("before", "after", "ratio")
                ]
                print(f"  {figure:30} {cells[0]:>12} {cells[1]:>12} {cells[2]:>13}", flush=True)
    print(json.dumps({"rounds": options.rounds, **results}), flush=True)
    return status


if __name__ == "__main__":
    sys.exit(main())
