# SPDX-License-Identifier: GPL-3.0-or-later
"""What a preloaded process must know of itself: which files it has loaded, what must not stay.

Loaded by path by ``main.py``.
"""

from __future__ import annotations

import atexit
import builtins
import contextlib
import io
import logging
import os
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any, NoReturn

Mark = tuple[int, int, int]

_DISTRIBUTIONS = (".dist-info", ".egg-info", ".egg-link", ".pth")


def mark(path: str) -> Mark | None:
    """Return what changes when a file does: inode, size, time (ns); `None` if there is none."""
    try:
        status = os.stat(path)
    except OSError:
        return None
    return status.st_ino, status.st_size, status.st_mtime_ns


class LoadedFiles:
    """The files of all modules that were imported, where modules are looked for, and what else was read.

    As long as none of them changes, a new interpreter would load the same.
    """

    def __init__(self) -> None:
        self._begin = time.time_ns()
        self._files: dict[str, Mark | None] = {}
        self._folders: dict[str, tuple[Mark | None, set[str]]] = {}
        self._problem = ""

    def note(self) -> None:
        """Note the modules that have been imported since, and where others would be found."""
        for module in list(sys.modules.values()):
            if name := getattr(module, "__file__", None):
                self.add(name)
        for folder in sys.path:
            if folder in self._folders and self._folder_changed(folder):
                self._problem = f"{folder} has changed"
            self._folders[folder] = mark(folder), self._relevant(folder)

    @contextlib.contextmanager
    def reading(self) -> Iterator[None]:
        """Note every file that is opened for reading within."""
        read: set[str] = set()
        builtin = builtins.open

        def remember(file: Any, mode: str = "r", *args: Any, **kwargs: Any) -> Any:
            if not isinstance(file, int) and not set(mode) & set("wax+"):
                read.add(os.path.abspath(os.fsdecode(file)))
            return builtin(file, mode, *args, **kwargs)

        # pathlib has it from io.
        builtins.open = io.open = remember  # type: ignore[assignment]
        try:
            yield
        finally:
            builtins.open = io.open = builtin
            for name in read:
                self.add(name)

    def add(self, name: str) -> None:
        """Note a file, or that there is none."""
        if name not in self._files:
            found = self._files[name] = mark(name)
            if found and self._begin <= found[2] <= time.time_ns():
                # Perhaps after it was read.
                self._problem = f"{name} has changed while it was loaded"

    def changed(self) -> str:
        """Say what has changed; empty if nothing has."""
        if not self._problem:
            files = (name for name, known in self._files.items() if mark(name) != known)
            folders = (name for name in self._folders if self._folder_changed(name))
            name = next(files, "") or next(folders, "")
            self._problem = f"{name} has changed" if name else ""
        return self._problem

    def _folder_changed(self, folder: str) -> bool:
        known, names = self._folders[folder]
        now = mark(folder)
        if now == known:
            return False
        # Other code that comes and goes there does not matter.
        self._folders[folder] = now, names
        return self._relevant(folder) != names

    def _relevant(self, folder: str) -> set[str]:
        """Return what is in a folder that a new interpreter might load instead of what is loaded."""
        try:
            names = os.listdir(folder)
        except OSError:
            return set()
        loaded = {name.partition(".")[0] for name in sys.modules}
        return {name for name in names if name.endswith(_DISTRIBUTIONS) or name.partition(".")[0] in loaded}


SCRATCH_PREFIX = "ocps-warmup-"


@contextlib.contextmanager
def scratch() -> Iterator[None]:
    """Have temporary files made in a directory that is removed at the end.

    It is named after this process, so that a later one can tell that it was
    left behind by one that was killed.
    """
    remove_left_behind()
    with tempfile.TemporaryDirectory(prefix=f"{SCRATCH_PREFIX}{os.getpid()}-") as folder:
        tempfile.tempdir = folder
        try:
            yield
        finally:
            # To be found out anew by each job.
            tempfile.tempdir = None


def remove_left_behind() -> None:
    """Remove the directories of such processes that have ended."""
    for folder in Path(tempfile.gettempdir()).glob(f"{SCRATCH_PREFIX}*"):
        pid = folder.name.removeprefix(SCRATCH_PREFIX).partition("-")[0]
        with contextlib.suppress(OSError):
            if pid.isdigit() and folder.stat().st_uid == os.geteuid() and not _runs(int(pid)):
                shutil.rmtree(folder, ignore_errors=True)


def _runs(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True


@contextlib.contextmanager
def clean_state() -> Iterator[dict[str, str]]:
    """Undo what is done to this process within, apart from imports.

    Gives a dictionary which at the end is filled with the environment
    variables that were set.
    """
    environment, argv, directory = dict(os.environ), sys.argv, os.getcwd()
    variables: dict[str, str] = {}
    hooks: list[Callable[[], Any]] = []
    register = atexit.register

    def remember(function: Callable[..., Any], *args: Any, **kwargs: Any) -> Callable[..., Any]:
        # One with arguments is about something of this run, such as a
        # directory to remove; one without belongs to a module.
        if args or kwargs:
            hooks.append(lambda: function(*args, **kwargs))
            return function
        return register(function)

    atexit.register = remember  # type: ignore[assignment]
    try:
        yield variables
    finally:
        atexit.register = register
        for hook in reversed(hooks):
            with contextlib.suppress(Exception):
                hook()
        variables |= {name: value for name, value in os.environ.items() if environment.get(name) != value}
        os.environ.clear()
        os.environ.update(environment)
        sys.argv = argv
        os.chdir(directory)
        _reset_logging()
        _forget_warnings()
        _forget_packages()


def _reset_logging() -> None:
    """Bring logging back to how an interpreter has it at its start."""
    logging.captureWarnings(False)
    if cli_log := sys.modules.get("lsst.daf.butler.cli.cliLog"):
        cli_log.CliLog.resetLog()
        cli_log.CliLog._componentSettings.clear()
    root = logging.getLogger()
    for handler in list(root.handlers):
        root.removeHandler(handler)
    root.setLevel(logging.WARNING)
    logging.getLogger("lsst").setLevel(logging.NOTSET)
    sys.stdout.flush()
    sys.stderr.flush()


def _forget_warnings() -> None:
    """Forget which warnings were shown, so that each job shows its own."""
    for module in list(sys.modules.values()):
        # Some put other things there.
        if isinstance(module, ModuleType):
            module.__dict__.pop("__warningregistry__", None)


def _forget_packages() -> None:
    """Forget which packages were found, and that something was said of some that were not."""
    packages = sys.modules.get("lsst.utils.packages")
    for value in list(vars(packages).values()) if packages else ():
        if hasattr(value, "cache_clear"):
            value.cache_clear()


@contextlib.contextmanager
def time_limit(seconds: int) -> Iterator[None]:
    """Interrupt what is done within after a time (s), without an error."""

    def stop(*_: object) -> NoReturn:
        raise TimeoutError

    former = signal.signal(signal.SIGALRM, stop)
    signal.alarm(seconds)
    try:
        with contextlib.suppress(TimeoutError):
            yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, former)
