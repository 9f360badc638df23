# SPDX-License-Identifier: GPL-3.0-or-later
"""The interface of planners, one for each kind of job of the local pool."""

from __future__ import annotations

__all__ = ["Planner", "ProgressSource", "job_variables"]

from collections.abc import Mapping
from typing import Any, Protocol

from ...jobs.backend import BackendUpdate
from ...jobs.dry_run import DryRun
from ...jobs.model import Job, Progress
from ...jobs.workspace import Workspace
from .zygote.pool import Preload


class ProgressSource(Protocol):
    """The source of one job's progress."""

    def read(self) -> Progress | None:
        """Return the progress, `None` if it is not known; may read files, in any thread."""


class Planner(Protocol):
    """Makes the plans of jobs of one kind (``spec.kind``), and interprets how they ended."""

    async def check(self) -> None:
        """Raise `BackendError` if such jobs could not run."""

    def plan(self, job: Job, workspace: Workspace) -> dict[str, Any]:
        """Return the plan of a job; see ``plan.json`` in `supervisor`."""

    def dry_plan(self, job: Job, workspace: Workspace) -> dict[str, Any] | None:
        """Return as `plan` what a dry run has to run; `None` if nothing."""

    def foresee(self, job: Job, workspace: Workspace, status: Mapping[str, Any] | None) -> DryRun:
        """Return what a job would do, after ``dry_plan`` was carried out; called in a thread.

        Raises
        ------
        WouldFailError
            If it would fail.
        """

    def preload(self, job: Job | None) -> Preload | None:
        """Return the preloaded process from which a job can be started; `None` if none.

        Without a job, return the one that most jobs will need.
        """

    def progress_source(self, workspace: Workspace) -> ProgressSource:
        """Return the source of a job's progress."""

    def ending(self, job: Job, workspace: Workspace, status: Mapping[str, Any] | None) -> BackendUpdate:
        """Return the final update of a job; called in a thread.

        ``status`` is the supervisor's ``status.json``, `None` if it was
        killed before it wrote that.
        """


def job_variables(job: Job, workspace: Workspace) -> dict[str, str]:
    """Return the environment variables that identify a job to its processes."""
    return {"JOB_ID": job.id, "JOB_OUTPUT_DIR": str(workspace.output)}
