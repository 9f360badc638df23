# SPDX-License-Identifier: GPL-3.0-or-later
"""Supervise one job in the foreground: what a batch system runs on its node.

    python -I -S foreground.py DIRECTORY

Needs the standard library alone. Ends with the exit code of the job's last
step, 128 more than the number of a signal, so that the batch system's own
records agree with the supervisor's. A job that another supervisor has
claimed is not run, which counts as success.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

KEPT_VARIABLES = ("SLURM_", "CUDA_", "ROCR_", "HIP_", "ZE_", "GPU_")
"""Beginnings of the names of variables that jobs get from the batch system: what it has allocated."""


def load(path: Path) -> Any:
    """Load a module of this directory by path, without the package that it belongs to."""
    module = ModuleType(f"_ocps_{path.stem}")
    module.__file__ = str(path)
    exec(compile(path.read_bytes(), str(path), "exec"), module.__dict__)
    return module


def main() -> int:
    """Run a job to its end; return its exit code."""
    supervisor = load(Path(__file__).with_name("supervisor.py"))
    directory = Path(sys.argv[1])
    plan = json.loads((directory / "plan.json").read_bytes())
    allocated = {name: value for name, value in os.environ.items() if name.startswith(KEPT_VARIABLES)}
    plan["environment"] = {**allocated, **plan["environment"]}
    runner = supervisor.Supervisor(directory, plan, supervisor.steps.execute)
    try:
        runner.claim()
    except supervisor.durable.AlreadyClaimedError:
        print("another supervisor has claimed this job")
        return 0
    runner.supervise()
    try:
        code: int | None = json.loads((directory / "status.json").read_bytes())["exit_code"]
    except FileNotFoundError:
        # The job has been deleted.
        return 1
    if code is None:
        return 1
    return code if code >= 0 else 128 - code


if __name__ == "__main__":
    sys.exit(main())
