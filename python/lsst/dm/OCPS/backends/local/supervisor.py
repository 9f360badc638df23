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
import ctypes
import errno
import hashlib
import json
import os
import resource
import secrets
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, NoReturn

if TYPE_CHECKING or __package__:
    from ...jobs import durable
    from . import processes
else:
    # Loaded by path, without its package. The modules get names that
    # pipelines do not list among the packages that they used.
    def _load(path: Path) -> ModuleType:
        module = ModuleType(f"_ocps_{path.stem}")
        exec(compile(path.read_bytes(), str(path), "exec"), module.__dict__)
        return module

    processes = _load(Path(__file__).with_name("processes.py"))
    durable = _load(Path(__file__).resolve().parents[2] / "jobs" / "durable.py")

PR_SET_PDEATHSIG = 1
PR_SET_DUMPABLE = 4
PR_SET_CHILD_SUBREAPER = 36

WATCH_INTERVAL = 0.5
"""How often (s) to check a job's limits of output and processes."""

TRY_AGAIN = 75
"""Exit code if the supervisor could not be started for lack of resources (EX_TEMPFAIL of sysexits.h)."""

SHORTAGES = frozenset(
    {errno.ENOSPC, errno.EDQUOT, errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EAGAIN, errno.EINTR}
)
"""Temporary errors (errno), after which an operation is retried."""

Run = Callable[[dict[str, Any]], NoReturn]
"""Runs a step in the forked child; never returns."""


def execute(step: dict[str, Any]) -> NoReturn:
    """Replace this process by the program of a step."""
    argv = step["argv"]
    try:
        os.execvpe(argv[0], argv, os.environ)
    except OSError as error:
        print(f"{argv[0]}: {error.strerror}", file=sys.stderr, flush=True)
        os._exit(127)


def detach(directory: Path, run: Run = execute) -> None:
    """Start the supervisor of a job and return when it has claimed the job.

    Forks twice, so that the supervisor is detached from this process and has
    its own session. Returns in the calling process only.

    Parameters
    ----------
    directory : `pathlib.Path`
        The engine's directory of the job.
    run : `~collections.abc.Callable`
        Runs a step in the forked child.

    Raises
    ------
    OSError
        If resources are missing; the caller may retry.
    RuntimeError
        If the supervisor could not be started; the text is the reason.
    """
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reader)
        _supervisor_process(directory, run, writer)
    os.close(writer)
    with os.fdopen(reader) as file:
        answer = file.read()
    os.waitpid(child, 0)
    if answer == "ok":
        return
    number, _, words = answer.partition(" ")
    if number.isdigit() and int(number) in SHORTAGES:
        raise OSError(int(number), words)
    raise RuntimeError(words or "the supervisor ended before it had claimed the job")


def _supervisor_process(directory: Path, run: Run, writer: int) -> NoReturn:
    code = 1
    try:
        os.setsid()
        if os.fork():
            os._exit(0)
        _leave_descriptors(writer)
        # Other processes of this account must not read the token in its memory.
        _prctl(PR_SET_DUMPABLE, 0)
        plan = json.loads((directory / "plan.json").read_bytes())
        supervisor = Supervisor(directory, plan, run)
        # If the job is claimed already, it is running, so that is a success too.
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


def _leave_descriptors(keep: int) -> None:
    """Close all descriptors of the parent process but ``keep``."""
    null = os.open(os.devnull, os.O_RDWR)
    for number in (0, 1, 2):
        os.dup2(null, number)
    for name in os.listdir("/proc/self/fd"):
        if int(name) > 2 and int(name) != keep:
            # The listing's own descriptor is closed already.
            with contextlib.suppress(OSError):
                os.close(int(name))


class Supervisor:
    """Runs one job's steps.

    Parameters
    ----------
    directory : `pathlib.Path`
        The engine's directory of the job.
    plan : `dict`
        What to run.
    run : `~collections.abc.Callable`
        Runs a step in the forked child.
    """

    def __init__(self, directory: Path, plan: dict[str, Any], run: Run) -> None:
        self.directory = directory
        self.plan = plan
        self.run = run
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
        # Orphaned grandchildren become children of this process, so that none
        # is left behind.
        _prctl(PR_SET_CHILD_SUBREAPER, 1)
        claim = {**(processes.identity(os.getpid()) or {}), "seal": seal(self.token)}
        # On disk before anything runs: after a power cut the job must not run again.
        durable.write_json(self.directory / "supervisor.json", claim, once=True, durable=self.durable)

    def supervise(self) -> None:
        """Run the steps and write how they ended."""
        last, status, left_out = 0, None, False
        for number, step in enumerate(self.plan["steps"]):
            ended = self._run_step(step)
            if ended is None:
                left_out = True
                break
            last, status = number, ended
            if status != 0 or self.failure:
                break
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

    def _run_step(self, step: dict[str, Any]) -> int | None:
        """Run one step; return its wait status, `None` if the job was cancelled before."""
        # No signal may arrive between the fork and the assignment of the child's id.
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
        if self.cancelled:
            return None
        self.child = os.fork()
        if self.child == 0:
            self._become(step)
        with contextlib.suppress(OSError):
            os.setpgid(self.child, self.child)
        with contextlib.suppress(OSError):
            leader = processes.identity(self.child)
            durable.write_json(self.directory / "group.json", leader, durable=False)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})
        status = self._wait()
        signal.alarm(0)
        self._sweep()
        remove_caches(self.child, self.plan["environment"])
        self.child = 0
        return status

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
            elif count and len(processes.members(self.group) or processes.descendants(os.getpid())) > count:
                self.failure = f"it had more than {count} processes, so it was stopped"
        if self.failure:
            processes.kill_group(self.group)
            _kill_group(self.child, signal.SIGKILL)

    def _become(self, step: dict[str, Any]) -> NoReturn:
        """Run the step in this forked child."""
        try:
            _prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
            os.setpgid(0, 0)
            for number in range(1, signal.NSIG):
                with contextlib.suppress(OSError, ValueError):
                    signal.signal(number, signal.SIG_DFL)
            signal.pthread_sigmask(signal.SIG_SETMASK, set())
            _open_log(self.plan["log"])
            processes.join_group(self.group)
            os.chdir(self.plan["cwd"])
            os.environ.clear()
            os.environ.update(self.plan["environment"])
            set_limits(self.limits)
            _prctl(PR_SET_DUMPABLE, 1)
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
        """Kill all processes that the step has left."""
        _kill_group(self.child, signal.SIGKILL)
        processes.kill_group(self.group)
        while True:
            for pid in processes.children(os.getpid()):
                with contextlib.suppress(OSError):
                    os.kill(pid, signal.SIGKILL)
            try:
                os.waitpid(-1, 0)
            except ChildProcessError:
                return


def remove_caches(pid: int, environment: dict[str, str]) -> None:
    """Remove the cache directory of a process's Butler, which a killed process leaves behind."""
    folder = environment.get("TMPDIR") or "/tmp"
    with contextlib.suppress(OSError):
        for name in os.listdir(folder):
            if name.startswith(f"butler-cache-dir-{pid}-"):
                # Imported here because it is rarely needed and slow to import.
                import shutil

                shutil.rmtree(os.path.join(folder, name), ignore_errors=True)


def set_limits(limits: dict[str, Any]) -> None:
    """Set this process's limits.

    Parameters
    ----------
    limits : `dict`
        ``memory`` (bytes of address space), ``open_files``, ``core`` (bytes),
        ``nice``, ``soft_open_files`` (only where ``open_files`` is not given);
        any may be absent. The supervisor itself enforces the others.
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
    if limits.get("soft_open_files") and not limits.get("open_files"):
        hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(limits["soft_open_files"], hard), hard))
    if limits.get("nice"):
        os.nice(limits["nice"])


def seal(token: str) -> str:
    """Return the hash of a token, by which the token can be verified later."""
    return hashlib.sha256(token.encode()).hexdigest()


def _open_log(path: str) -> None:
    """Redirect standard output and error of this process to a log."""
    # O_NONBLOCK, because a former step may have replaced the log by a pipe.
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_NONBLOCK
    log = os.open(path, flags, 0o600)
    os.set_blocking(log, True)
    os.dup2(log, 1)
    os.dup2(log, 2)
    os.close(log)


def _has_ended(child: int) -> bool:
    try:
        return os.waitid(os.P_PID, child, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None
    except ChildProcessError:
        return True


def _kill_group(group: int, number: int) -> None:
    with contextlib.suppress(OSError):
        os.killpg(group, number)


def _prctl(option: int, value: int) -> None:
    ctypes.CDLL(None).prctl(option, value, 0, 0, 0)


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
