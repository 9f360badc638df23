# SPDX-License-Identifier: GPL-3.0-or-later
"""The planner of commands and scripts."""

from __future__ import annotations

__all__ = ["CommandPlanner"]

import fnmatch
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ...definitions.command import OWN_VALUES
from ...definitions.environments import Environments
from ...definitions.redaction import hide_in_argv, hide_values
from ...definitions.specs import CommandSpec
from ...definitions.templates import fill
from ...jobs.backend import BackendUpdate
from ...jobs.dry_run import DryRun
from ...jobs.model import ErrorSummary, ExecutionPhase, Job, Progress
from ...jobs.parameters import UPLOAD_PREFIX
from ...jobs.workspace import LOG_NAME, Workspace
from ...programs import fetch
from .pipetask_outcome import killed, signal_reason
from .planner import job_variables

MAX_FETCH = 10 * 2**30
"""Longest file (bytes) that is fetched for a file parameter."""


class NoProgress:
    """The progress source of commands, which report progress only over HTTP."""

    def read(self) -> Progress | None:
        """Return `None`: no progress is known."""
        return None


class CommandPlanner:
    """Makes the plan of a command job, and interprets how the job ended; see `Planner`.

    Parameters
    ----------
    environments : `Environments`
        The environments, which provide programs and variables.
    limits : `~collections.abc.Mapping`
        Limits of each process, see `step.set_limits`.
    variables_of : `~collections.abc.Callable`
        Returns the environment variables with which a job, by its id, can
        report its progress.
    kill_grace : `float`
        How long (s) a job may take to end before it is killed.
    """

    def __init__(
        self,
        environments: Environments,
        limits: Mapping[str, Any] | None = None,
        variables_of: Callable[[str], Mapping[str, str]] | None = None,
        kill_grace: float = 3.0,
    ) -> None:
        self.environments = environments
        self.limits = dict(limits or {"core": 0})
        self.variables_of = variables_of
        self.kill_grace = kill_grace

    async def check(self) -> None:
        """Do nothing: no program is needed by all commands."""

    def plan(self, job: Job, workspace: Workspace) -> dict[str, Any]:
        """Return the plan (see `supervisor`) of a job."""
        spec = CommandSpec.of(job.spec)
        environment = self.environments.get(spec.version)
        inputs, source = workspace.inputs, workspace.root / "source"
        values = {**spec.values} | {name: str(inputs / name) for name in spec.files}
        values |= {
            "job_id": job.id,
            "output_dir": str(workspace.output),
            "input_dir": str(inputs),
            "source_dir": str(source),
            "python": environment.python,
            "ocps_dir": str(Path(__file__).resolve().parents[2]),
        }
        variables = environment.variables() | job_variables(job, workspace)
        if self.variables_of:
            variables |= self.variables_of(job.id)
        if spec.source:
            variables |= {
                "JOB_SOURCE_DIR": str(source),
                "SRC_GIT_URL": spec.source.url,
                "GIT_COMMIT_REF": spec.source.commit,
                "GIT_TERMINAL_PROMPT": "0",
                "GIT_ALLOW_PROTOCOL": "file:git:http:https:ssh",
                # Configuration files of the user or the system could make git run programs.
                "GIT_CONFIG_NOSYSTEM": "1",
                "GIT_CONFIG_GLOBAL": "/dev/null",
            }
        variables |= dict(spec.environment)
        variables |= {name: fill(text, values) for name, text in spec.variables.items()}
        command = environment.command([fill(word, values) for word in spec.argv])
        steps = [*_preparation(spec, inputs, source), {"argv": command}]
        return {
            "steps": steps,
            "environment": variables,
            "cwd": str(workspace.output),
            "log": str(workspace.log),
            "limits": self.limits,
            "kill_grace": self.kill_grace,
        }

    def dry_plan(self, job: Job, workspace: Workspace) -> None:
        """Nothing is run: what a command would do is not known before it does it."""

    def foresee(self, job: Job, workspace: Workspace, status: Mapping[str, Any] | None) -> DryRun:
        """Return the command line, with places for what only a job has; see `Planner`."""
        spec = CommandSpec.of(job.spec)
        environment = self.environments.get(spec.version)
        places = {name: f"{{{name}}}" for name in (*OWN_VALUES, *spec.files)}
        values = {**hide_values(spec.values), **places, "python": environment.python}
        return DryRun("the request", argv=hide_in_argv(fill(word, values) for word in spec.argv))

    def preload(self, job: Job | None) -> None:
        """Return `None`: commands are not preloaded."""

    def progress_source(self, workspace: Workspace) -> NoProgress:
        """Return the source of a job's progress."""
        return NoProgress()

    def ending(self, job: Job, workspace: Workspace, status: Mapping[str, Any] | None) -> BackendUpdate:
        """Return the final update of a job; see `Planner`."""
        spec = CommandSpec.of(job.spec)
        code = status["exit_code"] if status else None
        info: dict[str, Any] = {"exitCode": code, "logTail": workspace.tail()}
        if status:
            info |= {"cpuTime": status["cpu"], "maxRss": status["max_rss"]}
        globs = (LOG_NAME, *spec.outputs)
        results = tuple(
            result
            for result in workspace.results()
            if any(fnmatch.fnmatchcase(result.id, glob) for glob in globs)
        )
        common: dict[str, Any] = {"exit_code": code, "results": results, "info": info}
        last = len(_preparation(spec, Path(), Path()))
        if status and status["cancelled"]:
            return BackendUpdate(phase=ExecutionPhase.ABORTED, **common)
        if status and code == 0 and status["step"] == last:
            return BackendUpdate(phase=ExecutionPhase.COMPLETED, **common)
        preparing = bool(status and status["step"] < last)
        words, detail = _reason(code, workspace, preparing), "\n".join(workspace.tail())
        error = ErrorSummary(words, transient=killed(code), detail=detail)
        return BackendUpdate(phase=ExecutionPhase.ERROR, error=error, **common)


def _preparation(spec: CommandSpec, inputs: Path, source: Path) -> list[dict[str, Any]]:
    """Return the steps that fetch a job's source and files."""
    steps = []
    if spec.source:
        url, commit = spec.source.url, spec.source.commit
        git = ["git", "-C", str(source), "-c", "core.hooksPath=/dev/null", "-c", "core.fsmonitor=false"]
        steps = [
            {"argv": ["git", "init", "--quiet", "--template=", str(source)]},
            {"argv": [*git, "fetch", "--quiet", "--depth=1", "--no-tags", "--", url, commit]},
            {"argv": [*git, "-c", "advice.detachedHead=false", "checkout", "--quiet", "FETCH_HEAD"]},
        ]
    for name, file in spec.files.items():
        if not file.value.startswith(UPLOAD_PREFIX):
            arguments = [file.value, str(inputs / name), str(MAX_FETCH), *file.references]
            steps.append({"argv": [sys.executable, "-I", fetch.__file__, *arguments]})
    return steps


def _reason(code: int | None, workspace: Workspace, preparing: bool) -> str:
    if code is None:
        return "its supervisor was killed, so how it ended is not known (exit code unknown)"
    tail = workspace.tail()
    if code < 0:
        return signal_reason(-code)
    last = next((line.strip() for line in reversed(tail) if line.strip()), "")
    what = "its source or its files could not be fetched" if preparing else f"it ended with exit code {code}"
    return f"{what}: {last[:500]}" if last else what
