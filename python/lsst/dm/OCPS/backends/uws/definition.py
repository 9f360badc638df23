# SPDX-License-Identifier: GPL-3.0-or-later
"""What is sent to a UWS server for an ``execute``, and what cannot be sent.

Between ``execute`` and ``pipetask`` lie, on servers of today, a YAML template
into which values are put without quoting, Kubernetes, which fills in ``$(…)``
and makes ``$$`` into ``$``, and a shell script that expands ``$RUN_OPTIONS``
without quotes but all else with. Values that would come out changed are
refused when the job is asked for, not discovered in its results.

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
        Where the data are, as the server sees them.
    allowed_pipelines : `~collections.abc.Sequence` [`str`]
        Globs of the pipelines that may run; none means all.
    config : `UwsConfig`
        What the server is to run.
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
        # Pipelines and environments are the server's: it alone can look.
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
        Whether the server splits words as a shell does; then all can pass.

    Raises
    ------
    RequestError
        If a word would not come out as it is.
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
    """Check that a value reaches the job as it is.

    Parameters
    ----------
    name : `str`
        The environment variable.
    value : `str`
        Its value.

    Raises
    ------
    RequestError
        If it would not.
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
    # YAML takes more than \n for the end of a line, and no control characters.
    if not value.isprintable():
        raise _refusal(name, "a character that cannot be printed", value)


def _refusal(name: str, what: str, value: str) -> RequestError:
    shown = value if len(value) <= 80 else f"{value[:77]}..."
    return RequestError(f"{name} cannot pass unharmed to the UWS server: {what} in {shown!r}; {_ADVICE}")
