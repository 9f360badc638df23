# SPDX-License-Identifier: GPL-3.0-or-later
"""The process of a job's step: how it is forked, also ahead of time, and becomes the step.

Needs the standard library alone: `supervisor` loads it by path.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import resource
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, NoReturn

if TYPE_CHECKING or __package__:
    from . import processes
else:
    _path = Path(__file__).with_name("processes.py")
    processes = ModuleType("_ocps_processes")
    exec(compile(_path.read_bytes(), str(_path), "exec"), processes.__dict__)

PR_SET_PDEATHSIG = 1
PR_SET_DUMPABLE = 4

Run = Callable[[dict[str, Any]], NoReturn]
"""Becomes the step, in the forked child; never returns."""

Prepare = Callable[[int], None]
"""Makes a child ready that waits to become a job's step; called with the step's index."""


def execute(step: dict[str, Any]) -> NoReturn:
    """Become the program of a step."""
    argv = step["argv"]
    try:
        os.execvpe(argv[0], argv, os.environ)
    except OSError as error:
        print(f"{argv[0]}: {error.strerror}", file=sys.stderr, flush=True)
        os._exit(127)


def become(plan: dict[str, Any], step: dict[str, Any], run: Run) -> NoReturn:
    """Turn this forked child of the supervisor into a step of its job.

    Parameters
    ----------
    plan : `dict`
        The job's plan.
    step : `dict`
        The step.
    run : `~collections.abc.Callable`
        Becomes the step when all is as the plan says.
    """
    try:
        prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        os.setpgid(0, 0)
        _reset_signals()
        _open_log(plan["log"])
        processes.join_group(plan.get("group", ""))
        os.chdir(plan["cwd"])
        os.environ.clear()
        os.environ.update(plan["environment"])
        set_limits(plan.get("limits", {}))
        prctl(PR_SET_DUMPABLE, 1)
        run(step)
    except BaseException as error:
        os.write(2, f"OCPS could not start the step: {error}\n".encode(errors="replace"))
    finally:
        os._exit(126)


class Ahead:
    """A child of the supervisor that was forked before its step is known.

    It ends with the supervisor.

    Parameters
    ----------
    run : `~collections.abc.Callable`
        Becomes the step.
    prepare : `~collections.abc.Callable`
        Called in the child.
    number : `int`
        Index of the step.

    Raises
    ------
    OSError
        If it cannot be forked.
    """

    def __init__(self, run: Run, prepare: Prepare, number: int) -> None:
        reader, self._writer = os.pipe()
        self.pid = os.fork()
        if self.pid == 0:
            self._wait(run, prepare, number, reader)
        os.close(reader)

    def _wait(self, run: Run, prepare: Prepare, number: int, reader: int) -> NoReturn:
        try:
            _reset_signals()
            prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
            leave_descriptors(reader)
            prepare(number)
            with os.fdopen(reader, "rb") as file:
                document = file.read()
            if document:
                plan, step = json.loads(document)
                become(plan, step, run)
        finally:
            os._exit(126)

    def start(self, plan: dict[str, Any], step: dict[str, Any]) -> bool:
        """Let it become a step; return whether it was still there."""
        with contextlib.suppress(BrokenPipeError), os.fdopen(self._writer, "wb") as file:
            file.write(json.dumps([plan, step]).encode())
            file.flush()
            return True
        return False

    def stop(self) -> None:
        """Kill it; the supervisor still has to wait for it."""
        os.close(self._writer)
        with contextlib.suppress(OSError):
            os.kill(self.pid, signal.SIGKILL)


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


def remove_caches(pid: int, environment: dict[str, str]) -> None:
    """Remove the directory for cached files that a Butler has made for a process.

    The process removes it itself at its end, unless it is killed.
    """
    folder = environment.get("TMPDIR") or "/tmp"
    with contextlib.suppress(OSError):
        for name in os.listdir(folder):
            if name.startswith(f"butler-cache-dir-{pid}-"):
                # Rarely needed, and it takes time to import.
                import shutil

                shutil.rmtree(os.path.join(folder, name), ignore_errors=True)


def leave_descriptors(*keep: int) -> None:
    """Keep nothing open of the process this was forked from, except some descriptors."""
    null = os.open(os.devnull, os.O_RDWR)
    for number in (0, 1, 2):
        os.dup2(null, number)
    for name in os.listdir("/proc/self/fd"):
        if int(name) > 2 and int(name) not in keep:
            # The listing's own descriptor is closed already.
            with contextlib.suppress(OSError):
                os.close(int(name))


def prctl(option: int, value: int) -> None:
    """Set an attribute of this process."""
    ctypes.CDLL(None).prctl(option, value, 0, 0, 0)


def _reset_signals() -> None:
    for number in range(1, signal.NSIG):
        with contextlib.suppress(OSError, ValueError):
            signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, set())


def _open_log(path: str) -> None:
    """Let standard output and error of this process go to a log."""
    # A former step may have put something else there, which must not be waited for.
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_NONBLOCK
    log = os.open(path, flags, 0o600)
    os.set_blocking(log, True)
    os.dup2(log, 1)
    os.dup2(log, 2)
    os.close(log)
