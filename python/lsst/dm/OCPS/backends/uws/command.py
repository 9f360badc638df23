# SPDX-License-Identifier: GPL-3.0-or-later
"""Scripts and commands that are forwarded to a server of the Rubin JSON dialect.

``PUT /job`` accepts one command line, which the server runs with a shell, a
git repository with a commit, and environment variables. The words of a
definition are quoted for that shell. Values that would be changed on the way,
and files that exist only on this machine, are refused when the job is
requested.
"""

from __future__ import annotations

__all__ = ["ForwardedCommandDefinition", "ForwardedCommandSpec", "command_line"]

import re
import shlex
from collections.abc import Mapping
from typing import Literal

from ...config import UwsConfig
from ...definitions.command import CommandDefinition
from ...definitions.specs import CommandSpec
from ...jobs.definition import JobDefinition
from ...jobs.errors import RequestError
from ...jobs.model import JobRequest
from ...jobs.spec import Spec
from .definition import check_value

VARIABLES = {"output_dir": "JOB_OUTPUT_DIR", "source_dir": "JOB_SOURCE_DIR"}
"""Variables of the server for places whose values only it knows.

They are not quoted, because double quotes cannot pass through the YAML of
existing servers; the directories of those have no white space.
"""

_PLACE = re.compile(r"(\{\{|\}\}|\{\w+\})")


class ForwardedCommandSpec(Spec):
    """A script or command, run by a UWS server.

    Parameters
    ----------
    command : `str`
        The command line.
    url, commit_ref : `str`
        The git repository that the server checks out, and the commit; empty
        for none.
    environment : `~collections.abc.Mapping` [`str`, `str`]
        Environment variables of the command.
    """

    kind: Literal["forwarded_command"] = "forwarded_command"
    command: str
    url: str = ""
    commit_ref: str = ""
    environment: Mapping[str, str] = {}


class ForwardedCommandDefinition(JobDefinition):
    """A script or command of a definition, run by a UWS server.

    Parameters
    ----------
    inner : `CommandDefinition`
        The definition.
    config : `UwsConfig`
        More about the server.
    """

    def __init__(self, inner: CommandDefinition, config: UwsConfig) -> None:
        super().__init__(
            inner.name,
            inner.parameters,
            description=inner.description,
            users=inner.users,
            execution_duration=inner.execution_duration,
            max_execution_duration=inner.max_execution_duration,
            priority=inner.priority,
            retries=inner.retries,
        )
        self._inner = inner
        self._config = config

    async def resolve(self, request: JobRequest, job_id: str) -> Spec:
        spec = await self._inner.resolve(request, job_id)
        if spec.files:
            names = ", ".join(sorted(spec.files))
            raise RequestError(f"{names}: a file cannot be sent to the UWS server; use the local backend")
        if spec.outputs != ("*",):
            raise RequestError(
                f"{self.name}: the UWS server keeps all outputs, it cannot choose {', '.join(spec.outputs)} "
                "(outputs of the definition)"
            )
        command = command_line(spec, job_id)
        environment = {name: _filled(text, spec, job_id) for name, text in spec.variables.items()}
        environment |= spec.environment
        if spec.version:
            environment |= dict.fromkeys(self._config.version_variables, spec.version)
        if not self._config.trusted:
            check_value("command", command)
            for name, value in environment.items():
                check_value(name, value)
        return ForwardedCommandSpec(
            command=command,
            url=spec.source.url if spec.source else "",
            commit_ref=spec.source.commit if spec.source else "",
            environment=environment,
        )


def command_line(spec: CommandSpec, job_id: str) -> str:
    """Return the words of a command as one line for a shell.

    Raises
    ------
    RequestError
        If a word needs a file or directory of this machine.
    """
    return " ".join(_quoted(word, spec, job_id) for word in spec.argv)


def _quoted(word: str, spec: CommandSpec, job_id: str) -> str:
    """Return a word with its values, quoted so that it stays one word."""
    line, text = "", ""
    for part in filter(None, _PLACE.split(word)):
        if part[1:-1] in VARIABLES:
            line += (shlex.quote(text) if text else "") + f"${{{VARIABLES[part[1:-1]]}}}"
            text = ""
        else:
            text += _value(part, spec, job_id)
    return line + (shlex.quote(text) if text or not line else "")


def _filled(text: str, spec: CommandSpec, job_id: str) -> str:
    """Return the value of a variable, which is not interpreted by a shell.

    Raises
    ------
    RequestError
        If it needs a directory of the server or of this machine.
    """
    if found := sorted(name for name in VARIABLES if f"{{{name}}}" in text):
        raise RequestError(
            f"{found[0]}: this place can be used in the command line only, not in variables, at a UWS server"
        )
    return "".join(_value(part, spec, job_id) for part in _PLACE.split(text) if part)


def _value(part: str, spec: CommandSpec, job_id: str) -> str:
    """Return the text for a part of a word: a place, a doubled brace, or text."""
    if part in ("{{", "}}"):
        return part[0]
    name = part[1:-1]
    if not _PLACE.fullmatch(part):
        return part
    if name == "job_id":
        return job_id
    if name in spec.values:
        return spec.values[name]
    raise RequestError(
        f"{name}: it exists on this machine only, not at the UWS server; use the local backend"
    )
