# SPDX-License-Identifier: GPL-3.0-or-later
"""The kinds of jobs that a supervisor runs, as the configuration describes them."""

from __future__ import annotations

__all__ = ["Kinds", "make_kinds"]

from dataclasses import dataclass

from ...backend_api import BackendContext, ConfigError, InstanceConfig, JobDefinition, load_definitions
from ...definitions.environments import Environments
from ...definitions.pipetask import PIPETASK, ButlerConfig, PipetaskDefinition
from ...definitions.shell import COMMAND, ShellDefinition
from ...jobs.retries import RetryPolicy
from .butler_checks import ButlerChecks
from .command import CommandPlanner
from .pipetask import PipetaskPlanner
from .planner import Planner
from .zygote.pool import ZygotePool


@dataclass(frozen=True)
class Kinds:
    """What may be requested, and how it is run.

    Parameters
    ----------
    planners : `dict` [`str`, `Planner`]
        Planners by kind of job.
    definitions : `dict` [`str`, `JobDefinition`]
        Job definitions by name.
    """

    planners: dict[str, Planner]
    definitions: dict[str, JobDefinition]


def make_kinds(config: InstanceConfig, context: BackendContext, zygotes: ZygotePool | None = None) -> Kinds:
    """Return what a configuration lets run; without a Butler commands and scripts, and no pipelines.

    Parameters
    ----------
    config : `InstanceConfig`
        The configuration.
    context : `BackendContext`
        What the engine provides.
    zygotes : `ZygotePool` or `None`
        Preloaded processes.

    Raises
    ------
    ConfigError
        If a job definition cannot be used, or no job could run.
    """
    environments = Environments(config.environments, config.limits.threads)
    limits = config.limits.of_process()
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
    return Kinds(planners, definitions)
