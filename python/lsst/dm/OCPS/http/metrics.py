# SPDX-License-Identifier: GPL-3.0-or-later
"""``/metrics``: figures of the engine, for Prometheus.

Counters are updated when something happens; the other figures are read from
memory for each scrape. So a scrape takes as long with ten jobs as with
100,000.
"""

from __future__ import annotations

__all__ = ["METRICS", "Metrics", "add_metrics", "routes"]

import asyncio
import contextlib
from collections import Counter as Count
from collections.abc import Callable, Iterator
from datetime import datetime

from aiohttp import web
from prometheus_client import CollectorRegistry, Counter, Histogram, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, InfoMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4

from ..jobs.manager import JobManager
from ..jobs.model import Job, now
from ..measures import Measures
from ..version import __version__
from .context import caller_of
from .events import READERS, Readers
from .health import READINESS, Readiness

LAG_INTERVAL = 0.5
"""How often (s) the lag of the event loop is measured."""

DURATIONS = (0.1, 0.3, 1, 3, 10, 30, 60, 120, 300, 600, 1800, 3600, 7200, 21600, 86400)
"""Upper limits (s) of the histogram buckets for durations of jobs."""

LATENCIES = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1, 3, 10)
"""Upper limits (s) of the histogram buckets for the store and the event loop."""


class Metrics:
    """The figures of one engine and its server.

    Parameters
    ----------
    manager : `JobManager`
        The engine, open.
    readiness : `Readiness`
        Checks which parts work.
    readers : `Readers`
        The streams of the server.
    measures : `~collections.abc.Callable`, optional
        Returns further figures of this process, those of the CSC.
    """

    def __init__(
        self, manager: JobManager, readiness: Readiness, readers: Readers, measures: Measures | None = None
    ) -> None:
        self.connections: Callable[[], int] = lambda: 0
        """Returns how many connections are open."""
        self._manager = manager
        self._readiness = readiness
        self._readers = readers
        self._measures = measures
        self._reasons: dict[str, str] = {}
        self._task: asyncio.Task[None] | None = None
        registry = self._registry = CollectorRegistry()
        self._ended = Counter(
            "ocps_jobs_ended",
            "Jobs that have ended, by the phase they ended in.",
            ("definition", "phase"),
            registry=registry,
        )
        self._waiting = Histogram(
            "ocps_job_waiting_seconds",
            "How long jobs waited in the queue before they started.",
            ("definition",),
            buckets=DURATIONS,
            registry=registry,
        )
        self._running = Histogram(
            "ocps_job_running_seconds",
            "How long jobs ran.",
            ("definition",),
            buckets=DURATIONS,
            registry=registry,
        )
        self._writes = Histogram(
            "ocps_store_write_seconds",
            "How long transactions of the job store took.",
            buckets=LATENCIES,
            registry=registry,
        )
        self._lag = Histogram(
            "ocps_event_loop_lag_seconds",
            "How much later than due the event loop ran a timer.",
            buckets=LATENCIES,
            registry=registry,
        )
        ProcessCollector(registry=registry)
        registry.register(self)  # type: ignore[arg-type]

    async def open(self, app: web.Application) -> None:
        """Begin to count."""
        self._manager.ledger.observers.append(self._count)
        self._manager.store.on_written = self._writes.observe
        self._task = asyncio.create_task(self._measure_lag())

    async def close(self, app: web.Application) -> None:
        """Stop counting."""
        with contextlib.suppress(ValueError):
            self._manager.ledger.observers.remove(self._count)
        self._manager.store.on_written = None
        if self._task:
            self._task.cancel()

    async def text(self) -> bytes:
        """Return all figures in the text format of Prometheus."""
        self._reasons = await self._readiness.reasons()
        return generate_latest(self._registry)

    async def _measure_lag(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            due = loop.time() + LAG_INTERVAL
            await asyncio.sleep(LAG_INTERVAL)
            self._lag.observe(max(0.0, loop.time() - due))

    def _count(self, old: Job | None, job: Job) -> None:
        """Update the counters after a change of a job."""
        if old and job.start_time and not old.start_time:
            self._waiting.labels(job.definition).observe(_seconds(old.phase_time, job.start_time))
        if job.terminal and not (old and old.terminal):
            self._ended.labels(job.definition, str(job.phase)).inc()
            if job.start_time and job.end_time:
                self._running.labels(job.definition).observe(_seconds(job.start_time, job.end_time))

    def collect(self) -> Iterator[Metric]:
        """Return the figures that are read from memory; called by the registry."""
        yield InfoMetricFamily("ocps", "The program.", value={"version": __version__})
        yield from self._collect_jobs()
        yield from self._collect_lanes()
        ready = GaugeMetricFamily("ocps_ready", "Whether a part works, as /readyz has it.", labels=["part"])
        for part, reason in self._reasons.items():
            ready.add_metric([part], not reason)
        yield ready
        streams, connections = len(self._readers.open), self.connections()
        yield GaugeMetricFamily("ocps_http_streams", "Open streams of changes.", value=streams)
        yield GaugeMetricFamily("ocps_http_connections", "Open HTTP connections.", value=connections)
        for found in self._measures() if self._measures else ():
            family = CounterMetricFamily if found.total else GaugeMetricFamily
            yield family(found.name, found.text, value=found.value)

    def _collect_jobs(self) -> Iterator[Metric]:
        live = GaugeMetricFamily(
            "ocps_jobs", "Jobs that have not ended, by phase.", labels=["definition", "phase"]
        )
        # Without jobs the value is 0, so that the series is continuous.
        names = {name for lane in self._manager.lanes.values() for name in lane.definitions}
        counts = Count({(name, phase): 0 for name in names for phase in ("QUEUED", "EXECUTING")})
        counts.update((job.definition, str(job.phase)) for job in self._manager.live())
        for (definition, phase), count in sorted(counts.items()):
            live.add_metric([definition, phase], count)
        yield live

    def _collect_lanes(self) -> Iterator[Metric]:
        """Return the figures of each backend; former configurations of one share its workers."""
        kind = ["backend"]
        queue = GaugeMetricFamily("ocps_queue_length", "Jobs that wait for a worker.", labels=kind)
        places = GaugeMetricFamily("ocps_queue_limit", "How many jobs may wait.", labels=kind)
        busy = GaugeMetricFamily("ocps_workers_busy", "Workers that have a job.", labels=kind)
        workers = GaugeMetricFamily("ocps_workers_limit", "How many jobs may run at once.", labels=kind)
        away = GaugeMetricFamily(
            "ocps_backend_unreachable_seconds",
            "For how long a backend's system has not answered; 0 if it does.",
            labels=kind,
        )
        lanes = list(self._manager.lanes.values())
        for name in sorted({lane.kind for lane in lanes}):
            mine = [lane for lane in lanes if lane.kind == name]
            since = [lane.backend.unreachable_since for lane in mine]
            # The last lane is the present one, whose limits apply to new jobs.
            limits = mine[-1].limits
            queue.add_metric([name], sum(lane.waiting for lane in mine))
            places.add_metric([name], limits.max_queued)
            busy.add_metric([name], sum(len(lane.runs) for lane in mine))
            workers.add_metric([name], limits.max_workers)
            away.add_metric([name], max((_seconds(time, now()) for time in since if time), default=0.0))
        yield from (queue, places, busy, workers, away)


METRICS: web.AppKey[Metrics] = web.AppKey("metrics", Metrics)


def routes(prefix: str) -> list[web.RouteDef]:
    """Return the route of the figures; ``prefix`` is where everything lies."""
    return [web.get(f"{prefix}/metrics", get_metrics)]


def add_metrics(app: web.Application, manager: JobManager, measures: Measures | None) -> None:
    """Let an application measure its engine for as long as it runs."""
    readiness = app[READINESS] = Readiness(manager)
    metrics = app[METRICS] = Metrics(manager, readiness, app[READERS], measures)
    app.on_startup.append(metrics.open)
    app.on_cleanup.append(metrics.close)


async def get_metrics(request: web.Request) -> web.Response:
    """Send all figures, to identified callers only, because they reveal jobs of others."""
    caller = caller_of(request)
    if not caller.name and not caller.operator:
        raise web.HTTPUnauthorized(text="Figures are for authenticated callers only\n")
    text = await request.app[METRICS].text()
    return web.Response(body=text, headers={"Content-Type": CONTENT_TYPE_PLAIN_0_0_4})


def _seconds(start: datetime, end: datetime) -> float:
    # The clock may have been set back between the two times.
    return max(0.0, (end - start).total_seconds())
