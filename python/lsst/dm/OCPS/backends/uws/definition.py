# SPDX-License-Identifier: GPL-3.0-or-later
"""Pipelines that are forwarded to a UWS server, and the values that cannot be forwarded.

On existing servers a value passes through a YAML template that does not quote
it, through Kubernetes, which expands ``$(…)`` and turns ``$$`` into ``$``,
and through a shell script that expands ``$RUN_OPTIONS`` without quotes (and
all other variables with quotes). Values that would be changed on this way are
refused when the job is requested.

The script (``bin/pipetask.sh`` of uws_scripts) adds ``-p``, ``-b``, ``-o``,
``--output-run`` and ``-d`` by itself, with ``u/ocps/$JOB_ID`` as output;
RUN_OPTIONS carries ``-i`` and the rest.
"""

from __future__ import annotations

__all__ = ["UwsDefinition", "check_value", "run_options"]

import shlex
from collections.abc import Sequence

from ...config import UwsConfig
from ...definitions.environments import Environments
from ...definitions.pipetask import ButlerConfig, PipetaskDefinition
from ...definitions.specs import ForwardedSpec, PipetaskSpec
from ...jobs.errors import RequestError
from ...jobs.model import JobRequest
from ...jobs.retries import RetryPolicy
from ...jobs.spec import Spec

_ADVICE = "use a configuration file, or the local backend"


class UwsDefinition(PipetaskDefinition):
    """The general pipeline job, run by a UWS server.

    Parameters
    ----------
    name : `str`
        Name of the job list.
    data : `ButlerConfig`
        The Butler repository and collections, as the server sees them.
    allowed_pipelines : `~collections.abc.Sequence` [`str`]
        Globs of the pipelines that may run; empty for all.
    config : `UwsConfig`
        The command that the server runs, and more about the server.
    config_directories, users, retries
        As for `PipetaskDefinition`.
    """

    def __init__(
        self,
        name: str,
        data: ButlerConfig,
        allowed_pipelines: Sequence[str],
        config: UwsConfig,
        config_directories: Sequence[str] = (),
        users: Sequence[str] = ("*",),
        retries: RetryPolicy | None = None,
    ) -> None:
        # Pipelines and environments are on the server, so they cannot be checked here.
        super().__init__(
            name,
            data,
            Environments(()),
            allowed_pipelines,
            local=False,
            config_directories=config_directories,
            users=users,
            retries=retries,
        )
        self.config = config

    async def resolve(self, request: JobRequest, job_id: str) -> Spec:
        spec = await super().resolve(request, job_id)
        assert isinstance(spec, PipetaskSpec)
        environment = {
            "PIPELINE_URL": spec.pipeline,
            "BUTLER_REPO": spec.butler,
            "RUN_OPTIONS": run_options(spec.inputs, spec.options, trusted=self.config.trusted),
            "OUTPUT_GLOB": ",".join(spec.output_glob),
            "DATA_QUERY": spec.data_query,
        }
        if spec.version:
            environment |= dict.fromkeys(self.config.version_variables, spec.version)
        if not self.config.trusted:
            for name, value in environment.items():
                check_value(name, value)
        return ForwardedSpec(
            **spec.model_dump(exclude={"kind"}),
            command=self.config.command,
            url=self.config.source_url,
            commit_ref=self.config.commit_ref,
            environment=environment,
        )


def run_options(inputs: Sequence[str], options: Sequence[str], *, trusted: bool = False) -> str:
    """Return the value of RUN_OPTIONS.

    Parameters
    ----------
    inputs : `~collections.abc.Sequence` [`str`]
        Input collections.
    options : `~collections.abc.Sequence` [`str`]
        Other words of the command line.
    trusted : `bool`
        Whether the server splits the value by the rules of a shell, so that
        all words can be quoted.

    Raises
    ------
    RequestError
        If a word would be changed on the way.
    """
    words = [*(("-i", ",".join(inputs)) if inputs else ()), *options]
    if trusted:
        return shlex.join(words)
    for word in words:
        if not word:
            raise _refusal("RUN_OPTIONS", "an empty word", word)
        for character in word:
            if character.isspace():
                raise _refusal("RUN_OPTIONS", "white space inside one option", word)
            if character in "*?[":
                raise _refusal("RUN_OPTIONS", f"{character} (the script would expand it)", word)
            if character in "'`":
                raise _refusal("RUN_OPTIONS", f"the quote {character}", word)
        check_value("RUN_OPTIONS", word)
    return " ".join(words)


def check_value(name: str, value: str) -> None:
    """Check that a value reaches the job unchanged.

    Parameters
    ----------
    name : `str`
        The environment variable.
    value : `str`
        Its value.

    Raises
    ------
    RequestError
        If the value would be changed.
    """
    for bad, words in (
        ('"', 'the quote "'),
        ("\\", "a backslash"),
        ("\n", "a newline"),
        ("$(", "$("),
        ("$$", "$$"),
    ):
        if bad in value:
            raise _refusal(name, words, value)
    # YAML treats more characters than \n as line ends, and allows no control characters.
    if not value.isprintable():
        raise _refusal(name, "a character that cannot be printed", value)


def _refusal(name: str, what: str, value: str) -> RequestError:
    shown = value if len(value) <= 80 else f"{value[:77]}..."
    return RequestError(f"{name} cannot be sent unchanged to the UWS server: {what} in {shown!r}; {_ADVICE}")
