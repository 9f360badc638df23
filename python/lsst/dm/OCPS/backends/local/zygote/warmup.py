# SPDX-License-Identifier: GPL-3.0-or-later
"""A throw-away pipeline in a throw-away repository, run to have everything loaded.

Loaded by path by ``zygote.py``. Imports no more than a pipeline would that
does nothing: what is imported here is reported by each job among the packages
that it used.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import Any

import lsst.pipe.base.connectionTypes as cT
from lsst.ctrl.mpexec.cli.pipetask import cli as pipetask
from lsst.daf.butler import Butler, DatasetType
from lsst.daf.butler.cli.butler import cli as butler_cli
from lsst.pipe.base import PipelineTask, PipelineTaskConfig, PipelineTaskConnections, Struct

PIPELINE = f"""
description: Nothing
tasks:
  warmup:
    class: {__name__}.WarmupTask
"""


class WarmupConnections(PipelineTaskConnections, dimensions=("instrument", "detector")):  # type: ignore[misc]
    """A small input and a small output."""

    before = cT.Input(
        doc="Something.",
        name="warmupInput",
        storageClass="StructuredDataDict",
        dimensions=("instrument", "detector"),
    )
    after = cT.Output(
        doc="The same.",
        name="warmupOutput",
        storageClass="StructuredDataDict",
        dimensions=("instrument", "detector"),
    )


class WarmupConfig(PipelineTaskConfig, pipelineConnections=WarmupConnections):  # type: ignore[misc]
    """Nothing to choose."""


class WarmupTask(PipelineTask):  # type: ignore[misc]
    """Do nothing."""

    ConfigClass = WarmupConfig
    _DefaultName = "warmup"

    def run(self, before: dict[str, Any]) -> Struct:
        """Return what came in."""
        return Struct(after=before)


def run() -> None:
    """Run a pipeline and retrieve what it made, as jobs do."""
    with tempfile.TemporaryDirectory(prefix="ocps-warmup-") as folder:
        top = Path(folder)
        repo, output = top / "repo", top / "output"
        output.mkdir()
        make_repo(repo)
        (top / "pipeline.yaml").write_text(PIPELINE)
        run = ["--butler-config", str(repo), "--input", "in", "--output", "out", "--output-run", "out/run"]
        run += ["--pipeline", str(top / "pipeline.yaml"), "--data-query", "detector = 1"]
        run += ["--summary", str(top / "summary.json"), "--register-dataset-types"]
        carry_out(pipetask, "pipetask", "--long-log", "run", *run)
        retrieve = [str(repo), str(output), "--collections", "out/run", "--transfer", "copy"]
        retrieve += ["--no-preserve-path", "--dataset-type", "warmup*"]
        carry_out(butler_cli, "butler", "retrieve-artifacts", *retrieve)


def make_repo(path: Path) -> None:
    """Make a repository with an instrument that has two detectors."""
    Butler.makeRepo(str(path))
    with Butler.from_config(str(path), writeable=True) as butler:
        registry = butler.registry
        registry.insertDimensionData("instrument", {"name": "Warmup", "class_name": "warmup.Warmup"})
        dataset_type = DatasetType(
            "warmupInput", ("instrument", "detector"), "StructuredDataDict", universe=butler.dimensions
        )
        registry.registerDatasetType(dataset_type)
        registry.registerRun("in")
        for number in (0, 1):
            registry.insertDimensionData(
                "detector", {"instrument": "Warmup", "id": number, "full_name": str(number)}
            )
            butler.put({"n": number}, "warmupInput", run="in", instrument="Warmup", detector=number)


def carry_out(command: Any, *argv: str) -> None:
    """Run a command of click in this process.

    Raises
    ------
    RuntimeError
        If it fails.
    """
    sys.argv = list(argv)
    try:
        command.main(args=list(argv[1:]), prog_name=argv[0])
    except SystemExit as error:
        if error.code:
            raise RuntimeError(f"{' '.join(argv[:3])} ended with exit code {error.code}") from None
