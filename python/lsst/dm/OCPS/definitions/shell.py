# SPDX-License-Identifier: GPL-3.0-or-later
"""Command lines from clients of the JSON dialect, as far as the configuration allows them.

A configured command without ``*``, ``?`` or ``[`` allows exactly this text,
which is run by bash. A configured command with globs allows single words: the
client's command line is split by the rules of a shell, each word is compared
with the glob in its place, and the words are run without a shell.
"""

from __future__ import annotations

__all__ = ["COMMAND", "ShellDefinition"]

import fnmatch
import json
import re
import shlex
from collections.abc import Mapping, Sequence

from ..config import CommandConfig, ConfigError
from ..jobs.errors import NotAllowedError, RequestError
from ..jobs.model import JobRequest
from ..jobs.parameters import Parameter, check_parameters
from ..programs.fetch import Address
from .command import CommandDefinition
from .specs import CommandSpec, Source

COMMAND = "command"
"""Name of the job definition for such command lines."""

PIPETASK_VARIABLES = frozenset(
    {
        "PIPELINE_URL",
        "BUTLER_REPO",
        "RUN_OPTIONS",
        "DATA_QUERY",
        "OUTPUT_GLOB",
        "EUPS_TAG",
        "IMAGE_TAG",
        "UWS_JOB_IMAGE_TAG",
    }
)
"""Environment variables that clients may set for every command: those of the script that runs pipetask."""

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_SHELL = re.compile(r"[;&|<>`$()\n]")
_GLOB = re.compile(r"[*?\[]")
_COMMIT = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_./+-]{0,255}")

# These variables can change which programs run, so a glob of names never includes them.
_NEVER_BY_GLOB = re.compile(
    r"LD_.*|DYLD_.*|(.*_)?PATH|ENV|BASH.*|SHELL.*|IFS|PS\d|PROMPT_COMMAND|HOME|XDG_.*|TMPDIR|EDITOR|VISUAL|PAGER|"
    r"PYTHON.*|PERL.*|RUBY.*|NODE.*|JAVA.*|GIT_.*|SSH_.*|JOB_.*|SRC_GIT_URL|.*_proxy|GCONV_PATH|NLSPATH|"
    r"MALLOC.*|SSL_.*|CURL_.*|GLIBC_.*|LOCPATH|EUPS_(PATH|DIR).*|DAF_BUTLER_.*",
    re.IGNORECASE,
)


class ShellDefinition(CommandDefinition):
    """A command line that the configuration allows.

    Parameters
    ----------
    allowed : `~collections.abc.Sequence` [`CommandConfig`]
        The configured commands.
    users : `~collections.abc.Sequence` [`str`]
        As for `JobDefinition`.
    """

    runs_any_code = True

    def __init__(self, allowed: Sequence[CommandConfig], users: Sequence[str] = ("*",)) -> None:
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
            users=users,
        )
        self.allowed = tuple(allowed)
        for command in self.allowed:
            _check_config(command)

    async def resolve(self, request: JobRequest, job_id: str) -> CommandSpec:
        values = check_parameters(self.parameters, request.parameters)
        allowed, argv = self._find(values)
        source = None
        if values["url"]:
            source = Source(url=values["url"], commit=values["commit_ref"] or "HEAD")
        return CommandSpec(
            command=values["command"],
            argv=tuple(argv),
            environment=_parse_environment(values["environment"], allowed.variables),
            values=values,
            source=source,
            outputs=self.outputs,
        )

    def _find(self, values: Mapping[str, str]) -> tuple[CommandConfig, list[str]]:
        """Return the configured command that allows a command, and the words to run.

        Raises
        ------
        NotAllowedError
            If no configured command allows it.
        """
        for allowed in self.allowed:
            argv = _words(values["command"], allowed.command)
            if argv and _is_source_allowed(values["url"], values["commit_ref"], allowed):
                return allowed, argv
        raise NotAllowedError(
            f"command {values['command'][:200]!r} with url {values['url'][:200]!r} and commit_ref "
            f"{values['commit_ref'][:80]!r} is not among the configured commands"
        )


def _check_config(config: CommandConfig) -> None:
    """Refuse a configured command that has globs and needs a shell.

    Raises
    ------
    ConfigError
        If it does.
    """
    if not _GLOB.search(config.command):
        return
    try:
        words = shlex.split(config.command)
    except ValueError as error:
        raise ConfigError(f"commands: {config.command!r}: {error}") from None
    if found := next((word for word in words if _SHELL.search(word)), ""):
        raise ConfigError(
            f"commands: {config.command!r} has globs, so no shell runs it, but {found!r} needs one; "
            "list each command line without globs instead"
        )


def _words(command: str, allowed: str) -> list[str] | None:
    """Return the words to run, as templates; `None` if the command is not allowed."""
    if not _GLOB.search(allowed):
        return ["bash", "-c", "{command}"] if command == allowed else None
    try:
        words, globs = shlex.split(command), shlex.split(allowed)
    except ValueError:
        return None
    if len(words) != len(globs) or not words:
        return None
    if not all(_is_word_allowed(word, glob) for word, glob in zip(words, globs, strict=True)):
        return None
    # A glob in the program's name must not match programs in other directories.
    if words[0].count("/") != globs[0].count("/"):
        return None
    return [word.replace("{", "{{").replace("}", "}}") for word in words]


def _is_word_allowed(word: str, glob: str) -> bool:
    if word == glob:
        return True
    if not _GLOB.search(glob) or (word.startswith("-") and not glob.startswith("-")):
        return False
    if ".." in word.split("/") or not word.isprintable():
        return False
    return fnmatch.fnmatchcase(word, glob)


def _is_source_allowed(url: str, commit: str, allowed: CommandConfig) -> bool:
    if bool(url) != bool(allowed.url):
        return False
    if not url:
        return not commit and not allowed.commit_ref
    if commit and not (_COMMIT.fullmatch(commit) and ".." not in commit):
        return False
    if not fnmatch.fnmatchcase(commit, allowed.commit_ref):
        return False
    if url == allowed.url and not _GLOB.search(url):
        return not url.startswith("-") and "::" not in url
    try:
        return Address.parse(url).matches(Address.parse(allowed.url))
    except ValueError:
        return False


def _parse_environment(text: str, allowed: Sequence[str]) -> dict[str, str]:
    """Return the environment variables that a client has set.

    Raises
    ------
    RequestError
        If one is wrong or not allowed; all mistakes are listed.
    """
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
        elif not _is_variable_allowed(name, allowed):
            known = ", ".join(sorted({*PIPETASK_VARIABLES, *allowed}))
            mistakes.append(f"environment/{name[:80]}: this command may be given {known} only")
    if mistakes:
        raise RequestError("; ".join(mistakes))
    return environment


def _is_variable_allowed(name: str, allowed: Sequence[str]) -> bool:
    if name in PIPETASK_VARIABLES or name in allowed:
        return True
    by_glob = any(fnmatch.fnmatchcase(name, glob) for glob in allowed)
    return by_glob and not _NEVER_BY_GLOB.fullmatch(name)
