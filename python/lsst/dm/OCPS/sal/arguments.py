# SPDX-License-Identifier: GPL-3.0-or-later
"""The command line of the CSC, in addition to salobj's arguments."""

from __future__ import annotations

__all__ = ["add", "completed"]

import argparse
import math

from ..config import SalIndex
from ..logs import log_level


def add(parser: argparse.ArgumentParser) -> None:
    """Add our own arguments to salobj's parser."""
    parser.add_argument(
        "--log-json", action="store_true", help="log JSON: one object on each line, with job id and owner"
    )
    parser.add_argument(
        "--simulation-duration",
        type=float,
        default=None,
        help="how long a simulated job lasts (s); default: as configured, or 10",
    )


def completed(arguments: list[str]) -> list[str]:
    """Return a command line for salobj's parser, which requires an index and a numeric log level.

    Parameters
    ----------
    arguments : `list` [`str`]
        The command line; without an index it means LATISS.

    Raises
    ------
    ValueError
        If the index, the log level or the duration is not valid. salobj's
        parser would say so below several lines of usage.
    """
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument("index", nargs="?")
    for name in ("--simulate", "--log-json"):
        parser.add_argument(name, action="store_true")
    for name in ("--loglevel", "--state", "--configdir", "--settings", "--override", "--simulation-duration"):
        parser.add_argument(name)
    known, _ = parser.parse_known_args(arguments)
    if known.index and known.index not in {str(index.value) for index in SalIndex}:
        raise ValueError(f"there is no index {known.index!r}; expected {SalIndex.in_words()}")
    if known.simulation_duration is not None:
        _check_duration(known.simulation_duration)
    found = [] if known.index else [str(int(SalIndex.LATISS))]
    for before, word in zip(["", *arguments], arguments, strict=False):
        name, equals, value = word.partition("=")
        if before == "--loglevel":
            found.append(str(log_level(word)))
        elif name == "--loglevel" and equals:
            found.append(f"{name}={log_level(value)}")
        else:
            found.append(word)
    return found


def _check_duration(text: str) -> None:
    """Refuse what is not a time (s)."""
    try:
        duration = float(text)
    except ValueError:
        duration = -1.0
    if not 0 <= duration < math.inf:
        raise ValueError(f"--simulation-duration: {text!r} is not a time in seconds, 0 or more")
