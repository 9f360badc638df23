# SPDX-License-Identifier: GPL-3.0-or-later
"""Command lines that clients of the JSON dialect send, where they are allowed."""

from __future__ import annotations

__all__ = ["ShellDefinition"]

import fnmatch
import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from ..config import CommandConfig
from ..jobs.definition import COMMAND
from ..jobs.errors import NotAllowedError, RequestError
from ..jobs.model import JobRequest
from ..jobs.parameters import Parameter, check_parameters
from .command import CommandDefinition

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")

# They would change which programs run, whatever the command line says.
_NOT_SET = re.compile(
    r"LD_.*|PATH|ENV|BASH.*|SHELLOPTS|IFS|PS4|HOME|PYTHON.*|PERL.*|GIT_.*|JOB_.*|SRC_GIT_URL|.*_PROXY|.*_proxy"
)


class ShellDefinition(CommandDefinition):
    """A command line, run by bash, if the configuration lists it.

    Parameters
    ----------
    allowed : `~collections.abc.Sequence` [`CommandConfig`]
        What may be run.
    """

    def __init__(self, allowed: Sequence[CommandConfig]) -> None:
        super().__init__(
            COMMAND,
            ["bash", "-c", "{command}"],
            [
                Parameter("command", description="the command line"),
                Parameter("url", default="", description="git repository that is checked out for it"),
                Parameter("commit_ref", default="", description="commit, branch or tag of it"),
                Parameter("environment", default="{}", description="variables, as a JSON object"),
            ],
            description="A command line that the configuration allows",
        )
        self.allowed = tuple(allowed)

    async def resolve(self, request: JobRequest, job_id: str) -> Mapping[str, Any]:
        values = check_parameters(self.parameters, request.parameters)
        self._check_allowed(values)
        source = None
        if values["url"]:
            commit = values["commit_ref"] or "HEAD"
            if values["url"].startswith("-") or commit.startswith("-"):
                raise RequestError("url, commit_ref: must not begin with a hyphen")
            source = {"url": values["url"], "commit": commit}
        return {
            "kind": "command",
            "command": values["command"],
            "argv": list(self.argv),
            "variables": {},
            "environment": _parse_environment(values["environment"]),
            "values": values,
            "files": {},
            "source": source,
            "outputs": list(self.outputs),
            "version": "",
        }

    def _check_allowed(self, values: Mapping[str, str]) -> None:
        for allowed in self.allowed:
            globs = (allowed.command, allowed.url, allowed.commit_ref)
            given = (values["command"], values["url"], values["commit_ref"])
            if all(fnmatch.fnmatchcase(text, glob) for text, glob in zip(given, globs, strict=True)):
                return
        raise NotAllowedError(
            f"command {values['command'][:200]!r} with url {values['url'][:200]!r} and commit_ref "
            f"{values['commit_ref'][:80]!r} is not among the configured commands"
        )


def _parse_environment(text: str) -> dict[str, str]:
    try:
        environment = json.loads(text)
    except (ValueError, RecursionError):
        environment = None
    if not isinstance(environment, dict):
        raise RequestError("environment: expected a JSON object")
    mistakes = []
    for name, value in environment.items():
        if not isinstance(value, str) or "\0" in value:
            mistakes.append(f"environment/{name[:80]}: expected a text")
        elif not _NAME.fullmatch(name):
            mistakes.append(f"environment/{name[:80]}: not the name of a variable")
        elif _NOT_SET.fullmatch(name):
            mistakes.append(f"environment/{name}: this one is set by OCPS alone")
    if mistakes:
        raise RequestError("; ".join(mistakes))
    return environment
