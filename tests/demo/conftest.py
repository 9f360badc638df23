# SPDX-License-Identifier: GPL-3.0-or-later

"""A way to run pipetask on the DemoCam repository as anybody would."""

from __future__ import annotations

import importlib.util
import itertools
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.waiting import TIMEOUT

DEMOCAM_DIR = Path(__file__).parents[2] / "demo"
PLAIN_PIPETASK = Path(__file__).parents[1] / "backends" / "local" / "plain_pipetask.py"

sys.path.insert(0, str(DEMOCAM_DIR / "python"))


def _has_pipelines() -> bool:
    try:
        return importlib.util.find_spec("lsst.ctrl.mpexec") is not None
    except ModuleNotFoundError:
        return False


# OCPS itself works without the Science Pipelines; these tests do not.
collect_ignore_glob = [] if _has_pipelines() else ["test_*.py"]

RunPipetask = Callable[..., subprocess.CompletedProcess[str]]


def environment() -> dict[str, str]:
    """Return the environment of a command that finds democam and its pipelines."""
    path = os.pathsep.join(filter(None, [str(DEMOCAM_DIR / "python"), os.environ.get("PYTHONPATH")]))
    return os.environ | {"DEMOCAM_DIR": str(DEMOCAM_DIR), "PYTHONPATH": path}


def command(
    repo: Path, pipeline: str, output: str, *options: str, inputs: str = "DemoCam/raw/all"
) -> list[str]:
    """Return a pipetask command line; the pipeline's name is that of its file without the ending."""
    program = Path(sys.executable).with_name("pipetask")
    pipeline = f"$DEMOCAM_DIR/pipelines/{pipeline}.yaml"
    options = ("--register-dataset-types", *options)
    return [str(program), "run", "-b", str(repo), "-i", inputs, "-o", output, "-p", pipeline, *options]


@pytest.fixture(scope="session")
def seed() -> int:
    """Return the seed of the repository: that of `make_repo` where none is given."""
    return 1


@pytest.fixture(scope="session")
def pipetask(repo: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunPipetask]:
    """Return a function that runs a pipeline to its end and returns what came of it.

    Each runs in a fork of a process that has only imported pipetask.
    """
    folder = tmp_path_factory.mktemp("pipetask")
    numbers = itertools.count()
    arguments = [sys.executable, str(PLAIN_PIPETASK)]
    with subprocess.Popen(
        arguments, env=environment(), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:

        def run(
            pipeline: str, output: str, *options: str, inputs: str = "DemoCam/raw/all"
        ) -> subprocess.CompletedProcess[str]:
            argv = command(repo, pipeline, output, *options, inputs=inputs)
            log = folder / f"{next(numbers)}.log"
            request = {"argv": argv, "cwd": str(folder), "log": str(log), "environment": environment()}
            print(json.dumps(request), file=process.stdin, flush=True)
            assert process.stdout is not None
            code = int(process.stdout.readline())
            return subprocess.CompletedProcess(argv, code, stderr=log.read_text())

        yield run


@pytest.fixture(scope="session")
def bias_run(repo: Path) -> str:
    """Return the output collection of a bias pipeline that ended well, typed as a new process."""
    done = subprocess.run(
        command(repo, "bias", "u/test/bias", "-d", "exposure.observation_type = 'bias'"),
        env=environment(),
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
    )
    assert done.returncode == 0, done.stderr
    assert "Executed 11 quanta successfully, 0 failed and 0 remain" in done.stderr
    return "u/test/bias"
