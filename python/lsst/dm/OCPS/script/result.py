# SPDX-License-Identifier: GPL-3.0-or-later
"""The result of a job, typed."""

from __future__ import annotations

__all__ = ["DryRun", "JobFailedError", "JobResult", "Metric", "Output"]

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit


@dataclass(frozen=True)
class Output:
    """An output file of a job: its log, a picture, a dataset."""

    id: int
    uri: str

    @property
    def path(self) -> Path:
        """Where the file is, if that is a place in a file system.

        Raises
        ------
        ValueError
            If it is elsewhere.
        """
        parts = urlsplit(self.uri)
        if parts.scheme not in ("", "file"):
            raise ValueError(f"{self.uri} is no file of a file system")
        return Path(unquote(parts.path))

    @property
    def name(self) -> str:
        """Name of the file."""
        return unquote(urlsplit(self.uri).path).rpartition("/")[2]


@dataclass(frozen=True)
class Metric:
    """Small values that a pipeline measured, with their dataset type and data id."""

    dataset_type: str
    data_id: Mapping[str, Any]
    values: Mapping[str, Any]


@dataclass(frozen=True)
class DryRun:
    """What a job would do; nothing was run."""

    quanta: int | None
    """How many quanta there would be; `None` if there is no quantum graph."""
    tasks: Mapping[str, int]
    """How many of each task."""
    argv: tuple[str, ...]
    """The command line that a script or command would be, without secrets."""
    checked: str
    """What was checked, where there is neither a quantum graph nor a command line."""
    more: int
    """How many tasks or words had no room in the answer: SAL limits it to 256 characters."""

    @classmethod
    def from_ack(cls, text: str) -> DryRun:
        """Return what the final acknowledgement says.

        Raises
        ------
        ValueError
            If it is not that of a dry run.
        """
        try:
            document = json.loads(text)
            return cls(
                quanta=document.get("quanta"),
                tasks=dict(document.get("tasks") or {}),
                argv=tuple(document.get("argv") or ()),
                checked=document.get("checked", ""),
                more=document.get("more", 0),
            )
        except (ValueError, TypeError, AttributeError):
            raise ValueError(f"the answer to a dry run cannot be understood: {text!r}") from None


@dataclass(frozen=True)
class JobResult:
    """The result of a job: how it ended, its outputs and its metrics."""

    job_id: str
    phase: str
    """``completed``, ``error`` or ``aborted``."""
    exit_code: int
    """0 for completed, 1 for error, 255 for aborted."""
    message: str
    """Why it did not complete; empty if it did."""
    outputs: tuple[Output, ...]
    metrics: tuple[Metric, ...]
    document: Mapping[str, Any] = field(repr=False)
    """The whole document that OCPS published."""

    @classmethod
    def from_event(cls, data: Any) -> JobResult:
        """Return the result in an event ``job_result``.

        Parameters
        ----------
        data : sample of ``job_result``
            The event.

        Raises
        ------
        ValueError
            If its JSON is not as expected.
        """
        try:
            document = json.loads(data.result)
            info = document.get("jobInfo") or {}
            return cls(
                job_id=data.job_id,
                phase=document["phase"],
                exit_code=data.exit_code,
                message=(document.get("errorSummary") or {}).get("message") or "",
                outputs=tuple(Output(item["id"], item["uri"]) for item in document.get("results") or ()),
                metrics=tuple(
                    Metric(item["datasetType"], item["dataId"], item["values"])
                    for item in info.get("metrics") or ()
                ),
                document=document,
            )
        except (ValueError, LookupError, TypeError, AttributeError) as error:
            raise ValueError(f"the result of job {data.job_id!r} cannot be understood: {error!r}") from None

    @property
    def completed(self) -> bool:
        """Whether the job completed."""
        return self.phase == "completed"

    def metric(self, dataset_type: str) -> Mapping[str, Any]:
        """Return the values of the only metric of a dataset type.

        Raises
        ------
        LookupError
            If there is none, or more than one.
        """
        found = [metric.values for metric in self.metrics if metric.dataset_type == dataset_type]
        if len(found) != 1:
            raise LookupError(
                f"job {self.job_id} has {len(found) or 'no'} metrics {dataset_type}; expected one"
            )
        return found[0]

    def raise_for_failure(self) -> None:
        """Raise `JobFailedError` unless the job completed."""
        if not self.completed:
            raise JobFailedError(self)


class JobFailedError(RuntimeError):
    """A job ended as error or aborted.

    Parameters
    ----------
    result : `JobResult`
        Its result.
    """

    def __init__(self, result: JobResult) -> None:
        words = "was aborted" if result.phase == "aborted" else "failed"
        super().__init__(f"Job {result.job_id} {words}: {result.message or 'no reason is known'}")
        self.result = result
