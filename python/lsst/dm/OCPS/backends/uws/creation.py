# SPDX-License-Identifier: GPL-3.0-or-later
"""The bodies of requests that create jobs at a server; see `UwsDefinition`."""

from __future__ import annotations

__all__ = ["creation_body", "creation_form"]

from typing import Any

from ...client.errors import RefusedError
from ...definitions.specs import ForwardedSpec
from ...jobs.model import Job
from .command import ForwardedCommandSpec


def creation_body(job: Job) -> dict[str, Any]:
    """Return the body of the Rubin dialect's request."""
    spec = _spec(job)
    return {
        "run_id": job.id,
        "command": spec.command,
        "url": spec.url,
        "commit_ref": spec.commit_ref,
        "environment": [{"name": name, "value": value} for name, value in spec.environment.items()],
    }


def _spec(job: Job) -> ForwardedSpec | ForwardedCommandSpec:
    if isinstance(job.spec, ForwardedCommandSpec):
        return job.spec
    return ForwardedSpec.of(job.spec)


def creation_form(job: Job) -> dict[str, str]:
    """Return the form of the request of UWS 1.1, with the environment variables as parameters.

    Raises
    ------
    RefusedError
        If the job is a script or command.
    """
    if isinstance(job.spec, ForwardedCommandSpec):
        raise RefusedError("it is a UWS job list, which accepts parameters, but no commands")
    return {"RUNID": job.id, "PHASE": "RUN", **ForwardedSpec.of(job.spec).environment}
