# SPDX-License-Identifier: GPL-3.0-or-later
"""``ocps check``: test a server from end to end, and report what is wrong."""

from __future__ import annotations

__all__ = ["COMMANDS"]

import asyncio
import importlib.metadata
import tempfile
import time
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from pathlib import Path
from typing import Any

import click

from ..client import Client, ClientError, RefusedError, RemoteJob
from .session import FAILED, REFUSED, UNREACHABLE, Session, command_options
from .submit import parse_pairs

Step = Callable[[], Awaitable[str]]

CHECKS = "lsst.dm.OCPS.checks"
"""Entry-point group of the checks that need the server side of OCPS."""


class _WrongError(Exception):
    """A check failed; the text says what to do."""


class Checks:
    """Checks a server step by step.

    Parameters
    ----------
    session : `Session`
        The command's options; prints the outcome of each step.
    client : `Client`
        Client of the server.
    definition : `str`
        Definition of the job to run; empty for ``sleep``, if the server has it.
    parameters : `dict` [`str`, `str`]
        Parameters of the job.
    timeout : `float`
        How long the job may take (s).
    """

    def __init__(
        self, session: Session, client: Client, definition: str, parameters: dict[str, str], timeout: float
    ) -> None:
        self._session = session
        self._client = client
        self._definition = definition
        self._parameters = parameters
        self._timeout = timeout
        self._job: RemoteJob | None = None
        self.passed: list[dict[str, Any]] = []

    async def run(self) -> int:
        """Run all steps, up to the first that fails; return the exit code."""
        for name, step in (
            ("server", self._reach),
            ("access", self._list),
            ("definitions", self._define),
            ("change stream", self._stream),
            ("job", self._run_job),
            ("results", self._results),
        ):
            begun = time.monotonic()
            try:
                words, code = await step(), 0
            except _WrongError as error:
                words, code = str(error), FAILED
            except TimeoutError:
                words, code = f"took longer than {self._timeout:g} s", UNREACHABLE
            except ClientError as error:
                words, code = str(error), REFUSED if isinstance(error, RefusedError) else UNREACHABLE
            took = time.monotonic() - begun
            self.passed.append({"check": name, "ok": not code, "words": words, "seconds": round(took, 3)})
            if not self._session.json:
                self._session.say(f"{'ok    ' if not code else 'failed'} {name}: {words} ({took:.2f} s)")
            if code:
                return code
        return 0

    async def _reach(self) -> str:
        server = await self._client.server()
        if trouble := await self._client.availability():
            raise _WrongError(f"it answers, but accepts no jobs: {trouble}")
        return f"{self._client.url} is " + ("an OCPS" if server.ours else "a UWS server, not an OCPS")

    async def _list(self) -> str:
        jobs = await self._client.jobs(last=10)
        return "job lists can be read" + (f"; the newest job is {jobs[0].id}" if jobs else "; they are empty")

    async def _define(self) -> str:
        if not (await self._client.server()).ours:
            return "this server does not show its definitions"
        names = [entry["name"] for entry in await self._client.definitions()]
        self._definition = self._definition or ("sleep" if "sleep" in names else "")
        if self._definition and self._definition not in names:
            raise _WrongError(f"there is no definition {self._definition}; there are: {', '.join(names)}")
        return ", ".join(names)

    async def _stream(self) -> str:
        if not (await self._client.server()).ours:
            return "this server has none; job lists are polled instead"
        async with asyncio.timeout(self._timeout), aclosing(self._client.changes()) as changes:  # type: ignore[type-var]
            await anext(changes)
        return "the stream is open"

    async def _run_job(self) -> str:
        ours = (await self._client.server()).ours
        if ours and not self._definition:
            return "not tried: there is no definition sleep; name another with --definition"
        if not ours and not self._parameters:
            return "not tried: give parameters of a job (name=value) to try one"
        if self._definition == "sleep" and not self._parameters:
            self._parameters = {"duration": "0.1", "text": "ocps check"}
        job = await self._client.submit(self._definition, self._parameters, run_id="ocps-check")
        try:
            self._job = job = await self._client.wait(job, self._timeout)
        except TimeoutError:
            now = await self._client.get(job)
            raise _WrongError(
                f"{job.id} is still {now.phase} after {self._timeout:g} s: {now.message or 'no reason given'}"
            ) from None
        if job.phase != "COMPLETED":
            raise _WrongError(f"{job.id} ended as {job.phase}: {job.error or job.message}")
        return f"{job.id} was run and ended as COMPLETED"

    async def _results(self) -> str:
        if self._job is None or not self._job.results:
            return "the job has none"
        with tempfile.TemporaryDirectory(prefix="ocps-check-") as folder:
            for result in self._job.results:
                await self._client.download(result, Path(folder))
        return f"{len(self._job.results)} files were downloaded"


async def _check_configuration(path: Path, index: int) -> str:
    """Return what is wrong with a configuration file; empty if nothing is.

    The check itself is part of the server side of OCPS. It is loaded by its
    entry point, because the terminal can be installed without the server side.
    """
    try:
        (entry,) = importlib.metadata.entry_points(group=CHECKS, name="configuration")
        check_file = entry.load()
    except (ImportError, ValueError) as error:
        name = getattr(error, "name", None) or "the server side of OCPS"
        return f"{name} is not installed; this needs dm-ocps[server]"
    return str(await check_file(path, index))


@click.command()
@click.argument("parameters", nargs=-1)
@click.option(
    "--definition", "-d", default="", help="Definition of the job to run (default: sleep, if there is one)."
)
@click.option("--timeout", type=float, default=60.0, help="How long the job may take (s; default: 60).")
@click.option(
    "--config",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Check this configuration file and its backend instead of a server.",
)
@click.option(
    "--index", type=int, default=1, help="Which instance of the configuration (SAL index; default: 1)."
)
@command_options
async def check(
    session: Session,
    parameters: tuple[str, ...],
    definition: str,
    timeout: float,
    config: Path | None,
    index: int,
) -> int:
    """Test a server from end to end: access, change stream, a job, its results."""
    if config:
        wrong = await _check_configuration(config, index)
        if session.json:
            session.show_json([{"check": "configuration", "ok": not wrong, "words": wrong}])
        else:
            session.say(f"{'failed' if wrong else 'ok    '} {config}: {wrong or 'jobs could run'}")
        return FAILED if wrong else 0
    async with session.client() as client:
        checks = Checks(session, client, definition, parse_pairs(parameters), timeout)
        code = await checks.run()
    if session.json:
        session.show_json(checks.passed)
    return code


COMMANDS = {"check": check}
"""All commands of this file."""
