# SPDX-License-Identifier: GPL-3.0-or-later
"""The pool of preloaded processes: starts them, sends them requests, and replaces them."""

from __future__ import annotations

__all__ = ["Preload", "ZygotePool"]

import asyncio
import contextlib
import hashlib
import json
import logging
import socket
import tempfile
from collections import OrderedDict
from collections.abc import Coroutine, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from ....jobs.errors import BackendError

ZYGOTE = Path(__file__).with_name("main.py")

START_TIMEOUT = 300.0
"""How long (s) a process may take to load the Science Pipelines."""

ANSWER_TIMEOUT = 10.0
"""How long (s) a preloaded process may take to fork a job; after that the job is started cold."""

RETRY_AFTER = (2.0, 600.0)
"""How long (s) to wait after a failed attempt to preload an environment: the first time, and at most."""

MAX_ZYGOTES = 3
"""How many environments are kept preloaded; the least recently used one is closed first."""

MAX_PACKET = 1 << 16


@dataclass(frozen=True)
class Preload:
    """The kind of jobs that a preloaded process starts.

    Parameters
    ----------
    name : `str`
        The environment's name or version.
    python : `tuple` [`str`, ...]
        Command line of the environment's interpreter.
    variables : `~collections.abc.Mapping` [`str`, `str`]
        Environment variables, without those of a job.
    butler : `str`
        The repository.
    fast : `bool`
        Whether its jobs may use the Butler in faster ways; see ``main.py``.
    """

    name: str
    python: tuple[str, ...]
    variables: Mapping[str, str]
    butler: str
    fast: bool = True

    def key(self) -> str:
        """Return a digest of all of this: jobs with the same key can share a process."""
        text = json.dumps([self.python, sorted(self.variables.items()), self.butler, self.fast])
        return hashlib.sha256(text.encode()).hexdigest()


class ZygoteError(Exception):
    """A preloaded process could not start, has ended, or refused a request."""


class Zygote:
    """One preloaded process.

    Parameters
    ----------
    preload : `Preload`
        The kind of jobs that it starts.
    """

    def __init__(self, preload: Preload) -> None:
        self.preload = preload
        self.ready = False
        self.seconds = 0.0
        self.problem = ""
        self._process: asyncio.subprocess.Process | None = None
        self._socket: socket.socket | None = None
        self._reader: asyncio.Task[None] | None = None
        self._answers: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self._last_id = 0

    @property
    def pid(self) -> int | None:
        """The process id; `None` before the start."""
        return self._process.pid if self._process else None

    async def start(self) -> None:
        """Start the process and wait until it is ready.

        Raises
        ------
        ZygoteError
            If it did not become ready; the text is the reason.
        """
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        ours.setblocking(False)
        self._socket = ours
        with theirs, tempfile.TemporaryFile() as errors:
            ready = self._expect(0)
            try:
                self._process = await asyncio.create_subprocess_exec(
                    *self.preload.python,
                    "-P",
                    str(ZYGOTE),
                    str(theirs.fileno()),
                    self.preload.butler,
                    str(int(self.preload.fast)),
                    stdin=asyncio.subprocess.DEVNULL,
                    stdout=asyncio.subprocess.DEVNULL,
                    stderr=errors,
                    env=dict(self.preload.variables),
                    pass_fds=[theirs.fileno()],
                    start_new_session=True,
                )
            except OSError as error:
                raise ZygoteError(f"{self.preload.python[0]}: {error.strerror}") from None
            theirs.close()
            self._reader = asyncio.create_task(self._read())
            try:
                answer = await asyncio.wait_for(ready, START_TIMEOUT)
            except TimeoutError:
                raise ZygoteError(f"it was not ready within {START_TIMEOUT:g} s") from None
            except ZygoteError:
                raise ZygoteError(_last_line(errors) or "it ended") from None
        self.seconds = answer["seconds"]
        self.problem = answer["problem"]
        self.ready = True

    async def ask(self, timeout: float, **request: Any) -> dict[str, Any]:
        """Send a request and return the answer.

        Raises
        ------
        ZygoteError
            If the process refuses, has ended, or does not answer within
            ``timeout`` (s).
        """
        self._last_id += 1
        answer = self._expect(self._last_id)
        try:
            assert self._socket is not None
            packet = json.dumps({"id": self._last_id, **request}).encode()
            await asyncio.get_running_loop().sock_sendall(self._socket, packet)
            found = await asyncio.wait_for(answer, timeout)
        except OSError as error:
            # TimeoutError is one.
            raise ZygoteError(error.strerror or f"it did not answer within {timeout:g} s") from None
        if found["error"]:
            raise ZygoteError(found["error"])
        return found

    def _expect(self, number: int) -> asyncio.Future[dict[str, Any]]:
        future = asyncio.get_running_loop().create_future()
        self._answers[number] = future
        future.add_done_callback(lambda _: self._answers.pop(number, None))
        return future

    async def _read(self) -> None:
        """Pass each answer to the caller that waits for it, until the process ends."""
        assert self._socket is not None
        loop = asyncio.get_running_loop()
        with contextlib.suppress(OSError):
            while packet := await loop.sock_recv(self._socket, MAX_PACKET):
                answer = json.loads(packet)
                future = self._answers.get(answer["id"])
                if future and not future.done():
                    future.set_result(answer)
        self._fail_requests()

    def _fail_requests(self) -> None:
        """Raise `ZygoteError` in every caller that still waits for an answer."""
        self.ready = False
        for future in list(self._answers.values()):
            if not future.done():
                future.set_exception(ZygoteError("it has ended"))

    async def close(self) -> None:
        """End the process, even while it is starting; running jobs continue."""
        self._fail_requests()
        if self._reader:
            self._reader.cancel()
            await asyncio.gather(self._reader, return_exceptions=True)
        if self._socket:
            self._socket.close()
        if self._process and self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                self._process.terminate()
            try:
                await asyncio.wait_for(self._process.wait(), 5)
            except TimeoutError:
                self._process.kill()
                await self._process.wait()

    async def ended(self) -> None:
        """Wait until the process has ended."""
        assert self._process is not None
        await self._process.wait()


def _last_line(errors: IO[bytes]) -> str:
    errors.seek(0)
    lines = errors.read().decode(errors="replace").split("\n")
    return next((line.strip() for line in reversed(lines) if line.strip()), "")[:500]


@dataclass
class Failures:
    """The consecutive failed attempts to preload an environment.

    Attributes
    ----------
    count : `int`
        How many have failed.
    again : `float`
        Earliest time of the next attempt (s, time of the event loop).
    """

    count: int = 0
    again: float = 0.0

    def add(self) -> float:
        """Count a failure; return how long (s) to wait before the next attempt."""
        first, longest = RETRY_AFTER
        wait = min(first * 4.0**self.count, longest)
        self.count += 1
        self.again = asyncio.get_running_loop().time() + wait
        return wait


class ZygotePool:
    """The preloaded processes of one OCPS.

    Parameters
    ----------
    log : `logging.Logger`, optional
        Gets a line when an environment is preloaded, or cannot be.
    """

    def __init__(self, log: logging.Logger | None = None) -> None:
        self.log = log or logging.getLogger(__name__)
        self._zygotes: OrderedDict[str, Zygote] = OrderedDict()
        self._tasks: set[asyncio.Task[None]] = set()
        self._failed: dict[str, Failures] = {}

    def prepare(self, preload: Preload) -> None:
        """Begin to preload a process for such jobs; return without waiting for it."""
        key = preload.key()
        loop = asyncio.get_running_loop()
        if key in self._zygotes or (key in self._failed and loop.time() < self._failed[key].again):
            return
        zygote = self._zygotes[key] = Zygote(preload)
        self._spawn(self._keep(key, zygote))
        self._limit()

    async def launch(self, preload: Preload, workspace: Path) -> bool:
        """Start a job from a preloaded process.

        Returns
        -------
        started : `bool`
            `False` if no process is ready, or if it refused; the caller then
            starts the job cold.
        """
        key = preload.key()
        zygote = self._zygotes.get(key)
        if zygote is None or not zygote.ready:
            self.prepare(preload)
            return False
        self._zygotes.move_to_end(key)
        try:
            await zygote.ask(ANSWER_TIMEOUT, workspace=str(workspace))
        except ZygoteError as error:
            self.log.warning(f"Environment {preload.name!r}: its preloaded process is replaced: {error}")
            self._drop(key)
            self.prepare(preload)
            return False
        return True

    async def check(self, preload: Preload, collections: Sequence[str], timeout: float) -> str | None:
        """Check a repository and its collections in a preloaded process.

        Returns
        -------
        problem : `str` or `None`
            Why they cannot be used; empty if they can. `None` if no process
            is ready or none answered within ``timeout`` (s).
        """
        zygote = self._zygotes.get(preload.key())
        if zygote is None or not zygote.ready:
            return None
        try:
            answer = await zygote.ask(timeout, repo=preload.butler, collections=list(collections))
        except ZygoteError:
            return None
        return str(answer["problem"])

    async def wait_ready(self, preload: Preload) -> None:
        """Wait until a process is ready; for tests and benchmarks.

        Raises
        ------
        BackendError
            If the environment cannot be preloaded.
        """
        self.prepare(preload)
        key = preload.key()
        while (zygote := self._zygotes.get(key)) and not zygote.ready:
            await asyncio.sleep(0.05)
        if zygote is None:
            raise BackendError(f"environment {preload.name!r} cannot be preloaded")

    def pids(self) -> list[int]:
        """Return the process ids of all preloaded processes."""
        return [zygote.pid for zygote in self._zygotes.values() if zygote.pid is not None]

    async def close(self) -> None:
        """End all processes; running jobs continue."""
        for key in list(self._zygotes):
            self._drop(key)
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _keep(self, key: str, zygote: Zygote) -> None:
        """Start a process, and replace it if it ends by itself."""
        name = zygote.preload.name
        try:
            await zygote.start()
            self._failed.pop(key, None)
            self.log.info(f"Environment {name!r} is preloaded, after {zygote.seconds:g} s")
            if zygote.problem:
                self.log.warning(f"Environment {name!r}: {zygote.problem}")
        except ZygoteError as error:
            if self._zygotes.get(key) is zygote:
                wait = self._failed.setdefault(key, Failures()).add()
                self.log.warning(
                    f"Environment {name!r} cannot be preloaded, jobs start slower;"
                    f" next attempt in {wait:g} s: {error}"
                )
                self._drop(key)
            else:
                # It was removed from the pool before its process had started.
                await zygote.close()
            return
        await zygote.ended()
        if self._zygotes.get(key) is zygote:
            self.log.warning(f"Environment {name!r}: its preloaded process has ended and is replaced")
            self._drop(key)
            self.prepare(zygote.preload)

    def _limit(self) -> None:
        while len(self._zygotes) > MAX_ZYGOTES:
            self._drop(next(iter(self._zygotes)))

    def _drop(self, key: str) -> None:
        self._spawn(self._zygotes.pop(key).close())

    def _spawn(self, coroutine: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
