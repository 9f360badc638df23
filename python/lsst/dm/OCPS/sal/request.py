# SPDX-License-Identifier: GPL-3.0-or-later
"""Conversion of the command ``execute`` into a request to the engine."""

from __future__ import annotations

__all__ = ["FIELD_NAMES", "ORIGIN", "execute_request", "wants_dry_run"]

from typing import Any

from ..definitions.pipetask import PIPETASK
from ..jobs.errors import RequestError
from ..jobs.model import JobRequest
from ..jobs.parameters import parse_words
from .compat import field

ORIGIN = "sal"
"""The ``origin`` of jobs that were requested over SAL."""

FIELD_NAMES = {"prerequisites": "prereq_jobs", "parameters": "config", "definition": "pipeline"}
"""Fields of ``execute`` by those of `~lsst.dm.OCPS.jobs.model.JobRequest`, where the names differ."""

DRY_RUN_PREFIX = "dry-run:"
"""What ``pipeline`` begins with where the job is not to be run: before a pipeline or a job definition."""

DEFINITION_PREFIX = "job:"
"""Prefix of ``pipeline`` if it names a job definition."""


def wants_dry_run(data: Any) -> bool:
    """Return whether an ``execute`` is for a dry run."""
    return field(data, "pipeline").startswith(DRY_RUN_PREFIX)


def execute_request(data: Any) -> JobRequest:
    """Return the request for an ``execute``.

    Parameters
    ----------
    data : ``cmd_execute.DataType``
        The command.

    Raises
    ------
    RequestError
        If fields are set that cannot be combined.
    """
    parameters = {
        "pipeline": field(data, "pipeline").removeprefix(DRY_RUN_PREFIX).strip(),
        "version": field(data, "version"),
        "config": data.config,
        "data_query": data.data_query,
        "output_dataset_types": field(data, "output_dataset_types"),
    }
    prerequisites = tuple(
        job_id for part in field(data, "prereq_jobs").split(",") if (job_id := part.strip())
    )
    common: dict[str, Any] = {
        "origin": ORIGIN,
        "owner": ORIGIN,
        "prerequisites": prerequisites,
        "keep_until_published": True,
        "reserved": True,
        "exempt": True,
        # Observing scripts may name any file of configuration overrides.
        "trusted": True,
    }
    pipeline = parameters["pipeline"]
    if not pipeline.startswith(DEFINITION_PREFIX):
        return JobRequest(PIPETASK, parameters, **common)
    others = [name for name, value in parameters.items() if value and name not in ("pipeline", "config")]
    if others:
        raise RequestError(f"{', '.join(others)}: not used with {pipeline}; its parameters go into config")
    return JobRequest(pipeline.removeprefix(DEFINITION_PREFIX), parse_words(data.config), **common)
