# SPDX-License-Identifier: GPL-3.0-or-later
"""Distribution of changes to callers that wait for one job, and to subscribers to many."""

from __future__ import annotations

__all__ = ["Changes", "Subscription"]

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator, Callable

from .model import Job

Wanted = Callable[[Job], bool]


class Subscription:
    """A stream of changed jobs: ``async for job in subscription``.

    A reader that falls behind gets only the latest record of each job, so
    that no more than one record per job is kept for it.

    Parameters
    ----------
    wanted : `~collections.abc.Callable`
        Returns whether the reader wants a job.
    """

    def __init__(self, wanted: Wanted) -> None:
        self.wanted = wanted
        self._pending: dict[str, Job] = {}
        self._ready = asyncio.Event()
        self._closed = False

    def put(self, job: Job) -> None:
        """Queue a record for the reader, in place of an older one of the same job."""
        self._pending.pop(job.id, None)
        self._pending[job.id] = job
        self._ready.set()

    def close(self) -> None:
        """End the iteration after the records that are queued."""
        self._closed = True
        self._ready.set()

    async def __aiter__(self) -> AsyncIterator[Job]:
        while True:
            await self._ready.wait()
            while self._pending:
                job_id = next(iter(self._pending))
                yield self._pending.pop(job_id)
            if self._closed:
                return
            self._ready.clear()


class Changes:
    """Distributes each change to waiters and subscribers."""

    def __init__(self) -> None:
        self._subscriptions: set[Subscription] = set()
        self._waiters: defaultdict[str, set[asyncio.Future[Job]]] = defaultdict(set)

    def show(self, job: Job) -> None:
        """Distribute a change that has been stored."""
        for subscription in self._subscriptions:
            if subscription.wanted(job):
                subscription.put(job)
        for future in self._waiters.pop(job.id, ()):
            if not future.done():
                future.set_result(job)

    def subscribe(self, wanted: Wanted) -> Subscription:
        """Return a new subscription; end it with `unsubscribe`."""
        subscription = Subscription(wanted)
        self._subscriptions.add(subscription)
        return subscription

    def unsubscribe(self, subscription: Subscription) -> None:
        """End a subscription."""
        self._subscriptions.discard(subscription)
        subscription.close()

    def close(self) -> None:
        """End all subscriptions."""
        for subscription in list(self._subscriptions):
            self.unsubscribe(subscription)

    async def next(self, job_id: str, timeout: float | None) -> Job | None:
        """Wait for the next change of a job.

        Returns
        -------
        job : `Job` or `None`
            The job after the change, `None` if ``timeout`` (s) ran out.
        """
        future: asyncio.Future[Job] = asyncio.get_running_loop().create_future()
        self._waiters[job_id].add(future)
        try:
            return await asyncio.wait_for(future, timeout)
        except TimeoutError:
            return None
        finally:
            waiters = self._waiters.get(job_id)
            if waiters is not None:
                waiters.discard(future)
                if not waiters:
                    del self._waiters[job_id]
