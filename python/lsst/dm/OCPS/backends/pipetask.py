# This file is part of dm_OCPS.
#
# Developed for the Vera C. Rubin Observatory.
# License: GPL-3.0-or-later; see COPYRIGHT and LICENSE at the top of the repository.
"""Jobs that are pipelines: what may be asked for, and how it is run."""

from __future__ import annotations

__all__ = ["ButlerConfig", "PipetaskDefinition", "PipetaskPlanner"]

import asyncio
import json
import os
import re
import signal
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from ..jobs.backend import BackendUpdate
from ..jobs.definitions import JobDefinition
from ..jobs.errors import BackendError, RequestError
from ..jobs.model import ExecutionPhase, Job, JobRequest
from ..jobs.parameters import Parameter, check_parameters
from ..jobs.workspace import Workspace
from . import butler_check
from .environments import Environments
from .files import look_at_files
from .outcomes import PipetaskOutcome, explain
from .pipeline_uri import check_allowed, check_exists
from .pipetask_log import ProgressReader
from .pipetask_options import parse_options, split_list
from .zygote_client import Preload, ZygotePool

SUMMARY_NAME = "summary.json"
"""Where in the workspace pipetask writes its summary."""

CHECK_TIMEOUT = 25.0
"""How long (s) the Butler may take to answer at ``start`` and ``enable``."""


@dataclass(frozen=True)
class ButlerConfig:
    """Where a pipeline's data are.

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


class PipetaskDefinition(JobDefinition):
    """The general pipeline job: everything that ``execute`` can say.

    Parameters
    ----------
    name : `str`
        Name of the job list.
    data : `ButlerConfig`
        Where the data are.
    environments : `Environments`
        What ``version`` may name.
    allowed_pipelines : `~collections.abc.Sequence` [`str`]
        Globs of the pipelines that may run; none means all.
    local : `bool`
        Whether pipelines are files that this process can see.
    """

    PARAMETERS = (
        Parameter("pipeline", default="", description="pipeline YAML file, as pipetask takes it"),
        Parameter("version", default="", description="Science Pipelines environment; empty for the default"),
        Parameter("config", default="", description="further words of the command line of pipetask"),
        Parameter("data_query", default="", description="Butler expression"),
        Parameter("output_dataset_types", default="", description="globs of what is captured"),
        Parameter("butler", default="", description="the Butler, if given: the configured one"),
    )

    def __init__(
        self,
        name: str,
        data: ButlerConfig,
        environments: Environments,
        allowed_pipelines: Sequence[str] = (),
        *,
        local: bool = True,
    ) -> None:
        super().__init__(name, self.PARAMETERS, description="Any pipeline")
        self.data = data
        self.environments = environments
        self.allowed_pipelines = tuple(allowed_pipelines)
        self.local = local

    async def resolve(self, request: JobRequest, job_id: str) -> Mapping[str, Any]:
        values = check_parameters(self.PARAMETERS, request.parameters)
        if values["butler"] not in ("", self.data.butler):
            raise RequestError(f"butler: {values['butler']!r} is not the one that is configured here")
        pipeline = values["pipeline"].strip()
        check_allowed(pipeline, self.allowed_pipelines)
        options = parse_options(values["config"])
        if "\0" in values["data_query"]:
            raise RequestError("data_query contains a NUL character")
        if self.local:
            await look_at_files(self._check_files, values["version"].strip(), pipeline)
        inputs = [*split_list(self.data.input_collection), *options.inputs]
        return {
            "kind": "pipetask",
            "pipeline": pipeline,
            "version": values["version"].strip(),
            "data_query": values["data_query"].strip(),
            "run_options": values["config"],
            "options": list(options.arguments),
            "inputs": inputs,
            "output_glob": list(
                split_list(values["output_dataset_types"]) or split_list(self.data.output_glob)
            ),
            "metrics_glob": list(split_list(self.data.metrics_glob)),
            "butler": self.data.butler,
            "output": f"u/ocps/{job_id}",
            "run": f"u/ocps/{job_id}/run",
        }

    def _check_files(self, version: str, pipeline: str) -> None:
        check_exists(pipeline, self.environments.get(version))


class PipetaskPlanner:
    """Turns a pipeline job into commands, and what they left into words.

    Parameters
    ----------
    data : `ButlerConfig`
        Where the data are.
    environments : `Environments`
        Where the programs are.
    limits : `~collections.abc.Mapping`
        Limits of each process, see `supervisor.set_limits`.
    kill_grace : `float`
        How long (s) a job may take to end when it is told to.
    zygotes : `ZygotePool` or `None`
        Preloaded processes, which can also check the Butler.
    """

    def __init__(
        self,
        data: ButlerConfig,
        environments: Environments,
        limits: Mapping[str, Any] | None = None,
        kill_grace: float = 3.0,
        zygotes: ZygotePool | None = None,
    ) -> None:
        self.data = data
        self.environments = environments
        self.limits = dict(limits or {"core": 0})
        self.kill_grace = kill_grace
        self.zygotes = zygotes

    async def check(self) -> None:
        """Check that pipelines could run: programs, Butler, input collections.

        Raises
        ------
        BackendError
            If they could not, with the reason.
        """
        await look_at_files(self.environments.check)
        if not self.data.butler:
            raise BackendError("the configuration names no butler")
        local = not urlsplit(self.data.butler).scheme
        if local and not await look_at_files(Path(self.data.butler).exists):
            raise BackendError(f"butler {self.data.butler}: there is no such directory")
        problem = await self._check_preloaded()
        if problem is None:
            problem = await self._check_cold()
        if problem:
            raise BackendError(f"butler {self.data.butler}: {problem}")

    async def _check_preloaded(self) -> str | None:
        """Return what is wrong with the Butler; `None` if no preloaded process can tell."""
        preload = self.preload(None)
        if self.zygotes is None or preload is None:
            return None
        return await self.zygotes.check(preload, split_list(self.data.input_collection), CHECK_TIMEOUT)

    async def _check_cold(self) -> str:
        environment = self.environments.default()
        arguments = [butler_check.__file__, self.data.butler, *split_list(self.data.input_collection)]
        process = await asyncio.create_subprocess_exec(
            *environment.interpreter(),
            "-P",
            *arguments,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
            env=environment.variables(),
            start_new_session=True,
        )
        try:
            answer, _ = await asyncio.wait_for(process.communicate(), CHECK_TIMEOUT)
        except TimeoutError:
            # A set-up command may have started others.
            os.killpg(process.pid, signal.SIGKILL)
            await process.wait()
            raise BackendError(
                f"butler {self.data.butler} did not answer within {CHECK_TIMEOUT:g} s"
            ) from None
        try:
            return str(json.loads(answer.splitlines()[-1]))
        except (ValueError, IndexError):
            raise BackendError(f"the Butler check failed with exit code {process.returncode}") from None

    def preload(self, job: Job | None) -> Preload | None:
        """Return the preloaded process for a job, see `Planner`."""
        environment = self.environments.get(job.spec["version"] if job else "")
        if not environment.config.preload:
            return None
        # For a pattern, such as w_*, there is no version yet.
        if job is None and environment.config.setup and "*" in environment.version:
            return None
        butler = job.spec["butler"] if job else self.data.butler
        return Preload(environment.version, tuple(environment.interpreter()), environment.variables(), butler)

    def plan(self, job: Job, workspace: Workspace) -> dict[str, Any]:
        """Return the plan (see `supervisor`) of a job."""
        spec = job.spec
        environment = self.environments.get(spec["version"])
        run = [
            "pipetask",
            "--long-log",
            "run",
            "--butler-config",
            spec["butler"],
            "--input",
            ",".join(spec["inputs"]),
            "--output",
            spec["output"],
            "--output-run",
            spec["run"],
            "--pipeline",
            spec["pipeline"],
            "--summary",
            str(workspace.root / SUMMARY_NAME),
            *spec["options"],
        ]
        if spec["data_query"]:
            run += ["--data-query", spec["data_query"]]
        retrieve = [
            "butler",
            "retrieve-artifacts",
            spec["butler"],
            str(workspace.output),
            "--collections",
            spec["run"],
            "--transfer",
            "copy",
            "--no-preserve-path",
        ]
        for glob in dict.fromkeys([*spec["output_glob"], *spec["metrics_glob"]]):
            retrieve += ["--dataset-type", as_pattern(glob)]
        return {
            "steps": [{"argv": environment.command(argv), "tool": argv} for argv in (run, retrieve)],
            "environment": environment.variables() | job_variables(job, workspace),
            "cwd": str(workspace.output),
            "log": str(workspace.log),
            "limits": self.limits,
            "kill_grace": self.kill_grace,
            "query": spec["data_query"],
        }

    def progress_source(self, workspace: Workspace) -> ProgressReader:
        """Return what tells how far a job is."""
        return ProgressReader(workspace.log)

    def ending(self, job: Job, workspace: Workspace, status: Mapping[str, Any] | None) -> BackendUpdate:
        """Say how a job ended; may take a while, so not for the event loop.

        Parameters
        ----------
        job : `Job`
            Which one.
        workspace : `Workspace`
            Its files.
        status : `~collections.abc.Mapping` or `None`
            What the supervisor wrote, `None` if it was killed before.
        """
        outcome = PipetaskOutcome.read(workspace, status, SUMMARY_NAME)
        metrics = outcome.take_index(workspace, job.spec)
        info: dict[str, Any] = {"exitCode": outcome.exit_code, "logTail": workspace.tail()}
        if metrics:
            info["metrics"] = metrics
        if outcome.tasks:
            info["tasks"] = outcome.tasks
        if status:
            info |= {"cpuTime": status["cpu"], "maxRss": status["max_rss"]}
        common: dict[str, Any] = {
            "exit_code": outcome.exit_code,
            "results": workspace.results(),
            "info": info,
        }
        if outcome.cancelled:
            return BackendUpdate(phase=ExecutionPhase.ABORTED, **common)
        if outcome.succeeded:
            return BackendUpdate(phase=ExecutionPhase.COMPLETED, **common)
        return BackendUpdate(phase=ExecutionPhase.ERROR, error=explain(outcome, workspace), **common)


def as_pattern(glob: str) -> str:
    """Return a glob that the Butler takes for a pattern, also if it is a plain name.

    A plain name that does not exist makes ``butler retrieve-artifacts`` find
    nothing at all, for the other names too.
    """
    return glob if re.search(r"[*?\[]", glob) else f"[{glob[0]}]{glob[1:]}"


def job_variables(job: Job, workspace: Workspace) -> dict[str, str]:
    """Return the environment variables that tell a process which job it is."""
    return {"JOB_ID": job.id, "JOB_OUTPUT_DIR": str(workspace.output)}
