# SPDX-License-Identifier: GPL-3.0-or-later
"""The servers of a campaign: UWS servers of OCPS, and a Redis."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import struct
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import aiohttp
import redis.asyncio
import yaml

from tests.ports import free_port

START_TIMEOUT = 240.0
"""How long (s) a process may take to answer on a busy machine."""


class Server:
    """One ``run_uws.py`` with its work directory.

    Parameters
    ----------
    name : `str`
        Its name in messages and files.
    folder : `pathlib.Path`
        For its configuration and log.
    instance : `dict`
        Its configuration; ``work_dir`` must be in it.
    clock : `pathlib.Path`, optional
        A library that shifts its wall clock.
    """

    def __init__(self, name: str, folder: Path, instance: dict[str, Any], clock: Path | None = None) -> None:
        self.name = name
        self.instance = instance
        self.folder = folder
        self.work_dir = Path(instance["work_dir"])
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.process: asyncio.subprocess.Process | None = None
        self.busy = asyncio.Lock()
        """Held by the one fault that stops or ends the process."""
        self.config = folder / f"{name}.yaml"
        self._clock = clock
        self._offset = folder / f"{name}-clock-offset"
        self.set_clock(0)
        self.write_config(self.config, instance, self.port)

    def write_config(self, path: Path, instance: dict[str, Any], port: int) -> None:
        """Write a configuration file."""
        http = {"port": port, "auth": {"open": True}}
        path.write_text(yaml.safe_dump({"instances": [{**instance, "http": http}]}))

    def set_clock(self, offset: int) -> None:
        """Shift the wall clock of the process (s)."""
        with self._offset.open("r+b" if self._offset.exists() else "wb") as file:
            file.write(struct.pack("q", offset))

    async def start(self) -> None:
        """Start the process and wait until it answers."""
        environment = dict(os.environ)
        if self._clock:
            environment |= {"LD_PRELOAD": str(self._clock), "CLOCK_OFFSET": str(self._offset)}
        with open(self.folder / f"{self.name}.log", "ab") as log:
            self.process = await asyncio.create_subprocess_exec(
                *self.command(self.config),
                env=environment,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        await self.answers()

    @staticmethod
    def command(config: Path) -> Sequence[str]:
        """Return the command line of a server."""
        return (sys.executable, "-m", "faults.server", "--config", str(config), "--loglevel", "WARNING")

    async def answers(self) -> None:
        """Wait until the server answers; raise `RuntimeError` if it has ended by itself."""
        async with asyncio.timeout(START_TIMEOUT):
            while not await answers(self.url):
                code = self.process.returncode if self.process else None
                if code not in (None, -signal.SIGKILL, -signal.SIGTERM):
                    raise RuntimeError(f"{self.name} ended by itself with exit code {code}")
                await asyncio.sleep(0.05)

    async def stop(self, number: int = signal.SIGTERM) -> None:
        """End the process with a signal."""
        if self.process and self.process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                self.process.send_signal(signal.SIGCONT)
                self.process.send_signal(number)
            await self.process.wait()


async def answers(url: str) -> bool:
    """Return whether a server answers, its store included."""
    with contextlib.suppress(aiohttp.ClientError, TimeoutError):
        async with (
            aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(5)) as session,
            session.get(f"{url}/uws/tick?LAST=1") as answer,
        ):
            return answer.status == 200
    return False


class Redis:
    """A Redis server that keeps what it has acknowledged across a crash.

    Parameters
    ----------
    program : `str`
        Path of ``redis-server``.
    folder : `pathlib.Path`
        For its file.
    """

    def __init__(self, program: str, folder: Path) -> None:
        self._program = program
        self._folder = folder
        self.port = free_port()
        self.process: asyncio.subprocess.Process | None = None

    async def start(self) -> None:
        """Start it and wait until it answers."""
        self._folder.mkdir(exist_ok=True)
        arguments = [
            "--port",
            str(self.port),
            "--bind",
            "127.0.0.1",
            "--save",
            "",
            "--dir",
            str(self._folder),
        ]
        self.process = await asyncio.create_subprocess_exec(
            self._program,
            *arguments,
            *("--appendonly", "yes", "--appendfsync", "always"),
            stdout=asyncio.subprocess.DEVNULL,
        )
        async with asyncio.timeout(START_TIMEOUT), redis.asyncio.Redis(port=self.port) as client:
            while True:
                with contextlib.suppress(redis.exceptions.ConnectionError):
                    await client.ping()
                    return
                await asyncio.sleep(0.05)

    async def stop(self, number: int = signal.SIGTERM) -> None:
        """End it with a signal."""
        if self.process and self.process.returncode is None:
            self.process.send_signal(number)
            await self.process.wait()

    async def values(self, key: str) -> list[str]:
        """Return everything that was pushed under a key."""
        async with redis.asyncio.Redis(port=self.port, decode_responses=True) as client:
            found: list[str] = await client.lrange(key, 0, -1)  # type: ignore[misc]
            return found
