# SPDX-License-Identifier: GPL-3.0-or-later
"""Preloaded processes as OCPS sees them: starting, asking, replacing."""

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
"""How long (s) a job may take to be forked; then it is started without."""

RETRY_AFTER = (2.0, 600.0)
"""How long (s) to wait before an environment is preloaded again that could not be: at first, and at most."""

MAX_ZYGOTES = 3
"""How many environments are kept preloaded; the one used longest ago goes first."""

MAX_PACKET = 1 << 16


@dataclass(frozen=True)
class Preload:
    """What a preloaded process is for.

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
        Whether its jobs may take shorter ways through the Butler.
    """

    name: str
    python: tuple[str, ...]
    variables: Mapping[str, str]
    butler: str
    fast: bool = True

    def key(self) -> str:
        """Return a digest of everything that an import can depend on, and of the way to use the Butler."""
        text = json.dumps([self.python, sorted(self.variables.items()), self.butler, self.fast])
        return hashlib.sha256(text.encode()).hexdigest()


class ZygoteError(Exception):
    """A preloaded process did not do what was asked of it."""


class Zygote:
    """One preloaded process.

    Parameters
    ----------
    preload : `Preload`
        What it is for.
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
        """Its process id."""
        return self._process.pid if self._process else None

    async def start(self) -> None:
        """Start it and wait until it is ready.

        Raises
        ------
        ZygoteError
            If it could not get ready; the text is the reason.
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
        """Send a request and return its answer.

        Raises
        ------
        ZygoteError
            If it refuses, has ended or does not answer within ``timeout`` (s).
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
        """Give answers to those who wait for them, until the process ends."""
        assert self._socket is not None
        loop = asyncio.get_running_loop()
        with contextlib.suppress(OSError):
            while packet := await loop.sock_recv(self._socket, MAX_PACKET):
                answer = json.loads(packet)
                future = self._answers.get(answer["id"])
                if future and not future.done():
                    future.set_result(answer)
        self._disappoint()

    def _disappoint(self) -> None:
        """Tell all who wait for an answer that none will come."""
        self.ready = False
        for future in list(self._answers.values()):
            if not future.done():
                future.set_exception(ZygoteError("it has ended"))

    async def close(self) -> None:
        """End it, also while it is being started; running jobs run on."""
        self._disappoint()
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
        """Wait for its end."""
        assert self._process is not None
        await self._process.wait()


def _last_line(errors: IO[bytes]) -> str:
    errors.seek(0)
    lines = errors.read().decode(errors="replace").split("\n")
    return next((line.strip() for line in reversed(lines) if line.strip()), "")[:500]


@dataclass
class Failures:
    """Attempts to preload an environment that have failed, one after the other."""

    count: int = 0
    again: float = 0.0

    def add(self) -> float:
        """Add one; return how long (s) to wait before the next attempt."""
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
        Is told what is ready and what cannot be.
    """

    def __init__(self, log: logging.Logger | None = None) -> None:
        self.log = log or logging.getLogger(__name__)
        self._zygotes: OrderedDict[str, Zygote] = OrderedDict()
        self._tasks: set[asyncio.Task[None]] = set()
        self._failed: dict[str, Failures] = {}

    def prepare(self, preload: Preload) -> None:
        """Have a process ready for such jobs soon; returns at once."""
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
            `False` if there is none that is ready, or it would not; the job
            is then to be started in another way.
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
        """Check a repository and its collections, if a process is ready.

        Returns
        -------
        problem : `str` or `None`
            Empty if all is well; `None` if there is no process to ask.
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
            If it cannot get ready.
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
        """End all processes; running jobs run on."""
        for key in list(self._zygotes):
            self._drop(key)
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _keep(self, key: str, zygote: Zygote) -> None:
        """Start a process, and another one when it ends by itself."""
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
                    f" it is tried again after {wait:g} s: {error}"
                )
                self._drop(key)
            else:
                # It was given up before it was a process.
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
