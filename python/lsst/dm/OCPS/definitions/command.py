# SPDX-License-Identifier: GPL-3.0-or-later
"""Jobs that are commands: programs of this machine, or scripts at a git commit.

A definition has the command line as a list of words with places for
parameters. A value stays within its word, whatever it contains: no shell ever
sees it.
"""

from __future__ import annotations

__all__ = ["OWN_VALUES", "CommandDefinition"]

from collections.abc import Mapping, Sequence
from typing import Any

from ..jobs.definition import JobDefinition
from ..jobs.model import JobRequest
from ..jobs.parameters import Parameter, check_parameters
from .specs import CommandSpec, FileValue, Source
from .templates import check_words, names

OWN_VALUES = frozenset({"job_id", "output_dir", "input_dir", "source_dir", "python", "ocps_dir"})
"""Places that every command may have beside those for its parameters."""


class CommandDefinition(JobDefinition):
    """A command with parameters.

    Parameters
    ----------
    name : `str`
        Name of the job list.
    argv : `~collections.abc.Sequence` [`str`]
        Words of the command line, with places.
    parameters : `~collections.abc.Sequence` [`Parameter`]
        What may be given.
    variables : `~collections.abc.Mapping` [`str`, `str`]
        Environment variables of the job, with places.
    source : `Source` or `None`
        What is checked out for it.
    outputs : `~collections.abc.Sequence` [`str`]
        Globs of the files in the output directory that are results; the log
        always is.
    version : `str`
        The Science Pipelines environment it runs in.
    **common
        As for `JobDefinition`.
    """

    def __init__(
        self,
        name: str,
        argv: Sequence[str],
        parameters: Sequence[Parameter] = (),
        *,
        variables: Mapping[str, str] | None = None,
        source: Source | None = None,
        outputs: Sequence[str] = ("*",),
        version: str = "",
        **common: Any,
    ) -> None:
        super().__init__(name, parameters, **common)
        self.argv = tuple(argv)
        self.variables = dict(variables or {})
        self.source = source
        self.outputs = tuple(outputs)
        self.version = version

    async def resolve(self, request: JobRequest, job_id: str) -> CommandSpec:
        values = check_parameters(self.parameters, request.parameters)
        check_words(self.argv[1:], self.parameters, values)
        files = [parameter for parameter in self.parameters if parameter.type == "file"]
        return CommandSpec(
            argv=self.argv,
            variables=self.variables,
            values=values,
            files={
                file.name: FileValue(value=values[file.name], references=file.references)
                for file in files
                if values.get(file.name)
            },
            source=self.source,
            outputs=self.outputs,
            version=self.version,
        )

    def places(self) -> set[str]:
        """Return the names of all places that are used."""
        return set().union(*(names(text) for text in (*self.argv, *self.variables.values())))
