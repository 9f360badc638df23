# SPDX-License-Identifier: GPL-3.0-or-later
"""Slurm: jobs submitted, followed and cancelled with Slurm's own commands.

A job is found again by its comment and its name, which hold OCPS's id of it;
Slurm's job numbers are reused after a controller has lost its state.
"""

from __future__ import annotations

__all__ = ["Slurm", "SlurmSettings", "make_parts"]

import asyncio
import contextlib
import os
import re
import shlex
import shutil
from collections.abc import Collection
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from ..backend_api import BackendContext, BackendError, InstanceConfig, Parts, limits_of
from .batch.backend import BatchBackend
from .batch.system import Entry, State, Submission, SystemAwayError
from .local.kinds import make_kinds
from .supervised import SUPERVISOR_VARIABLES

MAX_WORKERS = 1000
"""Default of ``max_workers``: how many jobs are submitted at a time, for Slurm has its own queue."""

COMMAND_TIMEOUT = 60.0
"""How long (s) one of Slurm's commands may take."""

PREFIX = "ocps"
"""Comments are ``ocps:{tag}``, and names ``ocps-{tag}``."""

MAX_HISTORY = 64 * 2**20
"""How much (bytes) of the end of the file of completed jobs is searched."""

VARIABLES = (*SUPERVISOR_VARIABLES, "HOME", "USER", "SLURM_CONF")
"""Variables that Slurm's commands get of OCPS. Others, such as SBATCH_PARTITION, act as options."""

STATES = {
    "PENDING": State.WAITING,
    "CONFIGURING": State.WAITING,
    "RESV_DEL_HOLD": State.WAITING,
    "REQUEUED": State.WAITING,
    "REQUEUE_FED": State.WAITING,
    "REQUEUE_HOLD": State.WAITING,
    "SPECIAL_EXIT": State.WAITING,
    "RUNNING": State.RUNNING,
    "COMPLETING": State.STOPPING,
    "RESIZING": State.RUNNING,
    "SIGNALING": State.RUNNING,
    "STAGE_OUT": State.RUNNING,
    "SUSPENDED": State.SUSPENDED,
    "STOPPED": State.SUSPENDED,
}
"""What Slurm's states mean; all others are final."""

FAILURES = {
    "BOOT_FAIL": ("its node did not boot", True),
    "DEADLINE": ("it could not end before its deadline", False),
    "LAUNCH_FAILED": ("it could not be started on its node", True),
    "NODE_FAIL": ("its node failed", True),
    "OUT_OF_MEMORY": ("it needed more memory than it was given", False),
    "PREEMPTED": ("it was stopped in favour of another job", True),
    "REVOKED": ("it was moved to another cluster", False),
    "TIMEOUT": ("it ran longer than its time limit", False),
}
"""Final states that are not the job's own fault: the reason, and whether another attempt may succeed."""

SILENT = frozenset({"NODE_FAIL"})
"""Final states after which the job may still run: its node does not answer, but may be up."""

_AWAY = re.compile(
    r"[Uu]nable to contact slurm controller|timed out|[Cc]onnection (refused|reset|failure)|Zero Bytes|"
    r"standby mode|[Tt]emporarily|[Aa]uthentication (error|plugin)|Unable to establish|"
    r"Protocol authentication|[Ii]nvalid authentication credential|Unexpected message|munge"
)
_DURATION = re.compile(r"(?:(\d+)-)?(?:(\d+):)?(\d+):(\d+)")
_RECORD = re.compile(rf"\bName={PREFIX}-(\S+) JobState=(\S+)")


class SlurmSettings(BaseModel):
    """``backend_settings`` of a configuration with ``backend: slurm``.

    Parameters
    ----------
    partition, account, qos, constraint : `str`
        As sbatch's options; empty for Slurm's default.
    cpus : `int`
        CPUs of a job.
    memory : `int`
        Memory of a job on its node (MiB); 0 for Slurm's default.
    time : `int`
        Time limit of a job (minutes); 0 for Slurm's default.
    gpus : `int`
        GPUs of a job.
    options : `tuple` [`str`, ...]
        Further options of sbatch, each one word: ``--reservation=night``.
    conf : `str`
        Slurm's configuration file, if it is not where Slurm looks for it.
    completed_jobs : `str`
        File that Slurm's plugin jobcomp/filetxt writes (JobCompLoc), if this host can read it.
    python : `str`
        Python interpreter on the nodes, 3.11 or later; default the one that runs OCPS.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    partition: str = ""
    account: str = ""
    qos: str = ""
    constraint: str = ""
    cpus: Annotated[int, Field(ge=1)] = 1
    memory: Annotated[int, Field(ge=0)] = 0
    time: Annotated[int, Field(ge=0)] = 0
    gpus: Annotated[int, Field(ge=0)] = 0
    options: list[Annotated[str, Field(pattern="^--[a-z][a-z-]*(=.*)?$")]] = []
    conf: str = ""
    completed_jobs: str = ""
    python: str = ""

    def arguments(self) -> list[str]:
        """Return sbatch's options."""
        given = {
            "partition": self.partition,
            "account": self.account,
            "qos": self.qos,
            "constraint": self.constraint,
            "mem": f"{self.memory}M" if self.memory else "",
            "time": str(self.time or ""),
            "gpus": str(self.gpus or ""),
        }
        chosen = [f"--{name}={value}" for name, value in given.items() if value]
        return [*self.options, "--ntasks=1", f"--cpus-per-task={self.cpus}", *chosen]


class Slurm:
    """A Slurm cluster.

    Parameters
    ----------
    settings : `SlurmSettings`
        How jobs are submitted.
    """

    name = "Slurm"

    def __init__(self, settings: SlurmSettings) -> None:
        self.settings = settings
        self._environment = {name: os.environ[name] for name in VARIABLES if name in os.environ}
        self._environment["LC_ALL"] = "C"
        if settings.conf:
            self._environment["SLURM_CONF"] = settings.conf

    async def check(self) -> None:
        """Check that the commands are there, and that Slurm would accept a job."""
        for program in ("sbatch", "squeue", "scancel"):
            if shutil.which(program, path=self._environment.get("PATH")) is None:
                raise BackendError(f"Slurm's command {program} is not installed on this host")
        await self._run("sbatch", "--test-only", *self.settings.arguments(), script="#!/bin/sh\n")

    async def submit(self, submission: Submission) -> str:
        """Submit a job; return its number in Slurm."""
        tag = submission.tag
        answer = await self._run(
            "sbatch",
            "--parsable",
            *self.settings.arguments(),
            f"--job-name={PREFIX}-{tag}",
            f"--comment={PREFIX}:{tag}",
            # A supervisor that was killed must not be started again.
            "--no-requeue",
            # In a file name, Slurm replaces ``%`` and a letter by a value.
            f"--output={str(submission.output).replace('%', '%%')}",
            f"--chdir={submission.folder}",
            script=f"#!/bin/sh\nexec {shlex.join(submission.argv)}\n",
        )
        return answer.strip().partition(";")[0]

    async def query(self) -> dict[str, list[Entry]]:
        """Return all jobs of this account that the controller knows."""
        fields = "JobID:20|,State:20|,exit_code:12|,TimeUsed:20|,Comment:200|,Reason:200"
        answer = await self._run("squeue", "--me", "--noheader", "--states=all", "-O", fields)
        found: dict[str, list[Entry]] = {}
        for line in answer.splitlines():
            words = [word.strip() for word in line.split("|", 5)]
            if len(words) == 6 and words[4].startswith(f"{PREFIX}:"):
                number, state, status, used, comment, reason = words
                entry = _entry(number, state, _exit_code(status), _seconds(used), reason)
                found.setdefault(comment.removeprefix(f"{PREFIX}:"), []).append(entry)
        for entries in found.values():
            entries.sort(key=lambda entry: int(entry.system_id))
        return found

    async def history(self, tags: Collection[str]) -> dict[str, list[Entry]] | None:
        """Return those jobs that are in the file of completed jobs."""
        if not self.settings.completed_jobs:
            return None
        try:
            lines = await asyncio.to_thread(_read_end, Path(self.settings.completed_jobs))
        except OSError:
            return None
        found: dict[str, list[Entry]] = {}
        for line in lines:
            match = _RECORD.search(line)
            if match and match[1] in tags:
                fields = dict(word.split("=", 1) for word in line.split() if "=" in word)
                code, _, number = fields.get("ExitCode", "").partition(":")
                signal = int(number) if number.isdigit() else 0
                exit_code = -signal if signal else (int(code) if code.isdigit() else None)
                entry = _entry(fields.get("JobId", ""), match[2], exit_code, 0.0, "")
                found.setdefault(match[1], []).append(entry)
        return found

    async def terminate(self, system_ids: Collection[str]) -> None:
        """Send SIGTERM to what sbatch's script has become: the supervisor."""
        with contextlib.suppress(BackendError):
            await self._run("scancel", "--batch", "--signal=TERM", *system_ids)

    async def cancel(self, system_ids: Collection[str]) -> None:
        """Cancel jobs; Slurm ends them with SIGTERM, and after its KillWait with SIGKILL."""
        # The exit code is of no use: scancel fails for a job that has just ended, and not for an unknown one.
        with contextlib.suppress(BackendError):
            await self._run("scancel", *system_ids)

    async def _run(self, program: str, *arguments: str, script: str = "") -> str:
        """Run one of Slurm's commands and return what it prints.

        Raises
        ------
        SystemAwayError
            If Slurm does not answer.
        BackendError
            If Slurm refuses the request.
        """
        try:
            process = await asyncio.create_subprocess_exec(
                program,
                *arguments,
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
                env=self._environment,
                # A signal to OCPS's process group must not interrupt a submission.
                start_new_session=True,
            )
        except FileNotFoundError:
            raise BackendError(f"Slurm's command {program} is not installed on this host") from None
        try:
            answer, errors = await asyncio.wait_for(process.communicate(script.encode()), COMMAND_TIMEOUT)
        except TimeoutError:
            raise SystemAwayError(f"{program} took longer than {COMMAND_TIMEOUT:g} s") from None
        finally:
            if process.returncode is None:
                process.kill()
        words = " ".join(errors.decode(errors="replace").split())
        if process.returncode == 0:
            return answer.decode(errors="replace")
        if _AWAY.search(words) or not words:
            raise SystemAwayError(words or f"{program} ended with exit code {process.returncode}")
        raise BackendError(words)


def _entry(number: str, state: str, exit_code: int | None, elapsed: float, reason: str) -> Entry:
    found = STATES.get(state, State.ENDED)
    if found != State.ENDED:
        return Entry(number, found, f"waiting in Slurm: {reason}", elapsed)
    failure, transient = FAILURES.get(state, ("", False))
    cancelled, may_still_run = state == "CANCELLED", state in SILENT
    return Entry(number, found, "", elapsed, exit_code, failure, transient, cancelled, may_still_run)


def _exit_code(text: str) -> int | None:
    """Return the exit code for a wait status, which is what squeue prints."""
    return os.waitstatus_to_exitcode(int(text)) if text.isdigit() else None


def _seconds(text: str) -> float:
    """Return a duration (s), which squeue prints as ``days-hours:minutes:seconds``."""
    match = _DURATION.fullmatch(text)
    days, hours, minutes, seconds = (int(part or 0) for part in match.groups()) if match else (0,) * 4
    return float(((days * 24 + hours) * 60 + minutes) * 60 + seconds)


def _read_end(path: Path) -> list[str]:
    """Return the last lines of a file."""
    with path.open("rb") as file:
        length = file.seek(0, os.SEEK_END)
        file.seek(max(0, length - MAX_HISTORY))
        return file.read().decode(errors="replace").splitlines()


def make_parts(config: InstanceConfig, context: BackendContext) -> Parts:
    """Make the backend that runs jobs on a Slurm cluster.

    Parameters
    ----------
    config : `InstanceConfig`
        The configuration.
    context : `BackendContext`
        What the engine provides.

    Raises
    ------
    ConfigError
        If a setting or a job definition cannot be used.
    """
    settings = config.settings(SlurmSettings)
    kinds = make_kinds(config, context)
    backend = BatchBackend(
        context.workspaces,
        kinds.planners,
        Slurm(settings),
        config.poll_interval,
        settings.python,
        context.log,
    )
    return Parts("slurm", backend, kinds.definitions, limits_of(config, max_workers=MAX_WORKERS))
