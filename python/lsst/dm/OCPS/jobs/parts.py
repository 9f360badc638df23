# SPDX-License-Identifier: GPL-3.0-or-later
"""What a backend's factory receives (`BackendContext`) and returns (`Parts`)."""

from __future__ import annotations

__all__ = ["BackendContext", "Parts"]

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

from .backend import Backend
from .definition import JobDefinition
from .limits import Limits
from .workspace import Workspaces

T = TypeVar("T")


@dataclass(frozen=True)
class Parts:
    """A backend with its job definitions and limits.

    Parameters
    ----------
    kind : `str`
        Name of the backend without its configuration. Configurations of the
        same kind share their workers.
    backend : `Backend`
        The backend, not open yet.
    definitions : `~collections.abc.Mapping` [`str`, `JobDefinition`]
        Job definitions by name.
    limits : `Limits`
        How many jobs are accepted, and how long they may last.
    """

    kind: str
    backend: Backend
    definitions: Mapping[str, JobDefinition]
    limits: Limits


def _no_variables(job_id: str) -> Mapping[str, str]:
    return {}


@dataclass(frozen=True)
class BackendContext:
    """What an engine provides to the factory of a backend.

    Parameters
    ----------
    workspaces : `Workspaces`
        The directories of jobs.
    log : `logging.Logger`
        Gets warnings.
    job_variables : `~collections.abc.Callable`
        Returns, for a job id, the environment variables with which the job
        can report its progress; empty if it cannot. It may read a file.
    shared : `dict`
        Objects that all configurations of an engine share; see `share`.
    """

    workspaces: Workspaces
    log: logging.Logger
    job_variables: Callable[[str], Mapping[str, str]] = _no_variables
    shared: dict[type, Any] = field(default_factory=dict)

    def share(self, kind: type[T], make: Callable[[], T]) -> T:
        """Return the shared object of a class, which survives changes of the configuration.

        Parameters
        ----------
        kind : `type`
            The class.
        make : `~collections.abc.Callable`
            Creates the object; called when it is first requested.
        """
        if kind not in self.shared:
            self.shared[kind] = make()
        found: T = self.shared[kind]
        return found
