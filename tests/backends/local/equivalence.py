# SPDX-License-Identifier: GPL-3.0-or-later
"""Running the same commands preloaded and typed, and what each of them leaves."""

from __future__ import annotations

import asyncio
import hashlib
import json
import re
import sqlite3
import sys
from collections.abc import Awaitable, Callable, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lsst.daf.butler import Butler, DatasetRef

from tests.backends.local.harness import Pool
from tests.waiting import until

ROOT = Path(__file__).resolve().parents[3]
PIPELINES = ROOT / "demo" / "pipelines"
BIN = Path(sys.executable).parent


@dataclass
class Left:
    """What the commands of one scenario left."""

    codes: list[int] = field(default_factory=list)
    log: list[str] = field(default_factory=list)
    summaries: list[Any] = field(default_factory=list)
    files: dict[str, Any] = field(default_factory=dict)
    datasets: dict[str, Any] = field(default_factory=dict)
    chains: dict[str, tuple[str, ...]] = field(default_factory=dict)


Run = Callable[[list[str], Path], Awaitable[int]]
"""Runs a command with its log and working directory in a folder; returns the exit code."""


class Typed:
    """Runs commands as new processes.

    Parameters
    ----------
    environment : `dict`
        Their environment variables.
    """

    def __init__(self, environment: dict[str, str]) -> None:
        self.environment = environment

    async def run(self, command: list[str], folder: Path) -> int:
        with (folder / "log").open("ab") as log:
            process = await asyncio.create_subprocess_exec(
                str(BIN / command[0]),
                *command[1:],
                cwd=folder,
                env=self.environment,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
            return await process.wait()


class Forked(Typed):
    """Runs commands as forks of a process that has only imported their modules; see ``plain_pipetask.py``."""

    process: asyncio.subprocess.Process

    async def __aenter__(self) -> Forked:
        self.process = await asyncio.create_subprocess_exec(
            sys.executable,
            str(Path(__file__).with_name("plain_pipetask.py")),
            env=self.environment,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        await self.process.wait()

    async def run(self, command: list[str], folder: Path) -> int:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        request = {
            "argv": [str(BIN / command[0]), *command[1:]],
            "cwd": str(folder),
            "log": str(folder / "log"),
            "environment": self.environment,
        }
        self.process.stdin.write(json.dumps(request).encode() + b"\n")
        return int(await self.process.stdout.readline())


class Preloaded:
    """Runs commands in the pool.

    Parameters
    ----------
    pool : `Pool`
        The pool.
    """

    def __init__(self, pool: Pool) -> None:
        self.pool = pool
        self.count = 0

    async def run(self, command: list[str], folder: Path) -> int:
        self.count += 1
        workspace = folder / f".job-{self.count}"
        workspace.mkdir()
        plan = {
            "steps": [{"argv": [str(BIN / command[0]), *command[1:]], "tool": command}],
            "environment": dict(self.pool.preload.variables),
            "cwd": str(folder),
            "log": str(folder / "log"),
            "output": str(folder),
            "durable": False,
        }
        (workspace / "plan.json").write_text(json.dumps(plan))
        assert await self.pool.zygotes.launch(self.pool.preload, workspace), "not preloaded"
        status = workspace / "status.json"
        await until(status.exists)
        return int(json.loads(status.read_text())["exit_code"])


async def carry_out(run: Run, scenario: Sequence[str], name: str, repo: Path, folder: Path) -> Left:
    """Run the commands of a scenario, then retrieve what they made.

    Each command is written as the arguments of ``pipetask run``, without the
    repository and the inputs; ``PIPELINE.yaml`` is one of the demonstration.
    """
    folder.mkdir()
    left = Left()
    for number, text in enumerate(scenario):
        summary = folder / f"summary-{number}.json"
        output = f"test/{name}"
        words = text.replace("OUT", output).replace("HERE", str(folder.parent)).split(" ")
        options = [str(PIPELINES / word) if ".yaml" in word and "/" not in word else word for word in words]
        common = ["-b", str(repo), "-i", "DemoCam/raw/all", "-o", output, "--summary", str(summary)]
        options = [word.replace("~", " ") for word in options]
        left.codes.append(await run(["pipetask", "--long-log", "run", *common, *options], folder))
        left.summaries.append(
            normalise_summary(json.loads(summary.read_text())) if summary.exists() else None
        )
    artifacts = folder / "artifacts"
    artifacts.mkdir()
    retrieve = ["butler", "retrieve-artifacts", str(repo), str(artifacts), "--collections", f"test/{name}/*"]
    retrieve += ["--transfer", "copy", "--no-preserve-path", "--dataset-type", "*"]
    left.codes.append(await run(retrieve, folder))
    collect(left, name, repo, folder)
    return left


def collect(left: Left, name: str, repo: Path, folder: Path) -> None:
    """Gather what the commands of a scenario left."""
    places = {str(repo): "REPO", str(folder.parent): "HERE"}
    left.log = [normalise(line, places) for line in (folder / "log").read_text().splitlines()]
    for path in (folder / "artifacts").iterdir():
        content = path.read_bytes()
        # It names each dataset by its id.
        index = path.name == "_butler_zip_index.json"
        text = normalise(content.decode(), places) if index else ""
        left.files[path.name] = sorted(re.split(r"[][,{}]", text))
    with Butler.from_config(str(repo)) as butler:
        for info in butler.collections.query_info("test/*", include_summary=False):
            if f"{info.name}/".startswith(f"test/{name}/"):
                left.chains[info.name] = (info.type.name, *(info.children or ()))
        runs = [each for each, (kind, *_) in left.chains.items() if kind == "RUN"]
        for ref in butler.query_all_datasets(runs, find_first=False) if runs else ():
            data_id = {key: str(value) for key, value in ref.dataId.required.items()}
            key = (ref.run, ref.datasetType.name, ref.datasetType.storageClass_name, data_id)
            stored = butler.stored(ref)
            left.datasets[str(key)] = content_of(butler, ref, places) if stored else "not stored"


def content_of(butler: Butler, ref: DatasetRef, places: dict[str, str]) -> Any:
    """Return what a dataset holds, without what differs from run to run."""
    path = Path(butler.getURI(ref).ospath)
    dataset_type = ref.datasetType.name
    if dataset_type.endswith("_log"):
        return normalise_log(path.read_text(), places)
    if dataset_type.endswith("_metadata"):
        return names_of(json.loads(path.read_text()))
    return hashlib.sha256(path.read_bytes()).hexdigest()


def normalise_log(text: str, places: dict[str, str]) -> list[str]:
    """Return a stored log without its numbers, such as times, processes and what was used of the machine."""
    return re.sub(r"-?\d+(\.\d+)?(e[+-]?\d+)?", "N", normalise(text, places)).split(",")


def names_of(value: Any) -> Any:
    """Return the names in a document, and which of the values are numbers or texts."""
    if isinstance(value, dict):
        return {name: names_of(item) for name, item in value.items()}
    if isinstance(value, list):
        return [names_of(item) for item in value]
    return type(value).__name__


_VARYING = (
    (r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d[.\d]*(\+00:00|Z)?", "TIME"),
    (r"\b[0-9a-f]{8}-?[0-9a-f]{4}-?[0-9a-f]{4}-?[0-9a-f]{4}-?[0-9a-f]{12}\b", "UUID"),
    (r"\b\d+\.\d+ seconds", "N seconds"),
    (r"\b[Pp]rocess(es)? \d+", "process N"),
    (r"0x[0-9a-f]+", "ADDRESS"),
    (r"pid=\d+", "pid=N"),
    (r'"file_size":\d+', "SIZE"),
    # One of several, in no order.
    (r"Potential output dataset \S+@.*? \[", "Potential output dataset ANY ["),
)


def normalise(line: str, places: dict[str, str]) -> str:
    """Take out of a line what differs from run to run."""
    for place, word in places.items():
        line = line.replace(place, word)
    for pattern, word in _VARYING:
        line = re.sub(pattern, word, line)
    return line


def normalise_summary(value: Any) -> Any:
    """Take out of a summary what differs from run to run."""
    if isinstance(value, dict):
        varying = {"cmdLine", "creationUTC", "startTime", "endTime", "quantumId"}
        return {name: normalise_summary(item) for name, item in value.items() if name not in varying}
    if isinstance(value, list):
        return [normalise_summary(item) for item in value]
    return normalise(value, {}) if isinstance(value, str) else value


def rows(repo: Path) -> dict[str, list[str]]:
    """Return all rows of a repository's database, without times, sizes and the datasets' random ids."""
    found = {}
    with closing(sqlite3.connect(repo / "gen3.sqlite3")) as connection:
        connection.row_factory = sqlite3.Row
        paths = {
            row["dataset_id"]: row["path"]
            for row in connection.execute("SELECT dataset_id, path FROM file_datastore_records")
        }
        tables = connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall()
        for (table,) in tables:
            each = [dict(row) for row in connection.execute(f'SELECT * FROM "{table}"')]
            found[table] = sorted(
                # Of what was removed from the datastore, the id alone is left.
                str({key: _known(value, paths) for key, value in row.items() if key not in _UNKNOWN})
                for row in each
            )
    return found


_UNKNOWN = ("ingest_date", "file_size", "checksum")


def _known(value: Any, paths: dict[Any, str]) -> Any:
    if value in paths:
        return paths[value]
    if isinstance(value, bytes):
        return "bytes"
    return "UUID" if isinstance(value, str) and re.fullmatch(r"[0-9a-f]{32}", value) else value
