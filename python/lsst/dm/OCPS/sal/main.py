# SPDX-License-Identifier: GPL-3.0-or-later
"""The program ``run_OCPS.py``: runs the CSC described by the command line."""

from __future__ import annotations

__all__ = ["main"]

import asyncio
import gc
import sys
from pathlib import Path

# Importing makes many objects and hardly any garbage: without collections it takes a sixth less time.
gc.disable()

from ..config import ConfigError, SalIndex  # noqa: E402
from ..jobs.own_process import limit_heaps  # noqa: E402
from . import arguments  # noqa: E402
from . import compat as salobj_compat  # noqa: E402
from .csc import OcpsCsc  # noqa: E402

gc.enable()


def main() -> None:
    """Run the CSC."""
    name = Path(sys.argv[0]).name
    limit_heaps()
    try:
        sys.argv[1:] = arguments.completed(sys.argv[1:])
        salobj_compat.check_environment()
        asyncio.run(run())
    except (ValueError, RuntimeError, OSError, ConfigError) as error:
        # Among them are salobj's errors about its environment, directories and files.
        sys.exit(f"{name}: {' '.join(str(error).split())}")
    salobj_compat.leave_process(0)


async def run() -> None:
    """Create the CSC and wait for its end."""
    await salobj_compat.run_csc(salobj_compat.make_csc(OcpsCsc, SalIndex))
