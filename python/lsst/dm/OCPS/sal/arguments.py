# SPDX-License-Identifier: GPL-3.0-or-later
"""The command line of the CSC, in addition to salobj's arguments."""

from __future__ import annotations

__all__ = ["add", "completed"]

import argparse
import math
from collections.abc import Callable
from typing import TypeVar

from ..config import SalIndex
from ..logs import log_level

T = TypeVar("T")


def add(parser: argparse.ArgumentParser) -> None:
    """Add our own arguments to salobj's parser."""
    parser.add_argument(
        "--log-json", action="store_true", help="log JSON: one object on each line, with job id and owner"
    )
    parser.add_argument(
        "--simulation-duration",
        type=_argument(_duration),
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
        If the log level does not exist.
    """
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument("index", nargs="?")
    for name in ("--simulate", "--log-json"):
        parser.add_argument(name, action="store_true")
    for name in ("--loglevel", "--state", "--configdir", "--settings", "--override", "--simulation-duration"):
        parser.add_argument(name)
    known, _ = parser.parse_known_args(arguments)
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


def _argument(parse: Callable[[str], T]) -> Callable[[str], T]:
    """Return a parser of one argument whose errors are shown as they are."""

    def parse_argument(text: str) -> T:
        try:
            return parse(text)
        except ValueError as error:
            raise argparse.ArgumentTypeError(str(error)) from None

    return parse_argument


def _duration(text: str) -> float:
    """Return a time (s)."""
    try:
        duration = float(text)
    except ValueError:
        duration = -1.0
    if not 0 <= duration < math.inf:
        raise ValueError(f"{text!r} is not a time in seconds, 0 or more")
    return duration
