# SPDX-License-Identifier: GPL-3.0-or-later
"""The program ``run_OCPS.py``: the CSC as its command line says."""

from __future__ import annotations

__all__ = ["main"]

import argparse
import asyncio
import sys
from pathlib import Path

from ..config import SalIndex
from . import compat as salobj_compat
from .csc import OcpsCsc


def main() -> None:
    """Run the CSC."""
    sys.argv[1:] = arguments_with_index(sys.argv[1:])
    try:
        asyncio.run(run())
    except (ValueError, RuntimeError, OSError) as error:
        # What salobj says of its environment, its directories and its files.
        sys.exit(f"{Path(sys.argv[0]).name}: {error}")
    salobj_compat.leave_process(0)


async def run() -> None:
    """Make the CSC and wait for its end."""
    await salobj_compat.run_csc(salobj_compat.make_csc(OcpsCsc, SalIndex))


def arguments_with_index(arguments: list[str]) -> list[str]:
    """Return a command line with the index that is meant where there is none.

    salobj's own parser makes the index a must.
    """
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument("index", nargs="?")
    parser.add_argument("--simulate", action="store_true")
    for name in ("--loglevel", "--state", "--configdir", "--settings", "--override", "--simulation-duration"):
        parser.add_argument(name)
    known, _ = parser.parse_known_args(arguments)
    return arguments if known.index else [str(int(SalIndex.LATISS)), *arguments]
