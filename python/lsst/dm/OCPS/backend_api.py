# SPDX-License-Identifier: GPL-3.0-or-later
"""Everything that a backend is written with: import from here, and from nowhere else in OCPS.

A backend enters by an entry point of the group `BACKENDS`, which names a
function of type `MakeParts`. The configuration chooses it by the name of the
entry point (``backend: mine``); ``backend_settings`` is for the backend alone.
OCPS's own backends enter in the same way.

A backend receives a job with `Backend.submit` and says what becomes of it by
calling ``self.report(job_id, BackendUpdate(…))``, from the event loop. Log and
results of a job are files of its `Workspace`, ``context.workspaces.of(job.id)``:
the log is ``workspace.log``, results are all files in ``workspace.output``.
At its end a backend reports the phase, ``workspace.results()`` and, for people
who read no log, ``info={"logTail": workspace.tail()}``. A backend whose jobs
leave their files elsewhere reports `Result` objects with the URIs of these.

``doc/own_backend.rst`` explains all this with a complete example.
"""

from __future__ import annotations

__all__ = [
    "BACKENDS",
    "Backend",
    "BackendContext",
    "BackendError",
    "BackendUpdate",
    "ConfigError",
    "ErrorSummary",
    "ExecutionPhase",
    "InstanceConfig",
    "Job",
    "JobDefinition",
    "JobRequest",
    "Limits",
    "MakeParts",
    "Parameter",
    "Parts",
    "Progress",
    "Report",
    "RequestError",
    "Result",
    "Spec",
    "Workspace",
    "Workspaces",
    "check_parameters",
    "limits_of",
    "load_definitions",
]

from collections.abc import Callable

from .config import ConfigError, InstanceConfig
from .definitions.files import load_definitions
from .jobs.backend import Backend, BackendUpdate, Report
from .jobs.definition import JobDefinition
from .jobs.errors import BackendError, RequestError
from .jobs.limits import Limits
from .jobs.model import ErrorSummary, ExecutionPhase, Job, JobRequest, Progress, Result
from .jobs.parameters import Parameter, check_parameters
from .jobs.parts import BackendContext, Parts
from .jobs.spec import Spec
from .jobs.workspace import Workspace, Workspaces

BACKENDS = "lsst.dm.OCPS.backends"
"""Group of the entry points through which backends are found."""

MakeParts = Callable[[InstanceConfig, BackendContext], Parts]
"""Makes what a configuration describes; an entry point of `BACKENDS` names such a function.

It starts nothing and waits for nothing: it also serves to check a
configuration. It raises `ConfigError` if the configuration cannot be used.
"""


def limits_of(config: InstanceConfig, *, max_workers: int) -> Limits:
    """Return the limits that a configuration sets.

    Parameters
    ----------
    config : `InstanceConfig`
        The configuration.
    max_workers : `int`
        How many jobs the backend runs at a time if the configuration does
        not say.
    """
    values = {name: getattr(config, name) for name in Limits.model_fields}
    return Limits(**values | {"max_workers": config.max_workers or max_workers})
