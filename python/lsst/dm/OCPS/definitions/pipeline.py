# SPDX-License-Identifier: GPL-3.0-or-later
"""Job definitions for one particular pipeline with its own parameters."""

from __future__ import annotations

__all__ = ["PipelineDefinition"]

import dataclasses
import shlex
from collections.abc import Mapping, Sequence
from typing import Any

from ..jobs.definition import JobDefinition
from ..jobs.errors import BackendError, RequestError
from ..jobs.model import JobRequest
from ..jobs.parameters import Parameter, check_parameters
from ..jobs.spec import Spec
from .pipetask import PipetaskDefinition
from .templates import check_words, fill, names


class PipelineDefinition(JobDefinition):
    """A definition of jobs that run a fixed pipeline with some parameters.

    Parameters
    ----------
    name : `str`
        Name of the job list.
    general : `PipetaskDefinition`
        The general pipeline job on which it is based.
    pipeline : `str`
        The pipeline.
    parameters : `~collections.abc.Sequence` [`Parameter`]
        The parameters of a request.
    options : `~collections.abc.Sequence` [`str`]
        Words for the command line of pipetask, with places ``{name}``.
    data_query : `str`
        Butler expression, with places; a text is inserted as a quoted literal.
    outputs : `~collections.abc.Sequence` [`str`]
        Globs of the dataset types that are captured; empty for the
        configured ones.
    version : `str`
        The Science Pipelines environment.
    **common
        As for `JobDefinition`.
    """

    def __init__(
        self,
        name: str,
        general: PipetaskDefinition,
        pipeline: str,
        parameters: Sequence[Parameter] = (),
        *,
        options: Sequence[str] = (),
        data_query: str = "",
        outputs: Sequence[str] = (),
        version: str = "",
        **common: Any,
    ) -> None:
        super().__init__(name, parameters, **common)
        self.general = general
        self.pipeline = pipeline
        self.options = tuple(options)
        self.data_query = data_query
        self.outputs = tuple(outputs)
        self.version = version

    async def check_ready(self) -> None:
        try:
            await self.general.check_pipeline(self.pipeline, self.version)
        except RequestError as error:
            raise BackendError(f"job definition {self.name}: {error}") from None

    async def resolve(self, request: JobRequest, job_id: str) -> Spec:
        values = check_parameters(self.parameters, request.parameters)
        check_words(self.options, self.parameters, values)
        general = {
            "pipeline": self.pipeline,
            "config": shlex.join(fill(word, values) for word in self.options),
            "data_query": fill(self.data_query, self._literals(values)),
            "output_dataset_types": ",".join(self.outputs),
            "version": self.version,
        }
        return await self.general.resolve(dataclasses.replace(request, parameters=general), job_id)

    def _literals(self, values: Mapping[str, str]) -> dict[str, str]:
        """Return values as literals of a Butler expression."""
        literals = {}
        used = names(self.data_query)
        for parameter in self.parameters:
            if parameter.name not in used:
                continue
            value = values[parameter.name]
            if parameter.type == "string":
                # The expression language cannot express these in a literal.
                if any(character in value for character in "'\\\n"):
                    raise RequestError(f"{parameter.name}: quotes, backslashes and newlines cannot be used")
                value = f"'{value}'"
            literals[parameter.name] = value
        return literals

    def places(self) -> set[str]:
        """Return the names of all places that are used."""
        return set().union(*(names(text) for text in (*self.options, self.data_query)))
