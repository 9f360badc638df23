# SPDX-License-Identifier: GPL-3.0-or-later
"""What the local pool needs to know of one kind of job."""

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
    """Tells how far one job is."""

    def read(self) -> Progress | None:
        """Return the progress, `None` if nothing says; may read files, in any thread."""


class Planner(Protocol):
    """Turns jobs of one kind (``spec.kind``) into commands and back."""

    async def check(self) -> None:
        """Raise `BackendError` if such jobs could not run."""

    def plan(self, job: Job, workspace: Workspace) -> dict[str, Any]:
        """Return what to run; see ``plan.json`` in `supervisor`."""

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
        """Return which preloaded process a job starts quicker from; `None` if none.

        Without a job: which one most jobs will need.
        """

    def progress_source(self, workspace: Workspace) -> ProgressSource:
        """Return what tells how far a job is."""

    def ending(self, job: Job, workspace: Workspace, status: Mapping[str, Any] | None) -> BackendUpdate:
        """Say how a job ended; called in a thread.

        ``status`` is what the supervisor wrote, `None` if it was killed
        before it could.
        """


def job_variables(job: Job, workspace: Workspace) -> dict[str, str]:
    """Return the environment variables that tell a process which job it is."""
    return {"JOB_ID": job.id, "JOB_OUTPUT_DIR": str(workspace.output)}
