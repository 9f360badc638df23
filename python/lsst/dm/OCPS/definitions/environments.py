# SPDX-License-Identifier: GPL-3.0-or-later
"""Science Pipelines environments, which provide the programs and variables of jobs."""

from __future__ import annotations

__all__ = ["Environment", "Environments"]

import fnmatch
import os
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..config import EnvironmentConfig
from ..jobs.errors import BackendError, RequestError
from .redaction import SECRET_NAME

# Variables that programs may need. Jobs get no others of OCPS's own
# environment, so that its secrets do not reach them.
PASSED_ON = (
    "PATH",
    "HOME",
    "USER",
    "LOGNAME",
    "SHELL",
    "LANG",
    "LANGUAGE",
    "LC_*",
    "TZ",
    "TMPDIR",
    "LD_LIBRARY_PATH",
    "PYTHONPATH",
    "EUPS_*",
    "SETUP_*",
    "*_DIR",
    "LSST_DB_AUTH",
    "LSST_RESOURCES_*",
    "DAF_BUTLER_*",
    "S3_ENDPOINT_URL",
    "SSL_CERT_FILE",
)
_VERSION = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")
_VARIABLE = re.compile(r"\$(?:\{(\w+)\}|(\w+))")
_PROGRAMS = ("python", "pipetask", "butler")
_THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMEXPR_NUM_THREADS")


@dataclass(frozen=True)
class Environment:
    """One environment, for one ``version``."""

    config: EnvironmentConfig
    version: str
    threads: int

    def variables(self) -> dict[str, str]:
        """Return the environment variables of all jobs in this environment."""
        chosen = {
            name: value
            for name, value in os.environ.items()
            if any(fnmatch.fnmatchcase(name, pattern) for pattern in PASSED_ON)
            and not SECRET_NAME.search(name)
        }
        chosen |= dict.fromkeys(_THREADS, str(self.threads))
        chosen |= {name: self._expand(value, chosen) for name, value in self.config.variables.items()}
        if not self.config.setup:
            # Programs of the environment take precedence.
            chosen["PATH"] = f"{self.bin_dir}{os.pathsep}{chosen.get('PATH', os.defpath)}"
        return chosen

    @property
    def python(self) -> str:
        """The Python interpreter; not valid for an environment with a set-up command."""
        return self.config.python or sys.executable

    @property
    def bin_dir(self) -> Path:
        """The directory of the environment's programs."""
        return Path(self.python).parent

    def command(self, argv: Sequence[str]) -> list[str]:
        """Return the command line that runs ``argv`` in this environment."""
        if self.config.setup:
            setup = self.config.setup.replace("{version}", self.version)
            # The script is from the configuration; the words to run are passed as "$@".
            return ["bash", "-c", f'{setup}\nexec "$@"', "ocps", *argv]
        program = self.bin_dir / argv[0]
        # A program of the same name elsewhere would be another version.
        of_environment = bool(self.config.python) and argv[0] in _PROGRAMS
        return [str(program) if of_environment or program.exists() else argv[0], *argv[1:]]

    def missing(self, *programs: str) -> str:
        """Return in words which program is missing; empty if none is known to be."""
        if not self.config.setup:
            for program in (self.python, *(str(self.bin_dir / name) for name in programs)):
                if not os.access(program, os.X_OK):
                    return f"environment {self.config.name!r}: there is no program {program}"
        return ""

    def interpreter(self) -> list[str]:
        """Return the command line of the environment's interpreter."""
        return self.command(["python"]) if self.config.setup else [self.python]

    def expand(self, text: str) -> str:
        """Return ``text`` with its ``$NAME`` replaced by values of the environment.

        Raises
        ------
        RequestError
            If a variable is not set there.
        """
        variables = self.variables()

        def fill(match: re.Match[str]) -> str:
            name = match[1] or match[2]
            if name not in variables:
                raise RequestError(f"{text}: variable {name} is not set in environment {self.config.name!r}")
            return variables[name]

        return _VARIABLE.sub(fill, text)

    @staticmethod
    def _expand(value: str, known: Mapping[str, str]) -> str:
        return _VARIABLE.sub(lambda match: known.get(match[1] or match[2], ""), value)


class Environments:
    """All environments of a backend.

    Parameters
    ----------
    configs : `~collections.abc.Sequence` [`EnvironmentConfig`]
        The first one is the default.
    threads : `int`
        Threads that numerical libraries of a job may use.
    """

    def __init__(self, configs: Sequence[EnvironmentConfig], threads: int = 1) -> None:
        self.configs = tuple(configs) or (EnvironmentConfig(),)
        self.threads = threads

    def get(self, version: str) -> Environment:
        """Return the environment that ``version`` names; empty for the default one.

        Raises
        ------
        RequestError
            If no environment has this name, or its interpreter is missing.
        """
        environment = self._find(version)
        if missing := environment.missing():
            raise RequestError(f"version: {missing}")
        return environment

    def _find(self, version: str) -> Environment:
        if not version:
            return Environment(self.configs[0], self.configs[0].name, self.threads)
        if _VERSION.fullmatch(version):
            for config in self.configs:
                if version == config.name or (config.setup and fnmatch.fnmatchcase(version, config.name)):
                    return Environment(config, version, self.threads)
        known = ", ".join(config.name for config in self.configs)
        raise RequestError(f"version: no environment {version[:80]!r}; there are: {known}")

    def default(self) -> Environment:
        """Return the default environment."""
        return self.get("")

    def check(self) -> None:
        """Check that the programs of the default environment exist.

        The others are checked when a job requests them, so that a broken one
        affects no other jobs.

        Raises
        ------
        BackendError
            If a program is missing.
        """
        if missing := self._find("").missing("pipetask"):
            raise BackendError(missing)
