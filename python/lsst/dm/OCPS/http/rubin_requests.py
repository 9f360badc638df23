# SPDX-License-Identifier: GPL-3.0-or-later
"""Conversion of requests of the JSON dialect into `JobRequest`."""

from __future__ import annotations

__all__ = ["from_post", "from_put"]

import json
import re
from collections.abc import Mapping
from typing import Any

from ..definitions.pipetask import PIPETASK
from ..definitions.shell import COMMAND
from ..jobs.definition import JobDefinition
from ..jobs.errors import NotAllowedError, RequestError
from ..jobs.model import JobRequest
from .context import ORIGIN

# The form of a Kubernetes label, in which existing servers store the run id.
_RUN_ID = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?")

_PIPETASK_SCRIPT = "bin/pipetask.sh"
"""End of a command line that means a pipeline; OCPS runs pipetask itself instead of that script."""

# Environment variables of that script, with the corresponding parameters.
_PARAMETERS = {
    "PIPELINE_URL": "pipeline",
    "RUN_OPTIONS": "config",
    "DATA_QUERY": "data_query",
    "OUTPUT_GLOB": "output_dataset_types",
    "EUPS_TAG": "version",
    "UWS_JOB_IMAGE_TAG": "version",
    "IMAGE_TAG": "version",
    "BUTLER_REPO": "butler",
}


def from_put(body: Mapping[str, Any], owner: str, definitions: Mapping[str, JobDefinition]) -> JobRequest:
    """Return the request of a ``PUT /job``.

    Parameters
    ----------
    body : `~collections.abc.Mapping`
        ``command``, and perhaps ``run_id``, ``url``, ``commit_ref``,
        ``environment`` (list of ``name`` and ``value``), ``replicas``.
    owner : `str`
        The caller.
    definitions : `~collections.abc.Mapping` [`str`, `JobDefinition`]
        The job definitions.

    Raises
    ------
    RequestError
        If the body is not valid; all mistakes are listed.
    NotAllowedError
        If the configuration allows no commands.
    """
    mistakes = _check_types(body, {"command": str, "run_id": str, "url": str, "commit_ref": str})
    if not body.get("command"):
        mistakes.append("command: must be given")
    if body.get("replicas", 1) != 1:
        mistakes.append("replicas: only 1 is supported")
    environment = _environment(body.get("environment", []), mistakes)
    run_id = _run_id(body, mistakes)
    if mistakes:
        raise RequestError("; ".join(mistakes))
    common: dict[str, Any] = {"run_id": run_id, "owner": owner, "origin": ORIGIN}
    if body["command"].rstrip().endswith(_PIPETASK_SCRIPT) and "PIPELINE_URL" in environment:
        return JobRequest(PIPETASK, _pipeline(environment), **common)
    if COMMAND not in definitions:
        raise NotAllowedError("command: this server runs pipelines only (commands is not configured)")
    parameters = {name: body.get(name) or "" for name in ("command", "url", "commit_ref")}
    return JobRequest(COMMAND, parameters | {"environment": json.dumps(environment)}, **common)


def _pipeline(environment: Mapping[str, str]) -> dict[str, str]:
    """Return the parameters of a pipeline job from the script's environment variables."""
    parameters: dict[str, str] = {}
    for variable, name in _PARAMETERS.items():
        value = environment.get(variable)
        if value and parameters.setdefault(name, value) != value:
            raise RequestError(f"environment: {variable} is {value!r}, but another has {parameters[name]!r}")
    return parameters


def from_post(body: Mapping[str, Any], owner: str) -> JobRequest:
    """Return the request of a ``POST /job``.

    Parameters
    ----------
    body : `~collections.abc.Mapping`
        ``type``, the job definition; ``env``, its parameters; perhaps
        ``log_dir``, which is ignored: logs are with the results.
    owner : `str`
        The caller.

    Raises
    ------
    RequestError
        If the body is not valid; all mistakes are listed.
    """
    mistakes = _check_types(body, {"type": str, "run_id": str, "log_dir": str, "env": dict})
    if not body.get("type"):
        mistakes.append("type: must be given")
    parameters = {}
    environment = body.get("env") or {}
    for name, value in environment.items() if isinstance(environment, dict) else ():
        if isinstance(value, bool):
            parameters[name] = str(value).lower()
        elif isinstance(value, str | int | float):
            parameters[name] = str(value)
        else:
            mistakes.append(f"env/{name[:80]}: expected a text, a number, true or false")
    run_id = _run_id(body, mistakes)
    if mistakes:
        raise RequestError("; ".join(mistakes))
    return JobRequest(body["type"], parameters, run_id=run_id, owner=owner, origin=ORIGIN)


def _run_id(body: Mapping[str, Any], mistakes: list[str]) -> str:
    run_id = body.get("run_id") or ""
    if isinstance(run_id, str) and run_id and not _RUN_ID.fullmatch(run_id):
        mistakes.append(
            "run_id: must be 63 characters or less, of letters, digits, dashes, underscores and dots, "
            "and begin and end with a letter or digit"
        )
    return str(run_id)


def _check_types(body: Mapping[str, Any], types: Mapping[str, type]) -> list[str]:
    return [
        f"{name}: expected {'an object' if kind is dict else 'a text'}"
        for name, kind in types.items()
        if body.get(name) is not None and not isinstance(body[name], kind)
    ]


def _environment(value: Any, mistakes: list[str]) -> dict[str, str]:
    found: dict[str, str] = {}
    for number, entry in enumerate(value if isinstance(value, list) else [None]):
        match entry:
            case {"name": str(name), "value": str() | int() | float() as given}:
                found[name] = str(given)
            case _:
                mistakes.append(f"environment/{number}: expected an object with name and value")
    return found
