# SPDX-License-Identifier: GPL-3.0-or-later
"""Run a program of the environment in a forked, preloaded process.

Loaded by path by ``main.py``. The program's own script is run, as the
interpreter would run it, so that the behaviour is the same.
"""

from __future__ import annotations

import atexit
import contextlib
import ctypes
import importlib
import os
import shlex
import shutil
import signal
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any, NoReturn

TOOLS = ("pipetask", "butler")
"""Programs whose modules are preloaded."""

ENVIRONMENT = dict(os.environ)
"""The environment variables after the environment's set-up, before any import."""

PR_SET_NAME = 15


def find_script(step: dict[str, Any]) -> Path | None:
    """Return the script of a step that this process can run; `None` if it cannot.

    It can if the first line of the script names the Python interpreter that
    runs this process.
    """
    tool = step.get("tool") or [""]
    found = shutil.which(tool[0], path=ENVIRONMENT.get("PATH")) if tool[0] in TOOLS else None
    if found is None:
        return None
    path = Path(found)
    interpreter = _interpreter(path)
    if interpreter is None or Path(interpreter).parent != Path(sys.executable).parent:
        return None
    return path


def _interpreter(script: Path) -> str | None:
    """Return the Python interpreter that a script names in its first lines."""
    with script.open("rb") as file:
        start = file.read(4096).decode(errors="replace").splitlines()
    if not start or not start[0].startswith("#!"):
        return None
    words = start[0][2:].split()
    if words == ["/bin/sh"] and len(start) > 1 and start[1].startswith("'''exec'"):
        # pip writes this where the interpreter's path is too long for the kernel.
        words = shlex.split(start[1].removeprefix("'''exec'"))[:1]
    if len(words) == 2 and words[0].endswith("/env"):
        words = [shutil.which(words[1], path=ENVIRONMENT.get("PATH")) or ""]
    # Options to the interpreter would not be those of this process.
    if len(words) != 1 or "python" not in Path(words[0]).name:
        return None
    return words[0]


def run_script(script: Path, arguments: list[str], adjust: Callable[[], None]) -> NoReturn:
    """Run a script as a new interpreter would, then end this process.

    Parameters
    ----------
    script : `pathlib.Path`
        The script.
    arguments : `list` [`str`]
        Its arguments.
    adjust : `~collections.abc.Callable`
        Called just before the script runs.
    """
    code = 1
    try:
        _prepare(script, arguments)
        adjust()
        code = _run(script)
        code = _finish(code)
    finally:
        os._exit(code & 0xFF)


def _prepare(script: Path, arguments: list[str]) -> None:
    """Set what a new interpreter sets at its start, and reseed what children must not share."""
    ctypes.CDLL(None).prctl(PR_SET_NAME, script.name.encode()[:15], 0, 0, 0)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for ignored in (signal.SIGPIPE, signal.SIGXFSZ):
        signal.signal(ignored, signal.SIG_IGN)
    sys.argv = [str(script), *arguments]
    if not ENVIRONMENT.get("PYTHONSAFEPATH"):
        sys.path.insert(0, str(script.parent))
    importlib.invalidate_caches()
    # Unlike the standard library's generator, this one does not reseed itself after a fork.
    if random := sys.modules.get("numpy.random"):
        random.seed()


def _run(script: Path) -> int:
    main = ModuleType("__main__")
    main.__dict__.update(__file__=str(script), __builtins__=__builtins__)
    # multiprocessing looks here for the module to load in processes that the script starts.
    sys.modules["__main__"] = main
    try:
        exec(compile(script.read_bytes(), str(script), "exec"), main.__dict__)
    except SystemExit as error:
        return _status(error.code)
    except BaseException as error:
        # Leave out the frame of the line above, which is not the script's.
        inner = error.__traceback__.tb_next if error.__traceback__ else None
        sys.excepthook(type(error), error.with_traceback(inner), inner)
        if isinstance(error, KeyboardInterrupt):
            _finish(1)
            signal.signal(signal.SIGINT, signal.SIG_DFL)
            os.kill(os.getpid(), signal.SIGINT)
        return 1
    return 0


def _status(code: Any) -> int:
    """Return the exit status that goes with what `SystemExit` carries."""
    if code is None:
        return 0
    if isinstance(code, int):
        return code
    print(code, file=sys.stderr)
    return 1


def _finish(code: int) -> int:
    """Do what an interpreter does before it exits; return the exit status."""
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    try:
        sys.stdout.flush()
    except OSError:
        code = 120
    with contextlib.suppress(OSError):
        sys.stderr.flush()
    return code
