# SPDX-License-Identifier: GPL-3.0-or-later
"""Read job definitions from YAML files."""

from __future__ import annotations

__all__ = ["load_definitions"]

import os
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jsonschema
import yaml

from ..config import ConfigError
from ..jobs.definition import JobDefinition
from ..jobs.parameters import Parameter
from ..jobs.retries import RetryPolicy
from ..yaml_files import read_yaml
from .command import OWN_VALUES, CommandDefinition
from .pipeline import PipelineDefinition
from .pipetask import PipetaskDefinition
from .specs import Source

SCHEMA = yaml.safe_load((Path(__file__).parents[1] / "schema" / "definitions.yaml").read_text())

SHIPPED = Path(__file__).parents[1] / "config_package" / "definitions"
"""Directory of the definitions that can be named without a path."""

RESERVED = frozenset(
    {
        "phase", "runid", "action", "destruction", "executionduration", "wait", "last", "after",
        "prereq_jobs", "priority", "dryrun",
    }
)  # fmt: skip
"""Names (in lower case) that UWS or the HTTP face uses, so that no parameter may have them."""


def load_definitions(names: Iterable[str], general: PipetaskDefinition | None) -> dict[str, JobDefinition]:
    """Read job definitions.

    Parameters
    ----------
    names : `~collections.abc.Iterable` [`str`]
        Files, directories of ``*.yaml`` files, or names of shipped files.
    general : `PipetaskDefinition` or `None`
        The general pipeline job, on which definitions of pipelines are based;
        `None` if no pipelines can run.

    Returns
    -------
    definitions : `dict` [`str`, `JobDefinition`]
        The definitions by name, including ``general``.

    Raises
    ------
    ConfigError
        If a file is missing or wrong; all mistakes of a file are listed.
    """
    found: dict[str, JobDefinition] = {general.name: general} if general else {}
    for path in _files(names):
        for definition in _load_file(path, general):
            if definition.name in found:
                raise ConfigError(f"{path}: the job definition {definition.name} is defined twice")
            found[definition.name] = definition
    return found


def _files(names: Iterable[str]) -> list[Path]:
    files: list[Path] = []
    for name in names:
        path = Path(name) if "/" in name or name.endswith(".yaml") else SHIPPED / f"{name}.yaml"
        if path.is_dir():
            files += sorted(path.glob("*.yaml"))
        elif path.is_file():
            files.append(path)
        else:
            shipped = ", ".join(sorted(file.stem for file in SHIPPED.glob("*.yaml")))
            raise ConfigError(f"definitions: no file {name!r}; shipped are: {shipped}")
    return files


def _load_file(path: Path, general: PipetaskDefinition | None) -> list[JobDefinition]:
    document = read_yaml(path)
    if isinstance(document, dict) and "type" in document:
        return _job_types(path, document["type"])
    mistakes = _mistakes(document)
    if mistakes:
        raise ConfigError(f"{path}: " + "; ".join(mistakes))
    definitions = []
    for entry in document["definitions"]:
        try:
            definitions.append(_make(entry, general))
        except ValueError as error:
            mistakes.append(f"{entry['name']}: {error}")
    if mistakes:
        raise ConfigError(f"{path}: " + "; ".join(mistakes))
    return definitions


def _mistakes(document: Any) -> list[str]:
    """Return the mistakes that the schema finds in a file."""
    kinds = {kind: {**SCHEMA, **SCHEMA["definitions"][kind]} for kind in ("pipeline", "script", "command")}
    for kind in kinds.values():
        kind.pop("oneOf", None)
    if not isinstance(document, dict) or not isinstance(document.get("definitions"), list):
        return ["expected a mapping with the key definitions, a list"]
    mistakes = [f"{str(key)[:80]}: not expected" for key in document if key != "definitions"]
    for number, entry in enumerate(document["definitions"]):
        place = f"definitions/{number}"
        if not isinstance(entry, dict) or str(entry.get("kind")) not in kinds:
            mistakes.append(f"{place}: expected a mapping with kind {' or '.join(kinds)}")
            continue
        # Checked with the schema of its own kind: an error of "oneOf" would not name the mistake.
        validator = jsonschema.Draft7Validator(kinds[str(entry["kind"])])
        for error in validator.iter_errors(entry):
            where = "/".join([place, *(str(part) for part in error.absolute_path)])
            mistakes.append(f"{where}: {error.message[:300]}")
    return mistakes


def _make(entry: Mapping[str, Any], general: PipetaskDefinition | None) -> JobDefinition:
    parameters = [_parameter(name, given or {}) for name, given in entry.get("parameters", {}).items()]
    common = {
        "description": entry.get("description", ""),
        "users": entry.get("users", ["*"]),
        "execution_duration": entry.get("execution_duration", 0),
        "max_execution_duration": entry.get("max_execution_duration", 0),
        "priority": entry.get("priority", 0),
        "retries": RetryPolicy.of(entry.get("retries")),
        "version": entry.get("version", ""),
    }
    definition: CommandDefinition | PipelineDefinition
    if entry["kind"] == "pipeline":
        if general is None:
            raise ValueError("no pipelines can run, because the configuration names no butler")
        definition = PipelineDefinition(
            entry["name"],
            general,
            entry["pipeline"],
            parameters,
            options=entry.get("options", ()),
            data_query=entry.get("data_query", ""),
            outputs=entry.get("outputs", ()),
            **common,
        )
        known = {parameter.name for parameter in parameters}
    else:
        definition = CommandDefinition(
            entry["name"],
            entry["argv"],
            parameters,
            variables=entry.get("variables", {}),
            source=Source(url=entry["url"], commit=entry["commit"]) if entry["kind"] == "script" else None,
            outputs=entry.get("outputs", ("*",)),
            **common,
        )
        known = {parameter.name for parameter in parameters} | OWN_VALUES
    if lost := sorted(definition.places() - known):
        raise ValueError(f"there is no parameter {', '.join(lost)}")
    return definition


def _parameter(name: Any, entry: Mapping[str, Any]) -> Parameter:
    if not isinstance(name, str):
        raise ValueError(f"parameters/{name}: expected a text as the name; write it in quotes")
    if name.lower() in RESERVED or name in OWN_VALUES:
        raise ValueError(f"parameters/{name}: this name is reserved")
    try:
        re.compile(entry.get("pattern", ""))
    except re.error as error:
        raise ValueError(f"parameters/{name}/pattern: not a regular expression: {error}") from None
    default = entry.get("default")
    parameter = Parameter(
        name,
        entry.get("type", "string"),
        unit=entry.get("unit", ""),
        default=None if default is None else _text(default),
        min=entry.get("min"),
        max=entry.get("max"),
        options=tuple(_text(option) for option in entry.get("options", ())),
        pattern=entry.get("pattern", ""),
        references=tuple(entry.get("references", ())),
        description=entry.get("description", ""),
    )
    if parameter.default is not None:
        try:
            parameter.check(parameter.default)
        except ValueError as error:
            raise ValueError(f"parameters/{name}/default: {error}") from None
    return parameter


def _text(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _job_types(path: Path, types: Any) -> list[JobDefinition]:
    """Return definitions for the job types of a ``job_specs.yaml``: scripts and their variables."""
    if not isinstance(types, dict):
        raise ConfigError(f"{path}: type: expected a mapping of job types")
    definitions: list[JobDefinition] = []
    for name, entry in types.items():
        if not isinstance(entry, dict) or not isinstance(entry.get("script"), str):
            raise ConfigError(f"{path}: type/{name}: expected script and env")
        variables: Sequence[str] = entry.get("env") or ()
        if not isinstance(variables, list | tuple) or not all(isinstance(each, str) for each in variables):
            raise ConfigError(f"{path}: type/{name}/env: expected a list of names of variables")
        script = Path(entry["script"])
        # Paths are relative to the parent of the file's directory, or to that directory.
        candidates = (path.parent / script, path.parent.parent / script)
        found = next((file for file in candidates if file.is_file()), None)
        if found is None:
            raise ConfigError(f"{path}: type/{name}/script: there is no file {script}")
        definitions.append(
            CommandDefinition(
                name,
                [str(found.resolve())] if os.access(found, os.X_OK) else ["bash", str(found.resolve())],
                [Parameter(variable) for variable in variables],
                variables={variable: f"{{{variable}}}" for variable in variables},
                description=f"job type {name}",
            )
        )
    return definitions
