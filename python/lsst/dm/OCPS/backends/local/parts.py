# SPDX-License-Identifier: GPL-3.0-or-later
"""The factory of the local pool."""

from __future__ import annotations

__all__ = ["make_parts"]

from ...backend_api import BackendContext, InstanceConfig, Parts, limits_of
from .backend import LocalBackend
from .kinds import make_kinds
from .zygote.pool import ZygotePool

MAX_WORKERS = 2
"""How many jobs run at a time if the configuration does not say."""


def make_parts(config: InstanceConfig, context: BackendContext) -> Parts:
    """Create the backend that runs jobs as processes on this machine.

    Parameters
    ----------
    config : `InstanceConfig`
        The configuration.
    context : `BackendContext`
        What the engine provides.

    Raises
    ------
    ConfigError
        If a job definition cannot be used, or no job could run.
    """
    zygotes = context.share(ZygotePool, lambda: ZygotePool(context.log))
    kinds = make_kinds(config, context, zygotes)
    backend = LocalBackend(context.workspaces, kinds.planners, context.log, zygotes)
    return Parts("local", backend, kinds.definitions, limits_of(config, max_workers=MAX_WORKERS))
