# SPDX-License-Identifier: GPL-3.0-or-later

"""An OCPS with DemoCam's data that stays up, to try scripts against.

Everything it makes is below ``.demo``, or the folder that is given.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
from pathlib import Path

from lsst.dm.OCPS.testing import CscProcess, Script
from lsst.ts import salobj
from setting import FOLDER, observations, prepare

WORDS = """\
OCPS:1 is ENABLED; what it says is in {folder}/csc.log. Ctrl-C ends it.

In another terminal, with this environment:
    . {folder}/env.sh
try the script of README.md, or
    ocps submit sleep duration=3 && ocps list
    ocps submit focusSweep
    scripts/run_pipeline.py 100     # a SAL script, to be commanded as Script:100
Pipelines are in $DEMOCAM_DIR/pipelines; exposures: {bias}
"""


async def stay(folder: Path) -> None:
    """Run OCPS until this process is interrupted."""
    async with CscProcess("1", log=folder / "csc.log") as csc:
        async with Script.connect() as operator:
            await operator.set_state(salobj.State.ENABLED, "demo.yaml")
        print(WORDS.format(folder=folder, bias=observations("bias")), flush=True)
        assert csc.process is not None
        await csc.process.wait()
        print(f"OCPS has ended; its last words are in {folder}/csc.log")


def main() -> None:
    """Prepare the folder and run OCPS."""
    parser = argparse.ArgumentParser(description="Run an OCPS with DemoCam's data.")
    parser.add_argument("--folder", type=Path, default=FOLDER, help="where to make everything (%(default)s)")
    folder = parser.parse_args().folder.resolve()
    prepare(folder)
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(stay(folder))


if __name__ == "__main__":
    main()
