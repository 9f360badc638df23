# SPDX-License-Identifier: GPL-3.0-or-later
"""Sends notifications about ends of jobs, by the rules of the configuration.

An end is written to a file before it is sent, and the file is removed when the
receiver has accepted it. What OCPS had no time to write when it was killed is
found in the job store at the next start. So each end is sent at least once;
the id of a notification is the same each time.

No job waits for a notification: the engine only appends to a list of
bounded length, and each receiver has a task of its own.
"""

from __future__ import annotations

__all__ = ["Notifier"]

import asyncio
import contextlib
import fnmatch
import itertools
import json
import logging
import random
import time
from collections import OrderedDict, deque
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from datetime import timedelta
from functools import partial
from typing import Any, TypeVar

from ..client.text import one_line
from ..config import InstanceConfig, NotificationRule, NotificationsConfig
from ..jobs.errors import JobError
from ..jobs.manager import JobManager
from ..jobs.model import Job
from ..jobs.times import from_ms, now, to_ms
from ..measures import Measure
from .channels import AwayError, Channel, RefusedError, mail_key, make_channels, url_key
from .message import end_document
from .spool import Spool, entry_name

T = TypeVar("T")

MAX_QUEUED = 10_000
"""Most notifications that may wait, of all receivers together; further ones are dropped."""

MAX_PENDING = 1000
"""Most ends that may wait in memory to be written to files; further ones are read from the store."""

MAX_AGE = 86400.0
"""How long (s) a receiver may be away before a notification for it is dropped."""

FIRST_PAUSE, LONGEST_PAUSE = 1.0, 300.0
"""Shortest and longest pause (s) between two attempts to deliver."""

STORE_PAUSE = 2.0
"""Pause (s) before a failed write is tried again."""

MARGIN = timedelta(seconds=60)
CLEAN_MARGIN = timedelta(seconds=1)
"""How far before the last written end to look for unwritten ones: after a crash, and after a clean end."""

CURSOR = "notifications"
"""Name under which the store remembers up to which change all ends are in files."""

CLOSE_TIMEOUT = 5.0
"""How long (s) to wait at the end for what is still to be written."""


class Notifier:
    """Sends notifications about ends of jobs.

    Parameters
    ----------
    manager : `JobManager`
        The engine, open.
    config : `InstanceConfig`
        Its configuration, with notifications.
    log : `logging.Logger`
        Gets what could not be delivered.

    Raises
    ------
    ConfigError
        If a rule or a secret cannot be used.
    """

    def __init__(self, manager: JobManager, config: InstanceConfig, log: logging.Logger) -> None:
        assert config.notifications
        self._manager = manager
        self._config: NotificationsConfig = config.notifications
        self._source = one_line(config.instance) or str(config.sal_index)
        self._log = log
        self._channels = make_channels(config.notifications)
        self._spool = Spool(manager.workspaces.work_dir / "notifications", config.durable)
        self._queues: dict[str, deque[str]] = {key: deque() for key in self._channels}
        self._filled = {key: asyncio.Event() for key in self._channels}
        self._known: OrderedDict[str, None] = OrderedDict()
        self._pending: deque[Job] = deque()
        self._wake = asyncio.Event()
        # Set while all ends are in files.
        self._idle = asyncio.Event()
        # How often ends were left to be read from the store, and how often that has been done.
        self._left_out, self._read = 1, 0
        self._written = 0
        self._written_time = now()
        self._full = False
        self._tasks: list[asyncio.Task[None]] = []
        self._counts = dict.fromkeys(("sent", "retried", "failed", "dropped"), 0)

    async def open(self) -> None:
        """Start delivery, beginning with ends since the last run."""
        for name in await asyncio.to_thread(self._spool.open):
            if (queue := self._queues.get(self._spool.target_of(name))) is not None:
                queue.append(name)
                self._known[name] = None
            else:
                # Its rule was removed, and with it the receiver.
                await asyncio.to_thread(self._spool.remove, name)
        self._manager.ledger.observers.append(self._observe)
        self._tasks = [self._start(self._write_forever())]
        for key, channel in self._channels.items():
            self._filled[key].set()
            self._tasks.append(self._start(self._deliver_forever(key, channel)))

    async def close(self) -> None:
        """Write pending notifications to files, and stop."""
        with contextlib.suppress(ValueError):
            self._manager.ledger.observers.remove(self._observe)
        with contextlib.suppress(TimeoutError, JobError):
            async with asyncio.timeout(CLOSE_TIMEOUT):
                await self._idle.wait()
                await self._remember(clean=True)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for channel in self._channels.values():
            await channel.close()

    def measures(self) -> Iterator[Measure]:
        """Return the figures of now."""
        texts = {
            "sent": "Notifications that were delivered.",
            "retried": "Attempts to deliver a notification that failed and are made again.",
            "failed": "Notifications that were refused, or given up after a day.",
            "dropped": "Notifications that were dropped because too many waited.",
        }
        for name, text in texts.items():
            yield Measure(f"ocps_notifications_{name}", text, self._counts[name], total=True)
        waiting = sum(map(len, self._queues.values())) + len(self._pending)
        yield Measure("ocps_notifications_waiting", "Notifications that wait to be delivered.", waiting)

    def _start(self, coroutine: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(coroutine)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (error := task.exception()):
            self._log.error("Notifications: a task failed", exc_info=error)

    # Ends of jobs become files

    def _observe(self, old: Job | None, job: Job) -> None:
        """Record an end. The engine calls this, so it only appends to a list."""
        if not job.terminal or (old and old.terminal):
            return
        if len(self._pending) >= MAX_PENDING:
            # It will be read from the store.
            self._left_out += 1
        else:
            self._pending.append(job)
        self._idle.clear()
        self._wake.set()

    async def _write_forever(self) -> None:
        while True:
            if self._pending:
                await self._persist(self._write_pending)
            elif self._read != self._left_out:
                await self._persist(self._catch_up)
            else:
                self._idle.set()
                self._wake.clear()
                await self._wake.wait()

    async def _write_pending(self) -> None:
        """Write the first ends that wait; they stay in the list until they are written."""
        batch = list(itertools.islice(self._pending, 100))
        time = now()
        await self._write(batch)
        for _ in batch:
            self._pending.popleft()
        if self._read == self._left_out:
            self._written_time = time
            await self._remember()

    async def _persist(self, act: Callable[[], Awaitable[T]]) -> T:
        """Repeat an operation on the disk or the store until it succeeds."""
        while True:
            try:
                return await act()
            except (OSError, JobError) as error:
                self._log.error(f"Notifications: {error}; trying again in {STORE_PAUSE:g} s")
                await asyncio.sleep(STORE_PAUSE)

    async def _catch_up(self) -> None:
        """Write the ends that are in the store and newer than the cursor."""
        left_out, time = self._left_out, now()
        text = await self._manager.store.recall(CURSOR)
        last = await self._manager.last_change()
        # The first time there is none: what was before is not told.
        if text is not None:
            cursor = json.loads(text)
            since, number = from_ms(cursor["time"]), cursor["sequence"]
            if cursor["clean"]:
                # An end that was being stored when OCPS ended was not observed.
                since -= CLEAN_MARGIN
            else:
                # Changes need not have been written in their order.
                since, number = since - MARGIN, max(0, number - MAX_PENDING)
            since = max(since, time - timedelta(seconds=MAX_AGE))
            async for job in self._manager.changed_since(number):
                if job.terminal and job.end_time and job.end_time >= since:
                    await self._write([job])
        self._written, self._written_time = max(self._written, last), time
        await self._remember()
        self._read = left_out

    async def _write(self, jobs: list[Job]) -> None:
        for job in jobs:
            for key in self._targets(job):
                name = entry_name(job, key)
                if name in self._known:
                    continue
                waiting = sum(map(len, self._queues.values()))
                if waiting >= MAX_QUEUED:
                    self._counts["dropped"] += 1
                    if not self._full:
                        self._log.error(f"Notifications: {waiting} wait; new ones are dropped")
                    self._full = True
                    continue
                self._full = False
                await asyncio.to_thread(self._spool.put, name, end_document(job, self._source))
                self._known[name] = None
                if len(self._known) > MAX_QUEUED:
                    self._known.popitem(last=False)
                self._queues[key].append(name)
                self._filled[key].set()
            self._written = max(self._written, job.sequence)

    async def _remember(self, *, clean: bool = False) -> None:
        if clean:
            self._written_time = now()
        cursor = {"sequence": self._written, "time": to_ms(self._written_time), "clean": clean}
        await self._manager.store.remember(CURSOR, json.dumps(cursor))

    def _targets(self, job: Job) -> list[str]:
        keys: dict[str, None] = {}
        for rule in self._config.rules:
            if _matches(rule, job):
                keys |= {url_key(rule): None} if rule.url else {}
                keys |= {mail_key(rule): None} if rule.mail else {}
        return list(keys)

    # Files are delivered

    async def _deliver_forever(self, key: str, channel: Channel) -> None:
        queue, filled = self._queues[key], self._filled[key]
        # Notifications that failed: how often, and when (s) to try them again.
        later: dict[str, tuple[int, float]] = {}
        # Those that failed since the last success: if they are many, the receiver is away.
        failed: set[str] = set()
        while True:
            clock = asyncio.get_running_loop().time()
            name = next((one for one in queue if one not in later or later[one][1] <= clock), None)
            if name is None:
                filled.clear()
                next_time = min((later[one][1] for one in queue), default=None)
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(filled.wait(), None if next_time is None else next_time - clock)
                continue
            if await self._persist(partial(self._deliver, name, channel, quiet=bool(failed))):
                # Separately, so that a file that cannot be removed does not cause a second delivery.
                await self._persist(partial(asyncio.to_thread, self._spool.remove, name))
                queue.remove(name)
                later.pop(name, None)
                failed.clear()
                continue
            count = later.get(name, (0, 0.0))[0] + 1
            later[name] = count, asyncio.get_running_loop().time() + _pause(count)
            failed.add(name)
            if len(failed) > 1:
                await asyncio.sleep(_pause(len(failed) - 1))

    async def _deliver(self, name: str, channel: Channel, *, quiet: bool) -> bool:
        """Deliver a notification, or drop it if it is refused or too old; return whether that is done."""
        document = await asyncio.to_thread(self._spool.get, name)
        if document is None:
            return True
        ended = int(name[:15]) / 1000
        job_id = document.get("data", {}).get("jobId")
        try:
            await channel.send(name[29:61], document)
        except (AwayError, RefusedError) as error:
            if isinstance(error, AwayError) and time.time() - ended <= MAX_AGE:
                self._counts["retried"] += 1
                if not quiet:
                    self._log.warning(f"Notifications: {channel.name}: {error}; trying again")
                return False
            self._counts["failed"] += 1
            self._log.error(f"Job {job_id}: {channel.name} was not told of its end: {error}")
        except Exception:
            # A notification that cannot be sent must not hold up the others.
            self._counts["failed"] += 1
            self._log.exception(f"Job {job_id}: {channel.name} was not told of its end")
        else:
            self._counts["sent"] += 1
        return True


def _pause(count: int) -> float:
    """Return how long (s) to wait after so many failures."""
    return min(LONGEST_PAUSE, FIRST_PAUSE * 2.0 ** min(count - 1, 30)) + random.uniform(0, FIRST_PAUSE)


def _matches(rule: NotificationRule, job: Job) -> bool:
    return (
        str(job.final_phase) in rule.phases
        and fnmatch.fnmatchcase(job.owner or "anonymous", rule.owner)
        and fnmatch.fnmatchcase(job.definition, rule.definition)
    )
