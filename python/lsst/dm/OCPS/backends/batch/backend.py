# SPDX-License-Identifier: GPL-3.0-or-later
"""Jobs on the nodes of a batch system that share the work directory with OCPS.

The system only finds a node and starts the job's supervisor there. How a job
is going and how it ended is read from its workspace; the system adds what
the files cannot tell: why a job waits, that its node failed, who cancelled it.
"""

from __future__ import annotations

__all__ = ["BatchBackend"]

import asyncio
import contextlib
import dataclasses
import logging
import sys
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime

from pydantic import BaseModel, ConfigDict, ValidationError

from ...jobs.backend import BackendUpdate
from ...jobs.errors import BackendError
from ...jobs.file_access import open_below
from ...jobs.model import ErrorSummary, ExecutionPhase, Job, now
from ...jobs.workspace import Workspace, Workspaces
from ..local import foreground
from ..local.handle import Claim, Status
from ..local.planner import Planner
from ..supervised import SupervisedBackend, retry
from .system import PHASES, BatchSystem, Entry, State, Submission, SystemAwayError

SUBMISSIONS_AT_A_TIME = 8
"""How many jobs are passed to the system at the same time."""

FILE_DELAY = 3.0
"""How long (s) a node's last file may take to be seen here, on a shared file system."""

STOP_DELAY = 10.0
"""How long (s) to wait for the system's word on a job that was ended by a signal."""

OUTPUT_NAME = "supervisor.out"
"""What a supervisor printed, in the engine's directory: why it did not start."""

NEVER = float("inf")
"""The time (s) from which lists tell of a job that is being submitted."""

Phase = ExecutionPhase


class Handle(BaseModel):
    """What is stored with a job: the batch system's id, and which supervisor has claimed it."""

    model_config = ConfigDict(frozen=True)

    system_id: str
    claim: Claim | None = None

    @classmethod
    def parse(cls, text: str) -> Handle | None:
        """Return the handle that was stored; `None` if none was."""
        try:
            return cls.model_validate_json(text)
        except ValidationError:
            return None


@dataclass(slots=True, eq=False)
class _Watched:
    """A job that the batch system has, or may have.

    ``since`` is the time of the event loop (s) from which a list that lacks
    the job means that the system does not have it. ``ended_at`` is the time
    at which the system was first seen to have ended it, and ``left_at`` the
    time at which the supervisor was first seen to have. ``told_at`` is the
    time at which the supervisor was told to stop the job.
    """

    job: Job
    workspace: Workspace
    system_id: str = ""
    claim: Claim | None = None
    since: float = 0.0
    cancelling: bool = False
    ended_at: float | None = None
    left_at: float | None = None
    told_at: float | None = None
    shown: tuple[Phase | None, str] | None = None


@dataclass(frozen=True, slots=True)
class _View:
    """What one look at the system gave; ``reachable`` is false if it did not answer."""

    reachable: bool
    began: float
    entries: Mapping[str, list[Entry]] = field(default_factory=dict)
    history: Mapping[str, list[Entry]] | None = None


class BatchBackend(SupervisedBackend):
    """Runs jobs on a batch system whose nodes share OCPS's work directory and installation.

    Parameters
    ----------
    workspaces : `Workspaces`
        Where jobs' files are.
    planners : `~collections.abc.Mapping` [`str`, `Planner`]
        Planners by kind of job.
    system : `BatchSystem`
        The batch system.
    poll_interval : `float`
        How often to ask it (s).
    python : `str`
        The interpreter of supervisors on the nodes; empty for the one that runs here.
    log : `logging.Logger`, optional
        Gets what is unusual.
    """

    may_be_away = True

    def __init__(
        self,
        workspaces: Workspaces,
        planners: Mapping[str, Planner],
        system: BatchSystem,
        poll_interval: float = 1.0,
        python: str = "",
        log: logging.Logger | None = None,
    ) -> None:
        super().__init__(workspaces, planners, log)
        self.name = system.name
        self.system = system
        self.poll_interval = poll_interval
        self.python = python or sys.executable
        self._watched: dict[str, _Watched] = {}
        self._away_since: datetime | None = None
        self._wake = asyncio.Event()
        self._told: list[str] = []
        self._places = asyncio.Semaphore(SUBMISSIONS_AT_A_TIME)

    @property
    def unreachable_since(self) -> datetime | None:
        return self._away_since

    async def open(self) -> None:
        await super().open()
        self._spawn(self._poll())

    async def check(self) -> None:
        await super().check()
        try:
            await self.system.check()
        except SystemAwayError as error:
            raise BackendError(f"{self.name} does not answer: {error}") from None

    async def reattach(self, jobs: Collection[Job]) -> None:
        for job in jobs:
            handle = Handle.parse(job.handle)
            self._watched[job.id] = _Watched(
                job,
                self.workspaces.of(job.id, job.attempt),
                # Without a handle the next list tells whether it was submitted.
                system_id=handle.system_id if handle else "",
                claim=handle.claim if handle else None,
                cancelling=job.stopping,
            )
            if job.phase in (Phase.EXECUTING, Phase.SUSPENDED):
                self._follow(self._watched[job.id])

    async def cancel(self, job: Job) -> None:
        if await self._stop_waiting(job.id):
            # Whether it was just being submitted is told by the next list.
            watched = self._watched.setdefault(job.id, _Watched(job, self.workspaces.of(job.id, job.attempt)))
            watched.since = asyncio.get_running_loop().time()
        if found := self._watched.get(job.id):
            found.cancelling = True
            self._wake.set()

    async def forget(self, job: Job) -> None:
        if watched := self._watched.pop(job.id, None):
            self._sources.pop(job.id, None)
            # If nothing has claimed it, nothing ever will.
            await self._claim(watched.job)

    async def _launch(self, job: Job, workspace: Workspace) -> None:
        watched = self._watched.get(job.id)
        if watched is None or watched.job.attempt != job.attempt:
            watched = _Watched(job, workspace)
        argv = (self.python, "-I", "-S", foreground.__file__, str(workspace.engine))
        output = workspace.engine / OUTPUT_NAME
        async with self._places:
            # Until this is over no list tells anything about it.
            watched.since = NEVER
            self._watched[job.id] = watched
            try:
                system_id = await self.system.submit(Submission(_tag(job), argv, workspace.engine, output))
            except SystemAwayError as error:
                words = f"waiting: {self.name} does not answer: {error}"
                self._show(watched, None, words)
                return
            except BaseException:
                self._watched.pop(job.id, None)
                raise
            finally:
                watched.since = asyncio.get_running_loop().time()
        watched.system_id = system_id
        self.report(job.id, BackendUpdate(handle=self._handle(watched), message=""))

    def _handle(self, watched: _Watched) -> str:
        return Handle(system_id=watched.system_id, claim=watched.claim).model_dump_json()

    # Polling

    async def _poll(self) -> None:
        """Ask the system for all jobs at once, again and again."""
        while True:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._wake.wait(), self.poll_interval)
            self._wake.clear()
            if not self._watched:
                self._away_since = None
                continue
            try:
                await self._look()
            except Exception:
                self.log.exception(f"The jobs on {self.name} could not be looked at")

    async def _look(self) -> None:
        began = asyncio.get_running_loop().time()
        try:
            entries = await self.system.query()
            missing = {_tag(each.job) for each in self._watched.values() if _is_missing(each, entries, began)}
            history = await self.system.history(missing) if missing else {}
            view = _View(True, began, entries, history)
            self._away_since = None
            words = ""
        except SystemAwayError as error:
            if self._away_since is None:
                self.log.warning(f"{self.name} does not answer: {error}")
            self._away_since = self._away_since or now()
            view = _View(False, began)
            words = f"{self.name} does not answer: {error}"
        watched = list(self._watched.values())
        statuses = await retry(_read_files, watched)
        unwanted: list[str] = []
        for each, status in zip(watched, statuses, strict=True):
            if self._watched.get(each.job.id) is each and each.since <= began:
                unwanted += await self._judge(each, status, view, words)
        told, self._told = self._told, []
        with contextlib.suppress(SystemAwayError):
            # Should it fail: the next look finds them again.
            if told:
                await self.system.terminate(told)
            if unwanted:
                await self.system.cancel(unwanted)

    async def _judge(self, each: _Watched, status: Status | None, view: _View, away: str) -> Iterable[str]:
        """Decide what has become of a job; return which jobs of the system are to be cancelled."""
        entries = [*view.entries.get(_tag(each.job), ()), *(view.history or {}).get(_tag(each.job), ())]
        live = [entry for entry in entries if entry.state != State.ENDED]
        last = entries[-1] if entries else None
        if status:
            each.left_at = each.left_at or view.began
            by_signal = status.cancelled or status.exit_code is None or status.exit_code < 0
            waited = view.began - each.left_at
            if not (by_signal and view.reachable and live and waited < STOP_DELAY):
                await self._end(each, None if live else last)
        elif not view.reachable:
            await self._judge_unseen(each, away)
        elif live:
            return self._show_live(each, live)
        elif last:
            each.ended_at = each.ended_at or view.began
            if view.began - each.ended_at >= FILE_DELAY or (last.cancelled and each.claim is None):
                await self._end(each, last)
        else:
            await self._seek(each, view)
        return ()

    def _show_live(self, each: _Watched, live: list[Entry]) -> Iterable[str]:
        """Show what a live job is doing; return which jobs of the system are to be cancelled."""
        # A job that was submitted twice runs once: the others end at once, or are cancelled here.
        running = [entry for entry in live if entry.state != State.WAITING]
        entry = (running or live)[0]
        if each.system_id != entry.system_id:
            each.system_id = entry.system_id
            self.report(each.job.id, BackendUpdate(handle=self._handle(each)))
        phase = PHASES[entry.state]
        if running and each.claim is None:
            # The node has been found, and the supervisor has not begun yet.
            phase = Phase.QUEUED
        self._show(each, phase, "" if running else entry.reason, entry.elapsed if running else None)
        if phase == Phase.EXECUTING:
            self._follow(each)
        unwanted = [other.system_id for other in live if other is not entry and other.state != State.STOPPING]
        if each.cancelling and entry.state == State.RUNNING and each.told_at is None:
            # The supervisor alone is told, so that no process of the job ends before it knows why.
            each.told_at = asyncio.get_running_loop().time()
            self._told.append(entry.system_id)
        elif each.cancelling and entry.state != State.STOPPING and not self._is_being_stopped(each):
            unwanted.append(entry.system_id)
        return unwanted

    def _is_being_stopped(self, each: _Watched) -> bool:
        """Return whether a job's supervisor was told to stop it a short time ago."""
        return each.told_at is not None and asyncio.get_running_loop().time() - each.told_at < STOP_DELAY

    async def _judge_unseen(self, each: _Watched, away: str) -> None:
        """Decide about a job while the system does not answer."""
        if each.cancelling and each.claim is None and await self._claim(each.job):
            # It cannot run any more, whenever the system tries to start it.
            self._drop(each)
            self.report(each.job.id, BackendUpdate(phase=Phase.ABORTED))
        elif each.system_id:
            self._show(each, Phase.UNKNOWN, away)

    async def _seek(self, each: _Watched, view: _View) -> None:
        """Decide about a job that the system does not have."""
        if each.claim is None and each.cancelling:
            if await self._claim(each.job):
                self._drop(each)
                self.report(each.job.id, BackendUpdate(phase=Phase.ABORTED))
        elif each.claim is None and (not each.system_id or view.history is not None):
            # It was never submitted, or is in no record, and nothing has claimed it. Should it
            # turn up all the same, one of the two finds it claimed.
            if each.system_id:
                self.log.warning(f"Job {each.job.id}: {self.name} has lost {each.system_id}; submitted again")
            each.since = NEVER
            self._spawn(self._submit_again(each))
        else:
            self._show(each, Phase.UNKNOWN, f"{self.name} does not know its job {each.system_id} any more")

    async def _submit_again(self, each: _Watched) -> None:
        await self._resubmit(each.job)
        if each.since == NEVER and each.job.id not in self._waiting:
            # It was refused, and has been reported as failed.
            self._drop(each)

    def _show(self, each: _Watched, phase: Phase | None, words: str, elapsed: float | None = None) -> None:
        """Report what a job is doing, if that has changed."""
        if each.shown == (phase, words):
            return
        each.shown = (phase, words)
        update = BackendUpdate(phase=phase, message=words, handle=self._handle(each) if each.claim else None)
        self.report(each.job.id, dataclasses.replace(update, elapsed=elapsed))

    def _follow(self, each: _Watched) -> None:
        """Read the job's progress from its log."""
        if each.job.id not in self._sources:
            self._sources[each.job.id] = self._planner(each.job).progress_source(each.workspace)

    def _drop(self, each: _Watched) -> None:
        self._watched.pop(each.job.id, None)
        self._sources.pop(each.job.id, None)

    async def _end(self, each: _Watched, entry: Entry | None) -> None:
        """Report how a job ended; ``entry`` is the system's word on it, if there is one."""
        self._follow(each)
        source = self._sources[each.job.id]
        self._drop(each)
        if each.claim:
            # It did run, however short.
            self.report(each.job.id, BackendUpdate(phase=Phase.EXECUTING, message=""))
        try:
            ending = await retry(self._ending, each.job, each.workspace, each.claim, source)
        except Exception as error:
            ending = self._unreadable(each.job, error)
        if entry and ending.phase != Phase.COMPLETED:
            ending = await asyncio.to_thread(self._complete, ending, each, entry)
        self.report(each.job.id, ending)

    def _complete(self, ending: BackendUpdate, each: _Watched, entry: Entry) -> BackendUpdate:
        """Add what the system knows of the end of a job that did not complete."""
        if entry.failure:
            words, transient = f"{self.name}: {entry.failure}", entry.transient
        elif entry.cancelled:
            return dataclasses.replace(ending, phase=Phase.ABORTED, error=None)
        elif ending.outcome_lost and each.claim is None:
            words, transient = f"{self.name} could not start it (exit code {entry.exit_code})", False
        else:
            return ending
        detail = "\n".join(each.workspace.tail()) or _read_output(each.workspace)
        last = detail.strip().rpartition("\n")[2]
        if not entry.failure and last:
            words = f"{words}: {last[:500]}"
        code = entry.exit_code if ending.exit_code is None else ending.exit_code
        error = ErrorSummary(words, transient=transient, detail=detail)
        # A status was written after all steps had ended.
        doubt = ending.may_still_run or (entry.may_still_run and ending.outcome_lost)
        return dataclasses.replace(
            ending, phase=Phase.ERROR, error=error, exit_code=code, may_still_run=doubt
        )


def _is_missing(each: _Watched, entries: Mapping[str, list[Entry]], began: float) -> bool:
    return bool(each.system_id) and each.since <= began and _tag(each.job) not in entries


def _tag(job: Job) -> str:
    """Return the name by which a job, or a further attempt of it, is found again in the system."""
    return job.id if job.attempt == 1 else f"{job.id}.{job.attempt}"


def _read_files(watched: list[_Watched]) -> list[Status | None]:
    """Read from each job's directory who has claimed it, and how it ended; runs in a thread."""
    found: list[Status | None] = []
    for each in watched:
        # What was stored counts more than the file, which the job might have changed.
        each.claim = each.claim or Claim.read(each.workspace, "supervisor.json")
        status = Status.read(each.workspace, "status.json") if each.claim else None
        found.append(status if status and status.is_by(each.claim) else None)
    return found


def _read_output(workspace: Workspace) -> str:
    """Return the end of what a supervisor printed."""
    try:
        descriptor = open_below(workspace.engine, OUTPUT_NAME)
    except OSError:
        return ""
    with open(descriptor, "rb") as file:
        return file.read(16_384).decode(errors="replace")
