# SPDX-License-Identifier: GPL-3.0-or-later
"""The state of a preloaded process: which files it has loaded, and how to undo what a trial run changed.

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

Fingerprint = tuple[int, int, int]
"""Inode, size (bytes) and modification time (ns) of a file."""

_DISTRIBUTIONS = (".dist-info", ".egg-info", ".egg-link", ".pth")


def fingerprint(path: str) -> Fingerprint | None:
    """Return the fingerprint of a file or directory, which changes when it does; `None` if it is missing."""
    try:
        status = os.stat(path)
    except OSError:
        return None
    return status.st_ino, status.st_size, status.st_mtime_ns


class LoadedFiles:
    """The files that this process has loaded, and the folders in which Python searches for modules.

    As long as none of them changes, a new interpreter would load the same
    code.
    """

    def __init__(self) -> None:
        self._begin = time.time_ns()
        self._files: dict[str, Fingerprint | None] = {}
        self._folders: dict[str, tuple[Fingerprint | None, set[str]]] = {}
        self._problem = ""

    def add_modules(self) -> None:
        """Add the files of all modules that are imported now, and the module search path."""
        for module in list(sys.modules.values()):
            if name := getattr(module, "__file__", None):
                self.add(name)
        for folder in sys.path:
            if folder in self._folders and self._folder_changed(folder):
                self._problem = f"{folder} has changed"
            self._folders[folder] = fingerprint(folder), self._relevant(folder)

    @contextlib.contextmanager
    def reading(self) -> Iterator[None]:
        """Add every file that is opened for reading within the context."""
        read: set[str] = set()
        builtin = builtins.open

        def open_and_record(file: Any, mode: str = "r", *args: Any, **kwargs: Any) -> Any:
            if not isinstance(file, int) and not set(mode) & set("wax+"):
                read.add(os.path.abspath(os.fsdecode(file)))
            return builtin(file, mode, *args, **kwargs)

        # pathlib calls io.open.
        builtins.open = io.open = open_and_record  # type: ignore[assignment]
        try:
            yield
        finally:
            builtins.open = io.open = builtin
            for name in read:
                self.add(name)

    def add(self, name: str) -> None:
        """Add a file; one that is missing counts as changed as soon as it appears."""
        if name not in self._files:
            found = self._files[name] = fingerprint(name)
            if found and self._begin <= found[2] <= time.time_ns():
                # It may have been modified after it was read.
                self._problem = f"{name} has changed while it was loaded"

    def changed(self) -> str:
        """Return which file or folder has changed, in words; empty if none has."""
        if not self._problem:
            files = (name for name, known in self._files.items() if fingerprint(name) != known)
            folders = (name for name in self._folders if self._folder_changed(name))
            name = next(files, "") or next(folders, "")
            self._problem = f"{name} has changed" if name else ""
        return self._problem

    def _folder_changed(self, folder: str) -> bool:
        known, names = self._folders[folder]
        now = fingerprint(folder)
        if now == known:
            return False
        # Files that nothing loaded depends on may come and go.
        self._folders[folder] = now, names
        return self._relevant(folder) != names

    def _relevant(self, folder: str) -> set[str]:
        """Return the entries of a folder that a new interpreter might load instead of the loaded modules."""
        try:
            names = os.listdir(folder)
        except OSError:
            return set()
        loaded = {name.partition(".")[0] for name in sys.modules}
        return {name for name in names if name.endswith(_DISTRIBUTIONS) or name.partition(".")[0] in loaded}


SCRATCH_PREFIX = "ocps-warmup-"


@contextlib.contextmanager
def scratch() -> Iterator[None]:
    """Create temporary files in a directory that is removed at the end.

    The directory is named after this process, so that a later process can
    recognise and remove what a killed one has left.
    """
    remove_left_behind()
    with tempfile.TemporaryDirectory(prefix=f"{SCRATCH_PREFIX}{os.getpid()}-") as folder:
        tempfile.tempdir = folder
        try:
            yield
        finally:
            # Each job looks up its own default.
            tempfile.tempdir = None


def remove_left_behind() -> None:
    """Remove the scratch directories of processes that have ended."""
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
    """Undo at the end of the context what was changed in this process, apart from imports.

    Yields
    ------
    variables : `dict` [`str`, `str`]
        Empty at first; at the end it has the environment variables that were
        set within the context.
    """
    environment, argv, directory = dict(os.environ), sys.argv, os.getcwd()
    variables: dict[str, str] = {}
    hooks: list[Callable[[], Any]] = []
    register = atexit.register

    def register_hook(function: Callable[..., Any], *args: Any, **kwargs: Any) -> Callable[..., Any]:
        # A hook with arguments belongs to this run (a directory to remove,
        # for example); one without belongs to a module, and stays.
        if args or kwargs:
            hooks.append(lambda: function(*args, **kwargs))
            return function
        return register(function)

    atexit.register = register_hook  # type: ignore[assignment]
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
        _reset_warnings()
        _clear_package_caches()


def _reset_logging() -> None:
    """Reset logging to its state in a new interpreter."""
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


def _reset_warnings() -> None:
    """Clear the records of warnings that were shown, so that each job shows its own."""
    for module in list(sys.modules.values()):
        # Some packages put objects other than modules into sys.modules.
        if isinstance(module, ModuleType):
            module.__dict__.pop("__warningregistry__", None)


def _clear_package_caches() -> None:
    """Clear the caches of `lsst.utils.packages`: packages found, and messages about missing ones."""
    packages = sys.modules.get("lsst.utils.packages")
    for value in list(vars(packages).values()) if packages else ():
        if hasattr(value, "cache_clear"):
            value.cache_clear()


@contextlib.contextmanager
def time_limit(seconds: int) -> Iterator[None]:
    """End the context after a time (s), without an error."""

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
