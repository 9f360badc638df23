# SPDX-License-Identifier: GPL-3.0-or-later
"""The planner of pipeline jobs."""

from __future__ import annotations

__all__ = ["PipetaskPlanner"]

import asyncio
import contextlib
import json
import os
import re
import signal
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from ...definitions.environments import Environments
from ...definitions.pipetask import ButlerConfig
from ...definitions.pipetask_options import graph_options, split_list
from ...definitions.specs import PipetaskSpec
from ...jobs.backend import BackendUpdate
from ...jobs.dry_run import DryRun
from ...jobs.errors import BackendError, WouldFailError
from ...jobs.file_access import look_at_files
from ...jobs.model import ExecutionPhase, Job
from ...jobs.workspace import Workspace
from . import butler_check, prepare_run
from .butler_checks import ButlerChecks
from .journals import roll_back
from .pipetask_outcome import PipetaskOutcome, count_quanta, explain
from .pipetask_progress import ProgressReader
from .planner import job_variables
from .zygote.pool import Preload, ZygotePool

SUMMARY_NAME = "summary.json"
"""Name of the summary that pipetask writes into the workspace."""

CHECK_TIMEOUT = 300.0
"""How long (s) the check of the Butler may take, including set-up commands."""


class PipetaskPlanner:
    """Makes the plan of a pipeline job, and interprets how the job ended; see `Planner`.

    Parameters
    ----------
    data : `ButlerConfig`
        The Butler repository and collections.
    environments : `Environments`
        The environments, which provide programs and variables.
    limits : `~collections.abc.Mapping`
        Limits of each process, see `step.set_limits`.
    kill_grace : `float`
        How long (s) a job may take to end before it is killed.
    zygotes : `ZygotePool` or `None`
        Preloaded processes, which can also check the Butler.
    checks : `ButlerChecks` or `None`
        Results of former checks of Butlers.
    """

    def __init__(
        self,
        data: ButlerConfig,
        environments: Environments,
        limits: Mapping[str, Any] | None = None,
        kill_grace: float = 3.0,
        zygotes: ZygotePool | None = None,
        checks: ButlerChecks | None = None,
    ) -> None:
        self.checks = checks or ButlerChecks()
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
            If pipelines could not run, with the reason.
        """
        await look_at_files(self.environments.check)
        if not self.data.butler:
            raise BackendError("the configuration names no butler")
        local = not urlsplit(self.data.butler).scheme
        if local and not await look_at_files(Path(self.data.butler).exists):
            raise BackendError(f"butler {self.data.butler}: there is no such directory")
        await look_at_files(roll_back, self.data.butler)
        environment = self.environments.default()
        key = (
            tuple(environment.interpreter()),
            tuple(sorted(environment.variables().items())),
            self.data.butler,
            self.data.input_collection,
        )
        if await look_at_files(self.checks.valid, key, self.data.butler):
            return
        problem = await self._check_preloaded()
        if problem is None:
            problem = await self._check_cold()
        if problem:
            raise BackendError(f"butler {self.data.butler}: {problem}")
        await look_at_files(self.checks.passed, key, self.data.butler)

    async def _check_preloaded(self) -> str | None:
        """Return why the Butler cannot be used (empty if it can); `None` if no preloaded process is ready."""
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
            raise BackendError(
                f"butler {self.data.butler} did not answer within {CHECK_TIMEOUT:g} s"
            ) from None
        finally:
            # Also if this task is cancelled. A set-up command may have started other processes.
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            await process.wait()
        try:
            return str(json.loads(answer.splitlines()[-1]))
        except (ValueError, IndexError):
            raise BackendError(f"the Butler check failed with exit code {process.returncode}") from None

    def preload(self, job: Job | None) -> Preload | None:
        """Return the preloaded process for a job, see `Planner`."""
        spec = PipetaskSpec.of(job.spec) if job else None
        environment = self.environments.get(spec.version if spec else "")
        if not environment.config.preload:
            return None
        # A pattern, such as w_*, has no version before a job requests one.
        if job is None and environment.config.setup and "*" in environment.version:
            return None
        butler = spec.butler if spec else self.data.butler
        return Preload(
            environment.version,
            tuple(environment.interpreter()),
            environment.variables(),
            butler,
            environment.config.fast,
        )

    def plan(self, job: Job, workspace: Workspace) -> dict[str, Any]:
        """Return the plan (see `supervisor`) of a job."""
        spec = PipetaskSpec.of(job.spec)
        # A killed job may have left an unfinished transaction.
        roll_back(spec.butler)
        environment = self.environments.get(spec.version)
        options = list(spec.options)
        before: list[dict[str, Any]] = []
        if job.attempt > 1:
            # What a former attempt has made stays. pipetask demands that its run exists.
            program = [*environment.interpreter(), "-P", prepare_run.__file__]
            before = [{"argv": [*program, spec.butler, spec.run, spec.output, ",".join(spec.inputs)]}]
            options += ["--extend-run", "--skip-existing", "--clobber-outputs"]
        run = _pipetask("run", spec, str(workspace.root / SUMMARY_NAME), options)
        retrieve = [
            "butler",
            "retrieve-artifacts",
            spec.butler,
            str(workspace.output),
            "--collections",
            spec.run,
            "--transfer",
            "copy",
            "--no-preserve-path",
        ]
        for glob in dict.fromkeys([*spec.output_glob, *spec.metrics_glob]):
            retrieve += ["--dataset-type", as_pattern(glob)]
        plan = self._plan(job, workspace, run, retrieve)
        return {**plan, "steps": before + plan["steps"]}

    def dry_plan(self, job: Job, workspace: Workspace) -> dict[str, Any]:
        """Return the plan that builds the quantum graph, and writes nothing into the Butler."""
        spec = PipetaskSpec.of(job.spec)
        summary = str(workspace.root / SUMMARY_NAME)
        return self._plan(job, workspace, _pipetask("qgraph", spec, summary, graph_options(spec.options)))

    def foresee(self, job: Job, workspace: Workspace, status: Mapping[str, Any] | None) -> DryRun:
        """Return how many quanta of which tasks the quantum graph has; see `Planner`."""
        spec = PipetaskSpec.of(job.spec)
        outcome = PipetaskOutcome.read(workspace, status, SUMMARY_NAME)
        if not outcome.succeeded:
            error = explain(outcome, workspace)
            if error.transient:
                # The dry run failed, by no fault of the request: a job may succeed.
                raise BackendError(f"whether the job would fail could not be found out: {error.message}")
            raise WouldFailError(error.message)
        return DryRun(
            "the request, the pipeline and its configuration, and the quantum graph",
            count_quanta(workspace, SUMMARY_NAME),
            tuple(_pipetask("run", spec, f"{{job_dir}}/{SUMMARY_NAME}", spec.options)),
        )

    def _plan(self, job: Job, workspace: Workspace, *commands: list[str]) -> dict[str, Any]:
        """Return the plan that runs some programs of a job's environment one after the other."""
        spec = PipetaskSpec.of(job.spec)
        environment = self.environments.get(spec.version)
        return {
            "steps": [{"argv": environment.command(argv), "tool": argv} for argv in commands],
            "environment": environment.variables() | job_variables(job, workspace),
            "cwd": str(workspace.output),
            "log": str(workspace.log),
            "limits": self.limits,
            "kill_grace": self.kill_grace,
            "query": spec.data_query,
        }

    def progress_source(self, workspace: Workspace) -> ProgressReader:
        """Return the source of a job's progress."""
        return ProgressReader(workspace.log)

    def ending(self, job: Job, workspace: Workspace, status: Mapping[str, Any] | None) -> BackendUpdate:
        """Return the final update of a job; reads files, so not for the event loop.

        Parameters
        ----------
        job : `Job`
            The job.
        workspace : `Workspace`
            The job's directories.
        status : `~collections.abc.Mapping` or `None`
            The supervisor's ``status.json``; `None` if it was killed before
            it wrote that.
        """
        if status and job.attempt > 1:
            # The first step of a further attempt prepares it.
            status = {**status, "step": status["step"] - 1}
        outcome = PipetaskOutcome.read(workspace, status, SUMMARY_NAME)
        metrics = outcome.take_index(workspace, PipetaskSpec.of(job.spec).metrics_glob)
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


def _pipetask(command: str, spec: PipetaskSpec, summary: str, options: Sequence[str]) -> list[str]:
    """Return the command line of pipetask that runs a pipeline, or builds its quantum graph."""
    words = [
        "pipetask",
        "--long-log",
        command,
        "--butler-config",
        spec.butler,
        "--input",
        ",".join(spec.inputs),
        "--output",
        spec.output,
        "--output-run",
        spec.run,
        "--pipeline",
        spec.pipeline,
        "--summary",
        summary,
        *options,
    ]
    return [*words, "--data-query", spec.data_query] if spec.data_query else words


def as_pattern(glob: str) -> str:
    """Return a glob that the Butler treats as a pattern, even for a plain name.

    If a plain name does not exist, ``butler retrieve-artifacts`` finds
    nothing at all, not even datasets of other names.
    """
    return glob if re.search(r"[*?\[]", glob) else f"[{glob[0]}]{glob[1:]}"
