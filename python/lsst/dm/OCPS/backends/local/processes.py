# SPDX-License-Identifier: GPL-3.0-or-later
"""Identify, find and kill the processes of a job.

Uses only the standard library, because `supervisor` loads it by path. A
process counts as absent only if it does not exist. Any other error in
examining it, such as no free descriptor, is raised.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

MARK = "JOB_MARK"
"""Environment variable by which a job's processes are found; its value is random."""

KILL_TIMEOUT = 10.0
"""How long (s) to retry killing; a process that waits for a dead disk cannot be killed."""

_ABSENT = (FileNotFoundError, ProcessLookupError)


def identity(pid: int) -> dict[str, Any] | None:
    """Return data that distinguish a process from a later one with the same id.

    Returns
    -------
    identity : `dict` or `None`
        ``pid``, ``session``, ``start`` (the kernel's start time) and ``boot``
        (id of the machine's boot); `None` if there is no such process.

    Raises
    ------
    OSError
        If the process cannot be examined.
    """
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(errors="replace")
    except _ABSENT:
        return None
    fields = stat.rpartition(")")[2].split()
    if fields[0] in "ZX":
        return None
    return {"pid": pid, "session": int(fields[3]), "start": int(fields[19]), "boot": boot_id()}


def boot_id() -> str:
    """Return the id of the machine's boot."""
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def children(parent: int) -> list[int]:
    """Return the ids of the child processes of ``parent``."""
    if parent == os.getpid():
        # Complete, because children stay in the list until this process has waited for them.
        with contextlib.suppress(*_ABSENT):
            return [int(pid) for pid in Path(f"/proc/{parent}/task/{parent}/children").read_text().split()]
    found = []
    for pid in _all():
        with contextlib.suppress(*_ABSENT):
            fields = Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()
            if int(fields[1]) == parent:
                found.append(pid)
    return found


def in_session(claim: Mapping[str, Any]) -> list[int]:
    """Return the processes in the session of a supervisor.

    The process that created the session ended immediately, so if a process
    with its id exists, the session is another one.

    Parameters
    ----------
    claim : `~collections.abc.Mapping`
        ``session`` and ``boot`` of the supervisor.
    """
    session = claim["session"]
    if claim["boot"] != boot_id() or identity(session):
        return []
    return [pid for pid in _all() if (found := identity(pid)) and found["session"] == session]


def marked(mark: str) -> list[int]:
    """Return the processes of this account that were started with ``MARK`` set to ``mark``."""
    wanted = f"{MARK}={mark}".encode()
    found = []
    for pid in _all():
        with contextlib.suppress(PermissionError, *_ABSENT):
            if wanted in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0"):
                found.append(pid)
    return found


def kill_job(claim: Mapping[str, Any] | None, group: str, mark: str) -> bool:
    """Kill the processes of a job whose supervisor was killed.

    Parameters
    ----------
    claim : `~collections.abc.Mapping` or `None`
        ``session`` and ``boot`` of the supervisor, if known.
    group : `str`
        Path of the job's control group; empty if it has none.
    mark : `str`
        Mark of the job; empty if it has none.

    Returns
    -------
    ended : `bool`
        Whether none of its processes runs any more.
    """
    deadline = time.monotonic() + KILL_TIMEOUT
    while True:
        left = {*members(group), *(in_session(claim) if claim else ()), *(marked(mark) if mark else ())}
        left.discard(os.getpid())
        if not left:
            remove_group(group)
            return True
        if time.monotonic() > deadline:
            return False
        kill_group(group)
        for pid in left:
            with contextlib.suppress(OSError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.005)


def _all() -> Iterator[int]:
    return (int(name) for name in os.listdir("/proc") if name.isdigit())


# Control groups


def make_group(name: str, processes: int = 0) -> str:
    """Create a control group for a job below that of this process.

    Unlike a session, a process cannot leave it by becoming a daemon.

    Parameters
    ----------
    name : `str`
        Name of the group.
    processes : `int`
        How many processes and threads the group may have; 0 for no limit. If
        the kernel's controller is not available, only the supervisor enforces
        this.

    Returns
    -------
    group : `str`
        Path of the group; empty if none can be created.
    """
    for top in _own_groups():
        path = os.path.join(top, name)
        try:
            os.makedirs(path, exist_ok=True)
        except OSError:
            continue
        if processes:
            # The file exists only with the controller.
            with contextlib.suppress(OSError):
                _write(os.path.join(path, "pids.max"), str(processes))
        return path
    return ""


def join_group(group: str) -> None:
    """Move this process into a control group, if that is possible."""
    if group:
        with contextlib.suppress(OSError):
            _write(os.path.join(group, "cgroup.procs"), "0")


def members(group: str) -> list[int]:
    """Return the processes in a control group and those below it."""
    found = []
    for folder in _groups(group):
        with contextlib.suppress(*_ABSENT), open(os.path.join(folder, "cgroup.procs")) as file:
            found += [int(line) for line in file]
    return found


def kill_group(group: str) -> None:
    """Kill all processes in a control group."""
    if not group:
        return
    try:
        _write(os.path.join(group, "cgroup.kill"), "1")
    except OSError:
        # Control groups of version 1, or a kernel before 5.14.
        for pid in members(group):
            with contextlib.suppress(OSError):
                os.kill(pid, signal.SIGKILL)


def remove_group(group: str) -> None:
    """Remove a control group without processes."""
    for folder in reversed(_groups(group)):
        with contextlib.suppress(OSError):
            os.rmdir(folder)


def _groups(group: str) -> list[str]:
    """Return a control group and those below it."""
    return [folder for folder, _, _ in os.walk(group)] if group else []


def _own_groups() -> list[str]:
    """Return the directories of this process's control groups that can be used, the best first."""
    own = {}
    with contextlib.suppress(OSError):
        for line in Path("/proc/self/cgroup").read_text().splitlines():
            _, controllers, path = line.split(":", 2)
            own[controllers] = path
    found: list[tuple[int, str]] = []
    with contextlib.suppress(OSError):
        for line in Path("/proc/self/mountinfo").read_text().splitlines():
            left, _, right = line.partition(" - ")
            root, place = left.split()[3:5]
            kind, _, options = right.split()[:3]
            # In version 1, use the hierarchy that limits the number of processes.
            controllers = "" if kind == "cgroup2" else "pids"
            wanted = kind == "cgroup2" or (kind == "cgroup" and "pids" in options.split(","))
            path = own.get(controllers, "..")
            if wanted and ".." not in path:
                below = os.path.relpath(path, root) if path.startswith(root) else "."
                found.append((kind != "cgroup2", os.path.normpath(os.path.join(place, below))))
    return [path for _, path in sorted(found)]


def _write(path: str, text: str) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(descriptor, text.encode())
    finally:
        os.close(descriptor)


def descendants(pid: int) -> list[int]:
    """Return the processes below a process, at any depth."""
    found: list[int] = []
    ahead = [pid]
    while ahead:
        below = children(ahead.pop())
        found += below
        ahead += below
    return found
