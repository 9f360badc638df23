# SPDX-License-Identifier: GPL-3.0-or-later
"""A process that runs programs of the Science Pipelines one after the other, without anything of OCPS.

Each runs in a fork of a process that has imported the programs' modules,
also those that they import when they start, and done nothing else: no Butler
was opened, nothing of the Butler is replaced. That is a typed command without
the seconds it takes to import.

Requests come in as JSON lines (``argv``, ``cwd``, ``log``, ``environment``);
each is answered by a line with the exit code, negative for a signal.
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import sys
from typing import Any, NoReturn

# Nothing that is imported becomes garbage.
gc.disable()

from lsst.ctrl.mpexec.cli.pipetask import main as pipetask  # noqa: E402
from lsst.daf.butler.cli.butler import main as butler  # noqa: E402

IMPORTED_AT_START = (
    "lsst.ctrl.mpexec.cli.cmd",
    "lsst.daf.butler.cli.cmd",
    "lsst.daf.butler.datastores.fileDatastore",
    "lsst.daf.butler.direct_butler",
    "lsst.daf.butler.formatters.json",
    "lsst.daf.butler.formatters.logs",
    "lsst.daf.butler.formatters.packages",
    "lsst.daf.butler.registry.collections.synthIntKey",
    "lsst.daf.butler.registry.datasets.byDimensions",
    "lsst.daf.butler.registry.dimensions.static",
    "lsst.pipe.base.formatters.pexConfig",
)
"""Modules that each of the programs imports itself."""


def become(request: dict[str, Any]) -> NoReturn:
    """Run a program in this process, a forked one."""
    code = 1
    try:
        log = os.open(request["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        os.dup2(log, 1)
        os.dup2(log, 2)
        os.chdir(request["cwd"])
        os.environ.clear()
        os.environ.update(request["environment"])
        sys.argv = request["argv"]
        {"pipetask": pipetask, "butler": butler}[os.path.basename(sys.argv[0])]()
        code = 0
    except SystemExit as error:
        code = error.code if isinstance(error.code, int) else int(error.code is not None)
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def main() -> None:
    """Answer requests until there are no more."""
    for name in IMPORTED_AT_START:
        importlib.import_module(name)
    # The collectors of the forked processes need not search what they share.
    gc.freeze()
    gc.enable()
    for line in sys.stdin:
        child = os.fork()
        if child == 0:
            become(json.loads(line))
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)


if __name__ == "__main__":
    main()
