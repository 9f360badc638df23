# SPDX-License-Identifier: GPL-3.0-or-later
"""Supervise one local job: the small process between OCPS and the job.

It runs the job's steps one after the other, each in its own process group,
waits for them, and writes how they ended into the engine's directory of the
job. It is detached from OCPS and has its own session, so it outlives OCPS.

    python -I -S supervisor.py DIRECTORY

This file uses only the standard library, because it also runs, loaded by
path, in the interpreter of a Science Pipelines environment.

Files in the directory:

``plan.json``
    What to run: ``steps`` (each with ``argv``; if that wraps a program of the
    environment, the program's own command line is in ``tool``),
    ``environment``, ``cwd``, ``log``, ``output`` (directory), ``limits``,
    ``kill_grace`` (s), ``durable`` (whether results are written to disk
    before the job ends), ``group`` (path of a control group, may be empty).
``supervisor.json``
    Written once, by the supervisor that runs the job: ``pid``, ``session``,
    ``start`` (the kernel's start time of that process), ``boot`` (id of the
    machine's boot), ``seal`` (SHA-256 of a random token).
``group.json``
    Identity of the leader of the running step's process group.
``status.json``
    Written at the end: ``token``, until then known to the supervisor alone,
    which proves that it wrote this file; ``exit_code`` (negative for a
    signal, null if no step ran) and ``step``, the index of the last step;
    ``cancelled``, whether the job was stopped; ``failure``, why the job
    failed independently of its exit code (empty if it did not);
    ``max_rss`` (bytes); ``cpu`` (s).
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import resource
import secrets
import signal
import sys
import time
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, NoReturn

if TYPE_CHECKING or __package__:
    from ...jobs import durable
    from . import processes
    from . import step as steps
    from .step import Ahead, Prepare, Run
else:
    # Loaded by path, without its package. The modules get names that
    # pipelines do not list among the packages that they used.
    def _load(path: Path) -> ModuleType:
        module = ModuleType(f"_ocps_{path.stem}")
        module.__file__ = str(path)
        exec(compile(path.read_bytes(), str(path), "exec"), module.__dict__)
        return module

    processes = _load(Path(__file__).with_name("processes.py"))
    steps = _load(Path(__file__).with_name("step.py"))
    durable = _load(Path(__file__).resolve().parents[2] / "jobs" / "durable.py")

PR_SET_CHILD_SUBREAPER = 36

WATCH_INTERVAL = 0.5
"""How often (s) to check a job's limits of output and processes."""

TRY_AGAIN = 75
"""Exit code if the supervisor could not be started for lack of resources (EX_TEMPFAIL of sysexits.h)."""

SHORTAGES = frozenset(
    {errno.ENOSPC, errno.EDQUOT, errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EAGAIN, errno.EINTR}
)
"""Temporary errors (errno), after which an operation is retried."""


def detach(directory: Path, run: Run | None = None) -> None:
    """Start the supervisor of a job and return when it has claimed the job.

    Parameters
    ----------
    directory : `pathlib.Path`
        The engine's directory of the job.
    run : `~collections.abc.Callable`, optional
        Becomes a step in the forked child.

    Raises
    ------
    OSError
        If resources are missing; the caller may retry.
    RuntimeError
        If the supervisor could not be started; the text is the reason.
    """
    Waiting(run or steps.execute).start(directory)


class Waiting:
    """A supervisor that waits for its job.

    It is nobody's child and has a session of its own. If the process that
    made it ends before there is a job, it ends too.

    Parameters
    ----------
    run : `~collections.abc.Callable`
        Becomes a step in the forked child.
    prepare : `~collections.abc.Callable`, optional
        Called in the children that are forked before their steps are known. If
        it is not given, each step is forked when it begins.

    Raises
    ------
    OSError
        If resources are missing; it may be tried again.
    """

    def __init__(self, run: Run, prepare: Prepare | None = None) -> None:
        reader, self._writer = os.pipe()
        self._answer, writer = os.pipe()
        try:
            child = os.fork()
        except OSError:
            self.close()
            raise
        else:
            if child == 0:
                _supervisor_process(run, prepare, reader, writer)
        finally:
            os.close(reader)
            os.close(writer)
        os.waitpid(child, 0)

    def start(self, directory: Path) -> None:
        """Give it its job; return when it has claimed it.

        Raises
        ------
        OSError
            If resources are missing; it may be tried again.
        RuntimeError
            If it could not be started; the text is the reason.
        """
        with os.fdopen(self._answer, errors="replace") as file:
            # One that has ended cannot read it; what it has answered says why.
            with contextlib.suppress(BrokenPipeError), os.fdopen(self._writer, "wb", 0) as writer:
                writer.write(os.fsencode(directory))
            answer = file.read()
        if answer == "ok":
            return
        number, _, words = answer.partition(" ")
        if number.isdigit() and int(number) in SHORTAGES:
            raise OSError(int(number), words)
        raise RuntimeError(words or "the supervisor ended before it had claimed the job")

    def close(self) -> None:
        """Let it end; there will be no job for it."""
        os.close(self._writer)
        os.close(self._answer)


def _supervisor_process(run: Run, prepare: Prepare | None, reader: int, writer: int) -> NoReturn:
    code = 1
    try:
        os.setsid()
        if os.fork():
            os._exit(0)
        steps.leave_descriptors(reader, writer)
        # Others of this account may not read its memory, which has the token.
        steps.prctl(steps.PR_SET_DUMPABLE, 0)
        ahead = steps.Ahead(run, prepare, 0) if prepare else None
        with os.fdopen(reader, "rb") as file:
            name = file.read()
        if not name:
            # There will be no job.
            os._exit(0)
        directory = Path(os.fsdecode(name))
        plan = json.loads((directory / "plan.json").read_bytes())
        supervisor = Supervisor(directory, plan, run, prepare, ahead)
        # Claimed already: the job is being run, which is all the caller wants to know.
        with contextlib.suppress(durable.AlreadyClaimedError):
            supervisor.claim()
            os.write(writer, b"ok")
            os.close(writer)
            supervisor.supervise()
            os._exit(0)
        os.write(writer, b"ok")
        code = 0
    except BaseException as error:
        number = error.errno if isinstance(error, OSError) else 0
        with contextlib.suppress(OSError):
            os.write(writer, f"{number or 0} {type(error).__name__}: {error}".encode(errors="replace"))
    os._exit(code)


class Supervisor:
    """Runs one job's steps.

    Parameters
    ----------
    directory : `pathlib.Path`
        The engine's directory of the job.
    plan : `dict`
        What to run.
    run : `~collections.abc.Callable`
        Becomes a step in the forked child.
    prepare : `~collections.abc.Callable` or `None`
        Called in a child that is forked ahead of its step.
    ahead : `Ahead` or `None`
        The child for the first step, if it was forked already.
    """

    def __init__(
        self,
        directory: Path,
        plan: dict[str, Any],
        run: Run,
        prepare: Prepare | None = None,
        ahead: Ahead | None = None,
    ) -> None:
        self.directory = directory
        self.plan = plan
        self.run = run
        self.prepare = prepare
        self.ahead = ahead
        self.durable = plan.get("durable", True)
        self.group = plan.get("group", "")
        self.limits = plan.get("limits", {})
        self.token = secrets.token_hex(32)
        self.failure = ""
        self.cancelled = False
        self.interrupted = False
        self.child = 0

    def claim(self) -> None:
        """Claim the job, or raise `AlreadyClaimedError`."""
        signal.signal(signal.SIGTERM, self._on_terminate)
        signal.signal(signal.SIGALRM, self._on_alarm)
        for ignored in (signal.SIGINT, signal.SIGHUP, signal.SIGPIPE):
            signal.signal(ignored, signal.SIG_IGN)
        # Received by sigtimedwait, not by a handler.
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGCHLD})
        # Grandchildren whose parent ends become children of this process, so
        # that none can stay behind.
        steps.prctl(PR_SET_CHILD_SUBREAPER, 1)
        claim = {**(processes.identity(os.getpid()) or {}), "seal": seal(self.token)}
        # On disk before anything runs: after a power cut the job must not run again.
        durable.write_json(self.directory / "supervisor.json", claim, once=True, durable=self.durable)

    def supervise(self) -> None:
        """Run the steps and write how they ended."""
        last, status, left_out = 0, None, False
        for number, step in enumerate(self.plan["steps"]):
            ended = self._run_step(number, step)
            if ended is None:
                left_out = True
                break
            last, status = number, ended
            if status != 0 or self.failure:
                break
        self._leave_ahead()
        self._sync_output()
        usage = resource.getrusage(resource.RUSAGE_CHILDREN)
        ending = {
            "token": self.token,
            "exit_code": None if status is None else os.waitstatus_to_exitcode(status),
            "step": last,
            # A job that had ended before it was told to stop was not cancelled.
            "cancelled": self.interrupted or left_out,
            "failure": self.failure,
            "max_rss": usage.ru_maxrss * 1024,
            "cpu": round(usage.ru_utime + usage.ru_stime, 3),
        }
        while True:
            try:
                durable.write_json(self.directory / "status.json", ending, durable=self.durable)
                break
            except OSError:
                if not self.directory.exists():
                    # The job has been deleted.
                    break
                # Retry, because a full disk must not lose the end of the job.
                time.sleep(1)
        processes.remove_group(self.group)

    def _sync_output(self) -> None:
        """Write the results to disk before the job ends."""
        if not self.durable:
            return
        try:
            durable.sync_tree(self.plan["output"])
            durable.sync_folder(os.path.dirname(self.plan["output"]))
        except FileNotFoundError:
            # The job has been deleted, or has removed its own directory.
            return
        except OSError as error:
            self.failure = self.failure or f"its results could not be written to disk: {error.strerror}"

    def _run_step(self, number: int, step: dict[str, Any]) -> int | None:
        """Run one step; return its wait status, `None` if it is not to run any more."""
        # No signal may come between the fork and the assignment of the child's id.
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
        if self.cancelled:
            return None
        self.child = self._fork(step)
        with contextlib.suppress(OSError):
            os.setpgid(self.child, self.child)
        with contextlib.suppress(OSError):
            leader = processes.identity(self.child)
            durable.write_json(self.directory / "group.json", leader, durable=False)
        if self.prepare and number + 1 < len(self.plan["steps"]):
            # Without it, the next step is forked when it begins.
            with contextlib.suppress(OSError):
                self.ahead = steps.Ahead(self.run, self.prepare, number + 1)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})
        status = self._wait()
        signal.alarm(0)
        self._sweep()
        steps.remove_caches(self.child, self.plan["environment"])
        self.child = 0
        return status

    def _fork(self, step: dict[str, Any]) -> int:
        """Return the id of a child that becomes a step."""
        ahead, self.ahead = self.ahead, None
        if ahead and ahead.start(self.plan, step):
            return ahead.pid
        child = os.fork()
        if child == 0:
            steps.become(self.plan, step, self.run)
        return child

    def _leave_ahead(self) -> None:
        """End the child that was forked for a step that does not come."""
        if self.ahead:
            self.ahead.stop()
            os.waitpid(self.ahead.pid, 0)
            self.ahead = None

    def _wait(self) -> int:
        """Wait for the running step, watching its limits; return its wait status."""
        watched = self.limits.get("processes") or self.limits.get("output_size")
        while True:
            while True:
                pid, status = os.waitpid(-1, os.WNOHANG)
                if pid == self.child:
                    return status
                if pid == 0:
                    break
                if self.ahead and pid == self.ahead.pid:
                    # Killed by somebody: the next step is forked when it begins.
                    self.ahead.stop()
                    self.ahead = None
            if watched and not self.failure:
                self._watch()
                signal.sigtimedwait({signal.SIGCHLD}, WATCH_INTERVAL)
            else:
                signal.sigwaitinfo({signal.SIGCHLD})

    def _watch(self) -> None:
        """Kill a job that exceeds its limits."""
        size, count = self.limits.get("output_size"), self.limits.get("processes")
        with contextlib.suppress(OSError):
            if size and durable.tree_size(self.plan["output"]) > size:
                self.failure = f"its output grew beyond the limit of {size} bytes, so it was stopped"
            elif count and len(processes.members(self.group) or self._below()) > count:
                self.failure = f"it had more than {count} processes, so it was stopped"
        if self.failure:
            processes.kill_group(self.group)
            _kill_group(self.child, signal.SIGKILL)

    def _on_terminate(self, *_: object) -> None:
        self.cancelled = True
        if self.child:
            self.interrupted = self.interrupted or not _has_ended(self.child)
            _kill_group(self.child, signal.SIGTERM)
            signal.alarm(max(1, round(self.plan.get("kill_grace", 3))))

    def _on_alarm(self, *_: object) -> None:
        if self.child:
            _kill_group(self.child, signal.SIGKILL)

    def _below(self) -> list[int]:
        """Return the job's processes that are below this one."""
        ahead = self.ahead.pid if self.ahead else 0
        return [pid for pid in processes.descendants(os.getpid()) if pid != ahead]

    def _sweep(self) -> None:
        """Kill all processes that the step has left."""
        _kill_group(self.child, signal.SIGKILL)
        processes.kill_group(self.group)
        ahead = self.ahead.pid if self.ahead else 0
        while left := [pid for pid in processes.children(os.getpid()) if pid != ahead]:
            for pid in left:
                with contextlib.suppress(OSError):
                    os.kill(pid, signal.SIGKILL)
            for pid in left:
                with contextlib.suppress(ChildProcessError):
                    os.waitpid(pid, 0)


def seal(token: str) -> str:
    """Return the hash of a token, by which the token can be verified later."""
    return hashlib.sha256(token.encode()).hexdigest()


def _has_ended(child: int) -> bool:
    try:
        return os.waitid(os.P_PID, child, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None
    except ChildProcessError:
        return True


def _kill_group(group: int, number: int) -> None:
    with contextlib.suppress(OSError):
        os.killpg(group, number)


def main() -> int:
    """Start a job's supervisor and return when it has claimed the job."""
    try:
        detach(Path(sys.argv[1]))
    except OSError as error:
        print(error.strerror, file=sys.stderr)
        return TRY_AGAIN
    except RuntimeError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
