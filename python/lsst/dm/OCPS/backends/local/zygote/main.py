# SPDX-License-Identifier: GPL-3.0-or-later
"""The preloaded process of a Science Pipelines environment, from which jobs are forked.

    python -P main.py SOCKET REPO FAST

Importing the Science Pipelines takes seconds. This process imports them once,
runs a throw-away pipeline to load everything else that jobs need, and then
forks the supervisor of each job, which forks the job's steps. A step that is
a program of the environment (``tool`` in ``plan.json``) runs in the forked
process, from the program's own script; any other step is executed with
``exec``.

It runs in the interpreter of the environment and needs nothing of OCPS but
the files beside it, which it loads by path.

SOCKET is the descriptor of one end of a socket pair. Requests and answers are
JSON documents, one per packet: ``{"id": 1, "workspace": path}`` is answered
by ``{"id": 1, "error": text or ""}``. This process ends when OCPS closes the
other end; the supervisors of running jobs continue.

FAST is 1 if jobs may use the Butler in the faster ways of ``savings.py``,
``pending.py`` and ``statements.py``, or 0.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import importlib.util
import json
import os
import select
import signal
import socket
import sys
import time
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

HERE = Path(__file__).resolve().parent
MAX_PACKET = 1 << 16

PR_SET_PDEATHSIG = 1
PR_SET_DUMPABLE = 4

IDLE = 0.2
"""How long (s) no request must have come before the supervisor of the next job is forked ahead."""

MEMORY_LEFT = 1 << 30
"""How much memory (bytes) must be available for that."""

BUTLER_TIMEOUT = 5
"""How long (s) opening the Butler for later jobs may take while jobs wait."""

FIRST_BUTLER_TIMEOUT = 30
"""How long (s) it may take before this process reports that it is ready; until then jobs start cold."""


def load(name: str, folder: Path = HERE) -> ModuleType:
    """Load a file of OCPS by its path.

    The module's name is one that pipelines do not list among the packages
    that they used.
    """
    module_name = f"_ocps_{name}"
    spec = importlib.util.spec_from_file_location(module_name, folder / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[module_name] = module
    spec.loader.exec_module(module)
    return module


class Trial(NamedTuple):
    """What a run of the trial pipeline left.

    Attributes
    ----------
    variables : `dict` [`str`, `str`]
        The environment variables that it set.
    rows : `dict`
        The rows that the Butler stored.
    error : `str`
        Why it failed; empty if it did not.
    """

    variables: dict[str, str]
    rows: dict[str, list[str]]
    error: str = ""


class Zygote:
    """The process from which jobs are forked.

    Parameters
    ----------
    connection : `socket.socket`
        The connection to OCPS.
    repo : `str`
        The Butler repository to open for jobs beforehand; may be empty.
    fast : `bool`
        Whether jobs may use the Butler in faster ways.
    """

    def __init__(self, connection: socket.socket, repo: str, fast: bool) -> None:
        self.connection = connection
        self.fast = fast
        self.supervisor = load("supervisor", HERE.parent)
        self.steps = load("program")
        self.files = load("state")
        self.pages = load("pages")
        self.repo = repo
        self.loaded = self.files.LoadedFiles()
        self.waiting: Any = None
        self._written: list[Any] = []
        self._learnt = False

    def warm_up(self) -> str:
        """Load what jobs are likely to need, by running a trial pipeline twice.

        The second time it runs in a forked process, in the faster ways if
        these are wanted.

        Returns
        -------
        problem : `str`
            Why the trial failed, or why the faster ways are not used; empty
            if all is well. Jobs can be forked in any case.
        """
        try:
            with self.files.clean_state() as first:
                self.warmup = load("warmup")
                self.butlers = load("butlers").Butlers(self.repo)
                self.packages = load("packages").InstalledPackages()
                for name in self.packages.scan():
                    self.loaded.add(name)
                rows = self.warmup.run()
            problem = self._load_savings() if self.fast else ""
            second = self._repeat_trial(self.fast and not problem)
            if self.fast and not problem and (second.error or second.rows != rows):
                words = f"failed: {second.error}" if second.error else "stored other rows in the database"
                problem = f"the trial pipeline {words}"
                second = self._repeat_trial(False)
            if second.error:
                raise RuntimeError(f"it ended well only the first time: {second.error}")
        except ImportError:
            raise
        except Exception as error:
            self.fast = False
            return f"its trial pipeline failed: {type(error).__name__}: {error}"
        # Variables that only the first run set were set by imports, which
        # jobs do not repeat.
        by_imports = {name: value for name, value in first.items() if name not in second.variables}
        os.environ.update(by_imports)
        self.steps.ENVIRONMENT.update(by_imports)
        self.fast = self.fast and not problem
        return f"jobs use the Butler without the faster ways: {problem}" if problem else ""

    def _load_savings(self) -> str:
        """Load the faster ways.

        Returns
        -------
        problem : `str`
            Why they cannot be used; empty if they can.
        """
        try:
            with self.files.clean_state():
                self.savings = load("savings")
                self.pending = load("pending")
                self.reading = load("reading")
                self.statements = load("statements")
            untested = self.savings.untested()
        except (ImportError, AttributeError) as error:
            # Another version of the Butler, which lacks something.
            untested = f"this version of the Butler ({error})"
        return f"not tested with {untested}" if untested else ""

    def _repeat_trial(self, fast: bool) -> Trial:
        """Run the trial pipeline once more, in a forked process.

        Parameters
        ----------
        fast : `bool`
            Whether to use the Butler in the faster ways.

        Returns
        -------
        trial : `Trial`
            What came of it.
        """
        reader, writer = os.pipe()
        child = os.fork()
        if child == 0:
            with contextlib.suppress(BaseException), os.fdopen(writer, "w") as file:
                os.close(reader)
                try:
                    if fast:
                        self._install_savings()
                    with self.files.clean_state() as variables:
                        found = Trial(variables, self.warmup.run())
                except BaseException as error:
                    found = Trial({}, {}, f"{type(error).__name__}: {error}")
                file.write(json.dumps(found))
            os._exit(0)
        os.close(writer)
        with os.fdopen(reader) as file:
            told = file.read()
        os.waitpid(child, 0)
        return Trial(*json.loads(told)) if told else Trial({}, {}, "its process was killed")

    def _install_savings(self) -> None:
        """Make this forked process use the Butler in the faster ways."""
        runs = self.savings.NewRuns()
        runs.install()
        self.pending.PendingRows(runs).install()
        if self.butlers.opened:
            self.reading.install(self.butlers.opened[True]._registry._db._engine)

    def serve(self) -> None:
        """Answer requests until OCPS closes the connection, or this process is out of date."""
        while packet := self._next_packet():
            request = json.loads(packet)
            problem = self.loaded.changed()
            if problem:
                self.answer(id=request["id"], error=problem)
                return
            if "collections" in request:
                self._check(request)
            else:
                self._start(request)
            if not self.tend_butlers():
                return

    def _next_packet(self) -> bytes:
        """Return the next packet; empty when the other end is closed.

        When none has come for a while, the supervisor of the next job is forked.
        """
        if self.waiting is None and not select.select([self.connection], [], [], IDLE)[0]:
            self.fork_ahead()
        return self.connection.recv(MAX_PACKET)

    def fork_ahead(self) -> None:
        """Fork the supervisor of the next job, if that is wanted and there is memory for it."""
        # Without it, the next job is forked when it comes.
        with contextlib.suppress(OSError):
            if self.fast and self.pages.available() > MEMORY_LEFT:
                if not self._learnt:
                    self._learn_pages()
                self.waiting = self.supervisor.Waiting(self._carry_out, self._prepare)

    def _prepare(self, number: int) -> None:
        """Make a child ready that waits to become a job's step."""
        for written in self._written[number : number + 1]:
            self.pages.populate(written)

    def _learn_pages(self) -> None:
        """Find out in a trial which pages the processes of jobs write, by step."""
        self._learnt = True
        among = self.pages.writable()
        reader, writer = os.pipe()
        child = os.fork()
        if child == 0:
            with contextlib.suppress(BaseException):
                os.close(reader)
                self._install_savings()
                warmup: Any = self.warmup
                carry_out = warmup.carry_out
                warmup.carry_out = lambda *step: self._write_pages(writer, among, carry_out, step)
                with self.files.scratch():
                    if not self.butlers.compile_statements(self.statements, warmup):
                        warmup.run()
            os._exit(0)
        os.close(writer)
        with os.fdopen(reader) as file, contextlib.suppress(ValueError):
            self._written = [json.loads(line) for line in file]
        os.waitpid(child, 0)

    def _write_pages(self, writer: int, among: Any, carry_out: Any, step: Any) -> None:
        """Carry out a step of the trial in a forked process, which writes the pages that it has copied."""
        child = os.fork()
        if child == 0:
            with contextlib.suppress(BaseException):
                carry_out(*step)
                with os.fdopen(writer, "w") as file:
                    file.write(json.dumps(self.pages.copied(among)) + "\n")
            os._exit(0)
        os.waitpid(child, 0)

    def _start(self, request: dict[str, Any]) -> None:
        waiting, self.waiting = self.waiting, None
        directory = Path(request["workspace"])
        if waiting:
            # Should it have ended, the job is started as if it had not been there.
            with contextlib.suppress(OSError, RuntimeError):
                waiting.start(directory)
                self.answer(id=request["id"], error="")
                return
        try:
            self.supervisor.detach(directory, self._carry_out)
        except (OSError, RuntimeError) as error:
            self.answer(id=request["id"], error=str(error))
        else:
            self.answer(id=request["id"], error="")

    def _carry_out(self, step: dict[str, Any]) -> None:
        """Become a step of a job, in the forked child; never returns."""
        script = self.steps.find_script(step)
        if script is None or not self.butlers.install():
            self.supervisor.steps.execute(step)
        # The job's own variables; the others are those of the environment's set-up.
        own = {name: value for name, value in os.environ.items() if name.startswith("JOB_")}
        os.environ.clear()
        os.environ.update(self.steps.ENVIRONMENT | own)
        if self.fast:
            self._install_savings()
        self.steps.run_script(script, step["tool"][1:], self.packages.install)

    def _check(self, request: dict[str, Any]) -> None:
        """Check in a separate process, which also answers, whether a Butler can be used."""
        child = os.fork()
        if child:
            os.waitpid(child, 0)
            return
        with contextlib.suppress(BaseException):
            if os.fork() == 0:
                problem = load("butler_check", HERE.parent).problem(request["repo"], request["collections"])
                self.answer(id=request["id"], error="", problem=problem)
        os._exit(0)

    def tend_butlers(self, timeout: int = BUTLER_TIMEOUT) -> bool:
        """Open Butlers for future jobs, or check those that are open.

        Returns
        -------
        certain : `bool`
            `False` if the repository has been replaced, so that this process
            must not be used any more.
        """
        certain = True
        with contextlib.suppress(Exception), self.files.time_limit(timeout):
            if self.butlers.wanted:
                with self.loaded.reading(), self.files.clean_state():
                    self.butlers.open()
                if self.fast:
                    with self.files.scratch(), self.files.clean_state():
                        self.butlers.compile_statements(self.statements, self.warmup)
                self.prepare_to_fork()
            elif self.butlers.opened:
                certain = self.butlers.same()
        return certain

    def prepare_to_fork(self) -> None:
        """Record which modules are loaded, and prepare memory for sharing with children."""
        if self.waiting:
            # It does not have what has been loaded since.
            self.waiting.close()
            self.waiting = None
        self.loaded.add_modules()
        gc.collect()
        # Otherwise the garbage collector of each child would write to, and so copy, every page.
        gc.freeze()
        self._learnt = False

    def answer(self, **message: Any) -> None:
        """Send a packet."""
        self.connection.sendall(json.dumps(message).encode())


def main() -> int:
    """Warm up, report that this process is ready, and serve requests."""
    begin = time.monotonic()
    prctl = ctypes.CDLL(None).prctl
    prctl(PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
    # Other processes of the same user, such as jobs, cannot look into this one.
    prctl(PR_SET_DUMPABLE, 0, 0, 0, 0)
    # End by an exception rather than by the signal, so that the warm-up's files are removed.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    zygote = Zygote(socket.socket(fileno=int(sys.argv[1])), sys.argv[2], sys.argv[3] == "1")
    # What is loaded stays: to search it for garbage again and again costs a fifth of the start.
    gc.disable()
    with zygote.files.scratch():
        problem = zygote.warm_up()
    zygote.prepare_to_fork()
    zygote.tend_butlers(FIRST_BUTLER_TIMEOUT)
    gc.enable()
    zygote.fork_ahead()
    zygote.answer(id=0, error="", seconds=round(time.monotonic() - begin, 1), problem=problem)
    # OSError: OCPS has ended.
    with contextlib.suppress(OSError):
        zygote.serve()
    return 0


if __name__ == "__main__":
    sys.exit(main())
