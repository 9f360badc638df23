# SPDX-License-Identifier: GPL-3.0-or-later
"""The outcome of a pipetask job, in words for observers.

It is read from the exit code, the summary that ``pipetask run --summary``
writes, and the last lines of the log.
"""

from __future__ import annotations

__all__ = ["PipetaskOutcome", "count_quanta", "explain", "killed", "signal_reason"]

import fnmatch
import json
import os
import re
import signal
from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import yaml
from pydantic import AfterValidator, BaseModel, ValidationError

from ...jobs.file_access import open_below
from ...jobs.model import ErrorSummary
from ...jobs.workspace import Workspace

INDEX_NAME = "_butler_zip_index.json"
"""File that ``butler retrieve-artifacts`` writes beside the artifacts."""

MAX_METRIC_SIZE = 65_536
"""Largest file (bytes) that is read as a metric; a larger one is only a result."""

OUT_OF_MEMORY = "out of memory"

KILLING = frozenset({signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGHUP})
"""Signals by which a process is ended from outside."""

# The last line of a traceback: the class, with its module, and the text.
_ERROR_LINE = re.compile(r"^(?:[\w.]+\.)?(\w*(?:Error|Exception|Found|Interrupt))(?:: (.*))?$")

# Causes in order of how specific they are; the first that matches the end of the log is used.
_CAUSES = (
    (r"QuantumGraph was empty|QuantumGraph contains no quanta", "no data matched: {query}"),
    (r"MissingCollectionError: (.*)", "a collection is missing: {0}"),
    (r"(?:InvalidQueryError|UserExpressionError|UserExpressionSyntaxError|ParserYaccError): (.*)", None),
    (r"MissingDatasetTypeError: (.*)", None),
    (r"ConflictingDefinitionError: (.*)", "conflict in the Butler: {0}"),
    (r"FileNotFoundError: (.*)", "a file is missing: {0}"),
    (r"MemoryError", OUT_OF_MEMORY),
    (r"OperationalError\)? (.*)", "the Butler's database failed: {0}"),
)
_REGISTER = (
    "a dataset type is not registered: {0}; the first run of a pipeline needs --register-dataset-types"
)


# JSON can have lone surrogates, which cannot be encoded in UTF-8.
Text = Annotated[str, AfterValidator(lambda text: text.encode(errors="replace").decode())]

DataId = dict[Text, int | Text | float | bool | None]
"""Values of dimensions, as pipetask and the Butler write them."""


class ExceptionInfo(BaseModel):
    """An exception in a summary that pipetask wrote."""

    className: Text = ""
    message: Text = ""


class QuantumReport(BaseModel):
    """A quantum in a summary that pipetask wrote."""

    taskLabel: Text = "?"
    status: Text = "?"
    dataId: DataId | None = None
    exceptionInfo: ExceptionInfo | None = None


class TaskSummary(BaseModel):
    """A task of a quantum graph in a summary that pipetask wrote."""

    numQuanta: int = 0


class GraphSummary(BaseModel):
    """A quantum graph in a summary that pipetask wrote."""

    qgraphTaskSummaries: dict[Text, TaskSummary] = {}


class Summary(BaseModel):
    """The members of pipetask's summary that OCPS reads."""

    quantaReports: list[QuantumReport] | None = None
    qgraphSummary: GraphSummary | None = None

    @classmethod
    def read(cls, workspace: Workspace, name: str) -> Summary:
        """Return the summary of a job; an empty one if it is missing or not valid."""
        try:
            return cls.model_validate(workspace.read_job_json(name) or {})
        except ValidationError:
            return cls()


class Reference(BaseModel):
    """A dataset in an index of retrieved files."""

    dataset_type_name: Text
    data_id: DataId


class References(BaseModel):
    """All datasets in an index of retrieved files."""

    compact_refs: dict[str, Reference]


class Artifact(BaseModel):
    """A file in an index of retrieved files."""

    ids: list[str]


class Index(BaseModel):
    """What OCPS reads of the index that ``butler retrieve-artifacts`` wrote."""

    refs: References
    artifact_map: dict[str, Artifact]


def count_quanta(workspace: Workspace, name: str) -> dict[str, int]:
    """Return how many quanta of each task the quantum graph in a summary has."""
    graph = Summary.read(workspace, name).qgraphSummary or GraphSummary()
    return {label: task.numQuanta for label, task in graph.qgraphTaskSummaries.items()}


@dataclass(frozen=True)
class PipetaskOutcome:
    """The outcome of a job.

    Parameters
    ----------
    exit_code : `int` or `None`
        Exit code of the last step; negative for a signal; `None` if it is
        not known.
    step : `int`
        Index of that step: 0 is pipetask, 1 the retrieval of its outputs, -1
        the preparation of a further attempt.
    cancelled : `bool`
        Whether the job was stopped.
    tasks : `dict`
        Number of quanta of each task by status: ``{task: {status: count}}``.
    failures : `tuple`
        For each failed quantum: task, data id, class and text of the
        exception.
    """

    exit_code: int | None
    step: int = 0
    cancelled: bool = False
    tasks: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    failures: tuple[tuple[str, Mapping[str, Any], str, str], ...] = ()

    @classmethod
    def read(
        cls, workspace: Workspace, status: Mapping[str, Any] | None, summary_name: str
    ) -> PipetaskOutcome:
        """Read the outcome of a job from its workspace."""
        if status is None:
            return cls(exit_code=None)
        tasks: dict[str, Counter[str]] = {}
        failures = []
        for report in Summary.read(workspace, summary_name).quantaReports or ():
            tasks.setdefault(report.taskLabel, Counter())[report.status] += 1
            error = report.exceptionInfo or ExceptionInfo()
            if report.status not in ("success", "skipped"):
                failures.append((report.taskLabel, report.dataId or {}, error.className, error.message))
        return cls(
            exit_code=status["exit_code"],
            step=status["step"],
            cancelled=status["cancelled"],
            tasks={label: dict(counts) for label, counts in tasks.items()},
            failures=tuple(failures),
        )

    @property
    def succeeded(self) -> bool:
        """Whether all steps succeeded."""
        return self.exit_code == 0 and self.step >= 0 and not self.cancelled

    def take_index(self, workspace: Workspace, globs: Collection[str]) -> list[dict[str, Any]]:
        """Move the index of the retrieved files out of the results; return the metrics.

        Parameters
        ----------
        workspace : `Workspace`
            The job's directories.
        globs : `~collections.abc.Collection` [`str`]
            Globs of the dataset types that hold metrics.

        Returns
        -------
        metrics : `list` [`dict`]
            ``datasetType``, ``dataId`` and ``values`` of each metric dataset.
        """
        found = workspace.output / INDEX_NAME
        kept = workspace.root / "index.json"
        if found.exists() and not workspace.output.is_symlink():
            found.replace(kept)
        try:
            index = Index.model_validate(workspace.read_job_json(kept.name))
        except ValidationError:
            return []
        metrics = []
        for name, artifact in sorted(index.artifact_map.items()):
            for ref in map(index.refs.compact_refs.get, artifact.ids):
                if ref and any(fnmatch.fnmatchcase(ref.dataset_type_name, glob) for glob in globs):
                    values = _small_dict(workspace.output, name)
                    if values is not None:
                        metrics.append(
                            {
                                "datasetType": ref.dataset_type_name,
                                "dataId": ref.data_id,
                                "values": values,
                            }
                        )
        return metrics


def _small_dict(folder: Path, name: str) -> Any:
    """Return the content of a small YAML or JSON file, as JSON types; `None` for any other file."""
    if Path(name).suffix not in (".yaml", ".json"):
        return None
    try:
        with os.fdopen(open_below(folder, name), "rb") as file:
            content = file.read(MAX_METRIC_SIZE + 1)
        if len(content) > MAX_METRIC_SIZE:
            return None
        values = yaml.safe_load(content.decode())
        # Converted to JSON types, in which it is published: no dates, no tuples
        # as keys, no lone surrogates, and null for infinite numbers and NaN.
        text = json.dumps(values, default=str, ensure_ascii=False).encode(errors="replace")
        return json.loads(text, parse_constant=lambda _: None)
    except (OSError, ValueError, TypeError, RecursionError, yaml.YAMLError):
        return None


def explain(outcome: PipetaskOutcome, workspace: Workspace) -> ErrorSummary:
    """Return why a job failed.

    Parameters
    ----------
    outcome : `PipetaskOutcome`
        The outcome.
    workspace : `Workspace`
        The job's directories.

    Returns
    -------
    error : `ErrorSummary`
        The reason in one or a few lines, with the end of the log as detail.
    """
    tail = workspace.tail(lines=60, size=65_536)
    message = _reason(outcome, workspace, tail)
    if outcome.failures:
        short_of_memory = all(name.rpartition(".")[2] == "MemoryError" for _, _, name, _ in outcome.failures)
    else:
        short_of_memory = message == OUT_OF_MEMORY
    transient = killed(outcome.exit_code) or short_of_memory
    return ErrorSummary(message, transient=transient, detail="\n".join(tail[-20:]))


def killed(code: int | None) -> bool:
    """Return whether a job with this exit code was killed from outside, and may succeed when run again.

    `None` is that of a job whose supervisor was killed. A signal by which a
    program crashes is its own fault.
    """
    return code is None or -code in KILLING


def _reason(outcome: PipetaskOutcome, workspace: Workspace, tail: list[str]) -> str:
    code = outcome.exit_code
    if code is None:
        return "its supervisor was killed, so how it ended is not known (exit code unknown)"
    text = "\n".join(tail)
    if code < 0:
        return signal_reason(-code)
    what = {
        -1: "its output run could not be prepared",
        0: "pipetask failed",
    }.get(outcome.step, "the pipeline ran, but its outputs could not be retrieved")
    if outcome.failures:
        return _quantum_reason(outcome)
    if code == 2:
        usage = [line for line in tail if line.startswith("Error: ")]
        return f"pipetask did not accept its command line: {(usage or ['?'])[-1].removeprefix('Error: ')}"
    plan = workspace.read_json("plan.json")
    query = (plan.get("query") if isinstance(plan, dict) else "") or "the data query"
    for pattern, words in _CAUSES:
        match = re.search(pattern, text)
        if match:
            found = match[1] if match.groups() else ""
            if words is None:
                words = _REGISTER if "DatasetType" in pattern else "the data query is wrong: {0}"
            return words.format(found, query=query)
    last = next((line for line in reversed(tail) if _ERROR_LINE.match(line.strip())), "")
    return f"{what} (exit code {code})" + (f": {last.strip()}" if last else "")


def signal_reason(number: int) -> str:
    """Return in words why a process was probably ended by a signal."""
    try:
        name = signal.Signals(number).name
    except ValueError:
        name = f"signal {number}"
    if number == signal.SIGKILL:
        return "it was killed (SIGKILL) by something other than OCPS; often the machine ran out of memory"
    if number in (signal.SIGSEGV, signal.SIGBUS, signal.SIGABRT, signal.SIGFPE, signal.SIGILL):
        return f"it crashed ({name}); this is a fault in compiled code, not in the data query"
    return f"it was ended by {name}"


def _quantum_reason(outcome: PipetaskOutcome) -> str:
    """Return which tasks failed on which data, with details of the first failure of each kind."""
    kinds: dict[tuple[str, str], list[tuple[Mapping[str, Any], str]]] = {}
    for label, data_id, name, message in outcome.failures:
        kinds.setdefault((label, name.rpartition(".")[2]), []).append((data_id, message))
    lines = []
    for (label, name), cases in kinds.items():
        data_id, message = cases[0]
        where = ", ".join(f"{key}={value}" for key, value in data_id.items())
        why = (
            "out of memory" if name == "MemoryError" else ": ".join(part for part in (name, message) if part)
        )
        more = f" (and {len(cases) - 1} more like it)" if len(cases) > 1 else ""
        lines.append(f"task {label} failed on {where or 'no data id'}: {why or 'no reason given'}{more}")
    total = sum(sum(counts.values()) for counts in outcome.tasks.values())
    if len(outcome.failures) > 1:
        lines[0] = f"{len(outcome.failures)} of {total} quanta failed; {lines[0]}"
    return "\n".join(lines)
