# SPDX-License-Identifier: GPL-3.0-or-later
"""The factory of the local pool."""

from __future__ import annotations

__all__ = ["make_parts"]

from ...backend_api import BackendContext, ConfigError, InstanceConfig, Parts, limits_of, load_definitions
from ...definitions.environments import Environments
from ...definitions.pipetask import PIPETASK, ButlerConfig, PipetaskDefinition
from ...definitions.shell import COMMAND, ShellDefinition
from ...jobs.retries import RetryPolicy
from .backend import LocalBackend
from .butler_checks import ButlerChecks
from .command import CommandPlanner
from .pipetask import PipetaskPlanner
from .planner import Planner
from .zygote.pool import ZygotePool

MAX_WORKERS = 2
"""How many jobs run at a time if the configuration does not say."""


def make_parts(config: InstanceConfig, context: BackendContext) -> Parts:
    """Create the backend that runs jobs as processes on this machine.

    Without a Butler it runs commands and scripts, but no pipelines.

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
    environments = Environments(config.environments, config.limits.threads)
    limits = config.limits.of_process()
    zygotes = context.share(ZygotePool, lambda: ZygotePool(context.log))
    planners: dict[str, Planner] = {"command": CommandPlanner(environments, limits, context.job_variables)}
    general = None
    if config.butler:
        data = ButlerConfig.of(config)
        general = PipetaskDefinition(
            PIPETASK,
            data,
            environments,
            config.allowed_pipelines,
            config_directories=config.config_directories,
            work_dir=context.workspaces.work_dir,
            users=config.users_of_general(),
            retries=RetryPolicy.of(config.retries),
        )
        checks = context.share(ButlerChecks, ButlerChecks)
        planners["pipetask"] = PipetaskPlanner(data, environments, limits, zygotes=zygotes, checks=checks)
    definitions = load_definitions(config.definitions, general)
    if config.commands:
        definitions[COMMAND] = ShellDefinition(config.commands, config.users_of_general())
    if not definitions:
        raise ConfigError(
            f"instance {config.sal_index}: no job could run; set butler for pipelines, or definitions or "
            "commands for anything else"
        )
    backend = LocalBackend(context.workspaces, planners, context.log, zygotes)
    return Parts("local", backend, definitions, limits_of(config, max_workers=MAX_WORKERS))
