# SPDX-License-Identifier: GPL-3.0-or-later
"""The general pipeline job, which can run any allowed pipeline."""

from __future__ import annotations

__all__ = ["PIPETASK", "ButlerConfig", "PipetaskDefinition"]

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ..config import InstanceConfig
from ..jobs.definition import JobDefinition
from ..jobs.errors import RequestError
from ..jobs.file_access import look_at_files
from ..jobs.model import JobRequest
from ..jobs.parameters import Parameter, check_parameters
from ..jobs.retries import RetryPolicy
from ..jobs.spec import Spec
from .environments import Environments
from .pipeline_uri import check_allowed, check_config_file, check_exists, check_outside
from .pipetask_options import PipetaskOptions, parse_options, split_list
from .specs import PipetaskSpec

PIPETASK = "pipetask"
"""Name of the general pipeline job."""


@dataclass(frozen=True)
class ButlerConfig:
    """The Butler repository and collections of pipelines.

    Parameters
    ----------
    butler : `str`
        The repository.
    input_collection : `str`
        Comma-separated input collections.
    output_glob : `str`
        Comma-separated globs of the dataset types that are captured.
    metrics_glob : `str`
        Comma-separated globs of the dataset types that hold small metrics.
    """

    butler: str
    input_collection: str = ""
    output_glob: str = "*"
    metrics_glob: str = "*Metrics"

    @classmethod
    def of(cls, config: InstanceConfig) -> ButlerConfig:
        """Return the part of a configuration that is about data."""
        return cls(config.butler, config.input_collection, config.output_glob, config.metrics_glob)


class PipetaskDefinition(JobDefinition):
    """The general pipeline job, which can run any allowed pipeline.

    Parameters
    ----------
    name : `str`
        Name of the job list.
    data : `ButlerConfig`
        The Butler repository and collections.
    environments : `Environments`
        The environments that ``version`` may name.
    allowed_pipelines : `~collections.abc.Sequence` [`str`]
        Globs of the pipelines that may run; empty for all.
    local : `bool`
        Whether pipelines are files that this process can see.
    config_directories : `~collections.abc.Sequence` [`str`]
        Directories from which configuration files (``-C``) are allowed in
        requests without `JobRequest.trusted`.
    work_dir : `pathlib.Path` or `None`
        Directory in which jobs write: neither pipelines nor configuration
        files may be in it.
    users, retries
        As for `JobDefinition`.
    """

    # A pipeline names classes to run, and a configuration file is a Python program.
    runs_any_code = True

    PARAMETERS = (
        Parameter("pipeline", default="", description="pipeline YAML file, as pipetask takes it"),
        Parameter("version", default="", description="Science Pipelines environment; empty for the default"),
        Parameter("config", default="", description="further words of the command line of pipetask"),
        Parameter("data_query", default="", description="Butler expression"),
        Parameter("output_dataset_types", default="", description="globs of the dataset types to capture"),
        Parameter("butler", default="", description="Butler repository; only the configured one is allowed"),
    )

    def __init__(
        self,
        name: str,
        data: ButlerConfig,
        environments: Environments,
        allowed_pipelines: Sequence[str] = (),
        *,
        local: bool = True,
        config_directories: Sequence[str] = (),
        work_dir: Path | None = None,
        users: Sequence[str] = ("*",),
        retries: RetryPolicy | None = None,
    ) -> None:
        super().__init__(name, self.PARAMETERS, description="Any pipeline", users=users, retries=retries)
        self.data = data
        self.environments = environments
        self.allowed_pipelines = tuple(allowed_pipelines)
        self.local = local
        self.config_directories = tuple(config_directories)
        self.work_dir = work_dir

    async def resolve(self, request: JobRequest, job_id: str) -> Spec:
        values = check_parameters(self.PARAMETERS, request.parameters)
        if values["butler"] not in ("", self.data.butler):
            raise RequestError(f"butler: {values['butler']!r} is not the configured repository")
        pipeline, version = values["pipeline"].strip(), values["version"].strip()
        options = parse_options(values["config"])
        if "\0" in values["data_query"]:
            raise RequestError("data_query contains a NUL character")
        await look_at_files(self._check_files, version, pipeline, options, request.trusted)
        inputs = [*split_list(self.data.input_collection), *options.inputs]
        return PipetaskSpec(
            pipeline=pipeline,
            version=version,
            data_query=values["data_query"].strip(),
            run_options=values["config"],
            options=tuple(options.arguments),
            inputs=tuple(inputs),
            output_glob=split_list(values["output_dataset_types"]) or split_list(self.data.output_glob),
            metrics_glob=split_list(self.data.metrics_glob),
            butler=self.data.butler,
            output=f"u/ocps/{job_id}",
            run=f"u/ocps/{job_id}/run",
        )

    async def check_pipeline(self, pipeline: str, version: str) -> None:
        """Check that a pipeline may run, and that its file exists as far as this process can see.

        Parameters
        ----------
        pipeline : `str`
            The pipeline.
        version : `str`
            The environment; empty for the default one.

        Raises
        ------
        RequestError
            If it may not run, does not exist, or there is no such environment.
        """
        await look_at_files(self._check_files, version, pipeline, parse_options(""), True)

    def _check_files(self, version: str, pipeline: str, options: PipetaskOptions, trusted: bool) -> None:
        """Check where a pipeline and its configuration files are; runs in a thread."""
        environment = self.environments.get(version) if self.local else None
        known = environment.variables() if environment and not environment.config.setup else None
        check_allowed(pipeline, self.allowed_pipelines, known)
        if not trusted:
            for file in options.config_files:
                check_config_file(file, self.config_directories, known)
        if environment is None:
            return
        check_exists(pipeline, environment)
        if self.work_dir:
            variables = environment.variables()
            check_outside("pipeline", pipeline.partition("#")[0], self.work_dir, variables)
            for item in ",".join(options.config_files).split(","):
                check_outside("config", item.rpartition(":")[2], self.work_dir, variables)
