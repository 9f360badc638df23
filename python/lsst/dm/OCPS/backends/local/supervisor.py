# SPDX-License-Identifier: GPL-3.0-or-later
"""The small process that stands between OCPS and one local job.

It starts the job's steps one after the other, each in a process group of its
own, waits for them, and writes how they ended into the workspace, whole or
not at all. It belongs to no other process, so it outlives OCPS.

    python -I -S supervisor.py WORKSPACE

This file needs the standard library alone: it also runs, loaded by path,
inside the interpreter of a Science Pipelines environment.

Files in the workspace:

``plan.json``
    What to run: ``steps`` (each with ``argv``, and with ``tool`` if that
    wraps a program of the environment: the program's own command line),
    ``environment``, ``cwd``, ``log``, ``limits``, ``kill_grace`` (s).
``supervisor.json``
    Written once, by the supervisor that has the job: ``pid``, ``session``,
    ``start`` (the kernel's start time of that process), ``boot`` (id of the
    machine's boot).
``group.json``
    ``pid`` of the process group of the step that runs.
``status.json``
    Written at the end: ``exit_code`` (negative for a signal, null if no step
    ran) and ``step``, the index of the last one; ``cancelled``, whether it
    was stopped before all was done; ``max_rss`` (bytes); ``cpu`` (s).
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import resource
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

PR_SET_PDEATHSIG = 1
PR_SET_CHILD_SUBREAPER = 36

Run = Callable[[dict[str, Any]], NoReturn]
"""Becomes the step, in the forked child; never returns."""


class AlreadyClaimedError(Exception):
    """Another supervisor has this job."""


def identity(pid: int) -> dict[str, Any] | None:
    """Return what tells a process from a later one of the same number.

    Returns
    -------
    identity : `dict` or `None`
        ``pid``, ``session``, ``start`` and ``boot``; `None` if there is no such process.
    """
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return None
    fields = stat.rpartition(")")[2].split()
    if fields[0] in "ZX":
        return None
    return {"pid": pid, "session": int(fields[3]), "start": int(fields[19]), "boot": boot}


def write_json(path: Path, value: Any, *, once: bool = False) -> None:
    """Write a JSON file, whole or not at all.

    Parameters
    ----------
    path : `pathlib.Path`
        Where.
    value : `object`
        What.
    once : `bool`
        Whether to raise `AlreadyClaimedError` if the file is there already.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    with open(temporary, "w") as file:
        json.dump(value, file)
        file.flush()
        os.fsync(file.fileno())
    if not once:
        os.replace(temporary, path)
        return
    try:
        os.link(temporary, path)
    except FileExistsError:
        raise AlreadyClaimedError(str(path)) from None
    finally:
        os.unlink(temporary)


def execute(step: dict[str, Any]) -> NoReturn:
    """Become the program of a step."""
    argv = step["argv"]
    try:
        os.execvpe(argv[0], argv, os.environ)
    except OSError as error:
        print(f"{argv[0]}: {error.strerror}", file=sys.stderr, flush=True)
        os._exit(127)


def detach(workspace: Path, run: Run = execute) -> None:
    """Start the supervisor of a job and return when it has the job.

    Forks twice, so that the supervisor is nobody's child and has a session
    of its own. Returns in the calling process only.

    Raises
    ------
    RuntimeError
        If it could not be started; the text is the reason.
    """
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reader)
        _supervisor_process(workspace, run, writer)
    os.close(writer)
    with os.fdopen(reader) as file:
        answer = file.read()
    os.waitpid(child, 0)
    if answer != "ok":
        raise RuntimeError(answer or "the supervisor ended before it had the job")


def _supervisor_process(workspace: Path, run: Run, writer: int) -> NoReturn:
    code = 1
    try:
        os.setsid()
        if os.fork():
            os._exit(0)
        _leave_descriptors(writer)
        plan = json.loads((workspace / "plan.json").read_bytes())
        supervisor = Supervisor(workspace, plan, run)
        try:
            supervisor.claim()
        except AlreadyClaimedError:
            # The job is in good hands, which is all the caller wants to know.
            os.write(writer, b"ok")
            os._exit(0)
        os.write(writer, b"ok")
        os.close(writer)
        supervisor.supervise()
        code = 0
    except BaseException as error:
        with contextlib.suppress(OSError):
            os.write(writer, f"{type(error).__name__}: {error}".encode())
    os._exit(code)


def _leave_descriptors(keep: int) -> None:
    """Keep nothing open of the process this was forked from."""
    null = os.open(os.devnull, os.O_RDWR)
    for number in (0, 1, 2):
        os.dup2(null, number)
    os.closerange(3, keep)
    os.closerange(keep + 1, 65536)


class Supervisor:
    """Runs one job's steps.

    Parameters
    ----------
    workspace : `pathlib.Path`
        The job's directory.
    plan : `dict`
        What to run.
    run : `~collections.abc.Callable`
        Becomes a step in the forked child.
    """

    def __init__(self, workspace: Path, plan: dict[str, Any], run: Run) -> None:
        self.workspace = workspace
        self.plan = plan
        self.run = run
        self.cancelled = False
        self.interrupted = False
        self.child = 0

    def claim(self) -> None:
        """Take the job, or raise `AlreadyClaimedError`."""
        signal.signal(signal.SIGTERM, self._on_terminate)
        signal.signal(signal.SIGALRM, self._on_alarm)
        for ignored in (signal.SIGINT, signal.SIGHUP, signal.SIGPIPE):
            signal.signal(ignored, signal.SIG_IGN)
        # Grandchildren whose parent ends come to this process, so that none
        # can stay behind.
        _prctl(PR_SET_CHILD_SUBREAPER, 1)
        write_json(self.workspace / "supervisor.json", identity(os.getpid()), once=True)

    def supervise(self) -> None:
        """Run the steps to their end and write down how they ended."""
        last, status = 0, None
        steps = self.plan["steps"]
        for number, step in enumerate(steps):
            ended = self._run_step(step)
            if ended is None:
                break
            last, status = number, ended
            if status != 0:
                break
        all_done = status == 0 and last == len(steps) - 1
        usage = resource.getrusage(resource.RUSAGE_CHILDREN)
        ending = {
            "exit_code": None if status is None else os.waitstatus_to_exitcode(status),
            "step": last,
            # Told to stop when all had been done, it has not been stopped.
            "cancelled": self.cancelled and (self.interrupted or not all_done),
            "max_rss": usage.ru_maxrss * 1024,
            "cpu": round(usage.ru_utime + usage.ru_stime, 3),
        }
        while True:
            try:
                write_json(self.workspace / "status.json", ending)
                return
            except OSError:
                if not self.workspace.exists():
                    # The job has been deleted.
                    return
                # A full disk: the end of the job must not get lost with it.
                time.sleep(1)

    def _run_step(self, step: dict[str, Any]) -> int | None:
        """Run one step; return its wait status, `None` if it is not to run any more."""
        # No signal may come between the fork and the note of whom it made.
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
        if self.cancelled:
            return None
        self.child = os.fork()
        if self.child == 0:
            self._become(step)
        with contextlib.suppress(OSError):
            os.setpgid(self.child, self.child)
        with contextlib.suppress(OSError):
            write_json(self.workspace / "group.json", identity(self.child))
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})
        while True:
            pid, status = os.waitpid(-1, 0)
            if pid == self.child:
                break
        signal.alarm(0)
        self._sweep()
        self.child = 0
        return status

    def _become(self, step: dict[str, Any]) -> NoReturn:
        """Turn this forked child into the step."""
        try:
            _prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
            os.setpgid(0, 0)
            for number in range(1, signal.NSIG):
                with contextlib.suppress(OSError, ValueError):
                    signal.signal(number, signal.SIG_DFL)
            signal.pthread_sigmask(signal.SIG_SETMASK, set())
            log = os.open(self.plan["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
            os.dup2(log, 1)
            os.dup2(log, 2)
            os.close(log)
            os.chdir(self.plan["cwd"])
            os.environ.clear()
            os.environ.update(self.plan["environment"])
            set_limits(self.plan.get("limits", {}))
            self.run(step)
        except BaseException as error:
            os.write(2, f"OCPS could not start the step: {error}\n".encode(errors="replace"))
        finally:
            os._exit(126)

    def _on_terminate(self, *_: object) -> None:
        self.cancelled = True
        if self.child:
            self.interrupted = self.interrupted or not _has_ended(self.child)
            _kill_group(self.child, signal.SIGTERM)
            signal.alarm(max(1, round(self.plan.get("kill_grace", 3))))

    def _on_alarm(self, *_: object) -> None:
        if self.child:
            _kill_group(self.child, signal.SIGKILL)

    def _sweep(self) -> None:
        """End whatever the step left running."""
        _kill_group(self.child, signal.SIGKILL)
        while True:
            for pid in _children():
                with contextlib.suppress(OSError):
                    os.kill(pid, signal.SIGKILL)
            try:
                os.waitpid(-1, 0)
            except ChildProcessError:
                return


def set_limits(limits: dict[str, Any]) -> None:
    """Set this process's limits.

    Parameters
    ----------
    limits : `dict`
        ``memory`` (bytes of address space), ``open_files``, ``core`` (bytes),
        ``nice``; any may be absent.
    """
    kinds = {
        "memory": resource.RLIMIT_AS,
        "open_files": resource.RLIMIT_NOFILE,
        "core": resource.RLIMIT_CORE,
    }
    for name, kind in kinds.items():
        if limits.get(name) is not None:
            hard = resource.getrlimit(kind)[1]
            value = limits[name] if hard == resource.RLIM_INFINITY else min(limits[name], hard)
            resource.setrlimit(kind, (value, value))
    if limits.get("nice"):
        os.nice(limits["nice"])


def _has_ended(child: int) -> bool:
    try:
        return os.waitid(os.P_PID, child, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None
    except ChildProcessError:
        return True


def _kill_group(group: int, number: int) -> None:
    with contextlib.suppress(OSError):
        os.killpg(group, number)


def _children() -> list[int]:
    """Return the processes whose parent this one is."""
    me = str(os.getpid())
    found = []
    for name in os.listdir("/proc"):
        if name.isdigit():
            with contextlib.suppress(OSError):
                fields = Path(f"/proc/{name}/stat").read_text().rpartition(")")[2].split()
                if fields[1] == me:
                    found.append(int(name))
    return found


def _prctl(option: int, value: int) -> None:
    ctypes.CDLL(None).prctl(option, value, 0, 0, 0)


def main() -> int:
    """Start a job's supervisor and return when it has the job."""
    try:
        detach(Path(sys.argv[1]))
    except RuntimeError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
