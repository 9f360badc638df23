# SPDX-License-Identifier: GPL-3.0-or-later
"""Simulated pipelines, for integration tests: no Butler, no processes."""

from __future__ import annotations

__all__ = ["SimulationBackend", "SimulationDefinition", "make_parts"]

import asyncio
import uuid
from collections.abc import Collection

from ..backend_api import (
    Backend,
    BackendContext,
    BackendUpdate,
    ErrorSummary,
    ExecutionPhase,
    InstanceConfig,
    Job,
    JobDefinition,
    JobRequest,
    Parts,
    RequestError,
    limits_of,
)
from ..definitions.pipetask import PIPETASK
from ..definitions.specs import SimulationSpec

OUTCOMES = ("true.yaml", "false.yaml", "fault.yaml")
"""The simulated pipelines; each ends as its name says."""

MAX_WORKERS = 100_000
"""How many jobs run at a time: practically all, because simulated jobs cost nothing."""


def make_parts(config: InstanceConfig, context: BackendContext) -> Parts:
    """Create the simulation.

    Parameters
    ----------
    config : `InstanceConfig`
        Only its limits and ``simulation_duration`` count.
    context : `BackendContext`
        What the engine provides.
    """
    backend = SimulationBackend(config.simulation_duration)
    definitions = {PIPETASK: SimulationDefinition(PIPETASK)}
    return Parts("simulation", backend, definitions, limits_of(config, max_workers=MAX_WORKERS))


_SPECS = {name: SimulationSpec(pipeline=name) for name in OUTCOMES}


class SimulationDefinition(JobDefinition):
    """Accepts the simulated pipelines; every other parameter is ignored."""

    def new_id(self, request: JobRequest) -> str:
        # Scripts rely on ids that begin with the pipeline's name.
        return f"{_pipeline(request)}-{uuid.uuid4().hex[:12]}"

    async def resolve(self, request: JobRequest, job_id: str) -> SimulationSpec:
        return _SPECS[_pipeline(request)]


def _pipeline(request: JobRequest) -> str:
    name = request.parameters.get("pipeline", "").strip()
    if name not in OUTCOMES:
        raise RequestError(f"pipeline {name!r} cannot be simulated; there are {', '.join(OUTCOMES)}")
    return name


class SimulationBackend(Backend):
    """Ends each job after a fixed time, as the name of its pipeline says.

    Parameters
    ----------
    duration : `float`
        How long each job lasts (s).
    """

    kinds = frozenset({"simulation"})

    def __init__(self, duration: float = 10.0) -> None:
        self.duration = duration
        self._timers: dict[str, asyncio.TimerHandle] = {}

    async def open(self) -> None:
        pass

    async def close(self) -> None:
        for timer in self._timers.values():
            timer.cancel()

    async def check(self) -> None:
        pass

    async def submit(self, job: Job) -> None:
        loop = asyncio.get_running_loop()
        self.report(job.id, BackendUpdate(phase=ExecutionPhase.EXECUTING))
        self._timers[job.id] = loop.call_later(self.duration, self._end, job)

    async def cancel(self, job: Job) -> None:
        timer = self._timers.pop(job.id, None)
        if timer:
            timer.cancel()
            self.report(job.id, BackendUpdate(phase=ExecutionPhase.ABORTED))

    async def reattach(self, jobs: Collection[Job]) -> None:
        for job in jobs:
            await self.submit(job)

    def _end(self, job: Job) -> None:
        del self._timers[job.id]
        outcome = SimulationSpec.of(job.spec).pipeline.removesuffix(".yaml")
        if outcome == "fault":
            update = BackendUpdate(
                phase=ExecutionPhase.ERROR,
                error=ErrorSummary("simulated fault"),
                info={"fault": "simulated fault"},
            )
        else:
            update = BackendUpdate(
                phase=ExecutionPhase.COMPLETED, exit_code=0, info={"result": outcome == "true"}
            )
        self.report(job.id, update)
