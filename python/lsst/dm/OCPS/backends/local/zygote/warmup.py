# SPDX-License-Identifier: GPL-3.0-or-later
"""A throw-away pipeline, run to load the modules that every pipeline needs.

Loaded by path by ``main.py``. It imports no more than a pipeline that does
nothing, because each job lists every module imported here among the packages
that it used.
"""

from __future__ import annotations

import contextlib
import sqlite3
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


Rows = dict[str, list[str]]
"""The rows of each table, as text."""

# Logs and metadata contain times, so their sizes differ from run to run.
_VARYING = ("ingest_date", "file_size", "checksum")


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
    """A configuration without fields."""


class WarmupTask(PipelineTask):  # type: ignore[misc]
    """Do nothing."""

    ConfigClass = WarmupConfig
    _DefaultName = "warmup"

    def run(self, before: dict[str, Any]) -> Struct:
        """Return the input."""
        return Struct(after=before)


def run() -> Rows:
    """Run the pipeline in a new repository and retrieve its outputs, as jobs do.

    Returns
    -------
    rows : `Rows`
        All rows of the repository's database afterwards.
    """
    with tempfile.TemporaryDirectory() as folder:
        repo = Path(folder, "repo")
        Butler.makeRepo(str(repo))
        run_in(repo)
        return read_rows(repo / "gen3.sqlite3")


def run_in(repo: Path) -> None:
    """Run the pipeline in a repository whose tables are empty, and retrieve its outputs."""
    fill(repo)
    output = repo.with_name(f"{repo.name}-output")
    output.mkdir()
    pipeline = output / "pipeline.yaml"
    pipeline.write_text(PIPELINE)
    run = ["--butler-config", str(repo), "--input", "in", "--output", "out", "--output-run", "out/run"]
    run += ["--pipeline", str(pipeline), "--data-query", "detector = 1"]
    run += ["--summary", str(output / "summary.json"), "--register-dataset-types"]
    carry_out(pipetask, "pipetask", "--long-log", "run", *run)
    retrieve = [str(repo), str(output), "--collections", "out/run", "--transfer", "copy"]
    retrieve += ["--no-preserve-path", "--dataset-type", "warmup*"]
    carry_out(butler_cli, "butler", "retrieve-artifacts", *retrieve)


def fill(repo: Path) -> None:
    """Add an instrument with two detectors, and a dataset for each detector."""
    with Butler.from_config(str(repo), writeable=True) as butler:
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


def read_rows(database: Path) -> Rows:
    """Return all rows of a repository's database, without the columns that differ from run to run."""
    rows: Rows = {}
    with contextlib.closing(sqlite3.connect(database)) as connection:
        connection.row_factory = sqlite3.Row
        names = connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall()
        # Dataset ids differ from run to run; the path of its file identifies a dataset.
        paths = dict(connection.execute("SELECT dataset_id, path FROM file_datastore_records").fetchall())
        for (name,) in names:
            found = [dict(row) for row in connection.execute(f'SELECT * FROM "{name}"')]
            rows[name] = sorted(
                str([(key, paths.get(value, value)) for key, value in row.items() if key not in _VARYING])
                for row in found
            )
    return rows


def carry_out(command: Any, *argv: str) -> None:
    """Run a click command in this process.

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
