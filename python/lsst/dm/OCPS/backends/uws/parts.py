# SPDX-License-Identifier: GPL-3.0-or-later
"""The factory of the forwarding backend."""

from __future__ import annotations

__all__ = ["make_parts"]

from ...backend_api import BackendContext, InstanceConfig, JobDefinition, Parts, limits_of, load_definitions
from ...definitions.command import CommandDefinition
from ...definitions.pipetask import PIPETASK, ButlerConfig
from ...jobs.retries import RetryPolicy
from .backend import UwsBackend
from .command import ForwardedCommandDefinition
from .definition import UwsDefinition

MAX_WORKERS = 1000
"""How many jobs the server has at a time if the configuration does not say; it has its own queue."""


def make_parts(config: InstanceConfig, context: BackendContext) -> Parts:
    """Create the backend that forwards jobs to a UWS server.

    Parameters
    ----------
    config : `InstanceConfig`
        The configuration.
    context : `BackendContext`
        What the engine provides.

    Raises
    ------
    ConfigError
        If a job definition cannot be used.
    """
    general = UwsDefinition(
        PIPETASK,
        ButlerConfig.of(config),
        config.allowed_pipelines,
        config.uws,
        config_directories=config.config_directories,
        users=config.users_of_general(),
        retries=RetryPolicy.of(config.retries),
    )
    backend = UwsBackend(config.url, config.poll_interval, config.uws, context.log)
    definitions: dict[str, JobDefinition] = {
        name: ForwardedCommandDefinition(definition, config.uws)
        if isinstance(definition, CommandDefinition)
        else definition
        for name, definition in load_definitions(config.definitions, general).items()
    }
    return Parts("uws", backend, definitions, limits_of(config, max_workers=MAX_WORKERS))
