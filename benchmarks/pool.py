# SPDX-License-Identifier: GPL-3.0-or-later
"""What the benchmarks of the local pool share: a repository, an OCPS, cold pipelines."""

from __future__ import annotations

__all__ = ["PIPELINES", "cold_run", "cpu_of_job", "execute", "make_repo", "running_ocps"]

import asyncio
import contextlib
import json
import os
import resource
import subprocess
import sys
import uuid
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import yaml
from lsst.dm.OCPS.testing import CscProcess, Script, private_bus
from lsst.ts import salobj

ROOT = Path(__file__).resolve().parents[1]
PIPELINES = ROOT / "demo" / "pipelines"
QUERIES = {"oneQuantum": "", "bias": "exposure.observation_type='bias'"}
PRELOAD_TIMEOUT = 120.0


def make_repo(folder: Path, registry_db: str = "") -> Path:
    """Make a DemoCam repository of the default size, with its registry on SQLite or at a URL."""
    os.environ["DEMOCAM_DIR"] = str(ROOT / "demo")
    repo = folder / "repo"
    command = [sys.executable, "-m", "democam.make_repo", str(repo)]
    if registry_db:
        command += ["--registry-db", registry_db]
    subprocess.run(command, check=True, capture_output=True)
    return repo


def cold_command(repo: Path, pipeline: str) -> list[str]:
    """Return the command line that a person would type for a pipeline."""
    output = f"u/cold/{uuid.uuid4().hex}"
    command = [str(Path(sys.executable).parent / "pipetask"), "run", "-b", str(repo)]
    command += ["-i", "DemoCam/raw/all", "-o", output, "-p", str(PIPELINES / f"{pipeline}.yaml")]
    if QUERIES[pipeline]:
        command += ["-d", QUERIES[pipeline]]
    return [*command, "--register-dataset-types"]


async def cold_run(repo: Path, pipeline: str) -> float:
    """Run a pipeline as a person would, with a new process of pipetask; return its CPU time (s).

    The time is right if no other child of this process ends meanwhile.
    """
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    process = await asyncio.create_subprocess_exec(
        *cold_command(repo, pipeline),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    if await process.wait() != 0:
        raise RuntimeError(f"pipetask ended with {process.returncode}")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


@contextlib.asynccontextmanager
async def running_ocps(folder: Path, repo: Path, **settings: Any) -> AsyncIterator[tuple[CscProcess, Script]]:
    """Run an OCPS, ENABLED and preloaded, and a script that talks to it."""
    private_bus()
    instance = {
        "sal_index": 1,
        "butler": str(repo),
        "input_collection": "DemoCam/raw/all",
        "output_glob": "*Metrics",
        "work_dir": str(folder / "work"),
        **settings,
    }
    config = folder / "config"
    config.mkdir()
    (config / "bench.yaml").write_text(yaml.safe_dump({"instances": [instance]}))
    (config / "_labels.yaml").write_text("bench: bench.yaml\n")
    preloaded = asyncio.Event()

    def heard(data: Any) -> None:
        if "is preloaded" in data.message:
            preloaded.set()

    csc = CscProcess("1", "--configdir", str(config), "--loglevel", "20", log=folder / "csc.log")
    async with csc, Script.connect() as script:
        script.remote.evt_logMessage.callback = heard
        await script.set_state(salobj.State.ENABLED, "bench")
        await asyncio.wait_for(preloaded.wait(), PRELOAD_TIMEOUT)
        yield csc, script


async def execute(script: Script, pipeline: str) -> dict[str, Any]:
    """Command a pipeline and return its result.

    Raises
    ------
    RuntimeError
        If it does not end well.
    """
    execution = await script.execute(
        f"$DEMOCAM_DIR/pipelines/{pipeline}.yaml",
        config="--register-dataset-types",
        data_query=QUERIES[pipeline],
    )
    result = await execution.result()
    if result["exit_code"] != 0:
        raise RuntimeError(f"{pipeline}: {result['errorSummary']}")
    return result


def cpu_of_job(folder: Path, job_id: str) -> float:
    """Return the CPU time (s) of an ended job's processes."""
    return float(json.loads((folder / "work" / "engine" / job_id / "status.json").read_text())["cpu"])
