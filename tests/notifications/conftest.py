# SPDX-License-Identifier: GPL-3.0-or-later
"""Receivers of notifications: a web server and a mail server; and an engine with rules."""

from __future__ import annotations

import asyncio
import base64
import json
import logging
from collections.abc import AsyncIterator
from email import message_from_bytes
from email.message import Message
from email.policy import default
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
import yaml
from aiohttp import web
from aiosmtpd.controller import Controller
from lsst.dm.OCPS.config import InstanceConfig
from lsst.dm.OCPS.host import Host
from lsst.dm.OCPS.jobs.model import Job, JobRequest
from standardwebhooks.webhooks import Webhook

from tests.ports import free_port
from tests.waiting import TIMEOUT

SECRET = f"whsec_{base64.b64encode(bytes(range(32))).decode()}"


class Receiver:
    """A web server that keeps what it is sent and answers as a test says."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.answers: list[int] = []
        """Statuses of the next answers; then 200."""
        self.received: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        """Accepted notifications, their signatures verified."""
        self.poison = ""
        """Notifications with this text are answered with 503."""
        self.ids: list[str] = []
        self.requests = 0
        self._runner: web.AppRunner | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/hook"

    async def start(self) -> None:
        app = web.Application()
        app.router.add_post("/hook", self._take)
        app.router.add_post("/elsewhere", self._take)
        self._runner = web.AppRunner(app)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", self.port).start()

    async def stop(self) -> None:
        if self._runner:
            await self._runner.cleanup()
            self._runner = None

    async def next(self) -> dict[str, Any]:
        """Wait for the next notification."""
        return await asyncio.wait_for(self.received.get(), TIMEOUT)

    async def _take(self, request: web.Request) -> web.Response:
        self.requests += 1
        body = await request.text()
        status = self.answers.pop(0) if self.answers else 200
        if self.poison and self.poison in body:
            status = 503
        if status == 200:
            # Raises if the signature is wrong, or too old.
            Webhook(SECRET).verify(body, dict(request.headers))
            self.ids.append(request.headers["webhook-id"])
            self.received.put_nowait(json.loads(body))
        return web.Response(status=status, headers={"Location": "/elsewhere"} if status // 100 == 3 else {})


class MailServer:
    """A mail server that keeps what it is sent."""

    def __init__(self) -> None:
        self.received: asyncio.Queue[Message] = asyncio.Queue()
        self.envelopes: list[tuple[str, list[str]]] = []
        self.refusals: list[str] = []
        self._loop = asyncio.get_running_loop()
        self._controller = Controller(self, hostname="127.0.0.1", port=free_port())
        self._controller.start()

    @property
    def port(self) -> int:
        return self._controller.port

    async def next(self) -> Message:
        """Wait for the next mail."""
        return await asyncio.wait_for(self.received.get(), TIMEOUT)

    async def handle_DATA(self, server: Any, session: Any, envelope: Any) -> str:
        if self.refusals:
            return self.refusals.pop(0)
        self.envelopes.append((envelope.mail_from, envelope.rcpt_tos))
        mail = message_from_bytes(envelope.content, policy=default)
        self._loop.call_soon_threadsafe(self.received.put_nowait, mail)
        return "250 OK"

    def stop(self) -> None:
        self._controller.stop()


class Engine:
    """An engine with rules, as the CSC and ``run_uws.py`` have it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.host = Host(logging.getLogger("notified"))
        secret = folder / "secret"
        secret.write_text(f"{SECRET}\n")
        secret.chmod(0o600)
        entries = [
            {
                "name": name,
                "kind": "command",
                "argv": ["sh", "-c", script],
                "parameters": {"text": {"default": ""}},
            }
            for name, script in (("good", "true"), ("bad", 'echo "{text}"; exit 3'))
        ]
        retries = {"max": 2, "delay": 0, "exit_codes": [75]}
        again = {"name": "flaky", "argv": ["sh", "-c", "exit 75"], "retries": retries}
        entries.append({**entries[0], **again})
        (folder / "jobs.yaml").write_text(yaml.safe_dump({"definitions": entries}))

    def config(self, rules: list[dict[str, Any]], **more: Any) -> InstanceConfig:
        notifications = {
            "rules": rules,
            "webhook": {"secret_file": str(self.folder / "secret"), "hosts": ["127.0.0.1"]},
            **more,
        }
        return InstanceConfig(
            sal_index=1,
            instance="LATISS",
            work_dir=str(self.folder / "work"),
            definitions=(str(self.folder / "jobs.yaml"),),
            notifications=notifications,
        )

    async def open(self, rules: list[dict[str, Any]], **more: Any) -> None:
        await self.host.configure(self.config(rules, **more))

    async def run(self, definition: str = "bad", owner: str = "alice", text: str = "boom") -> Job:
        """Run a job to its end."""
        manager = self.host.manager
        job = await manager.submit(JobRequest(definition, {"text": text}, owner=owner))
        return await manager.wait(job.id, TIMEOUT)

    def measure(self, name: str) -> float:
        """Return a figure, as /metrics has it."""
        return next(
            one.value for one in self.host._all_measures() if one.name == f"ocps_notifications_{name}"
        )

    def waiting(self) -> list[Path]:
        """Return the files of what has not been told yet."""
        return sorted((self.folder / "work" / "notifications").glob("*.json"))


@pytest_asyncio.fixture
async def receiver() -> AsyncIterator[Receiver]:
    """A web server that takes notifications."""
    made = Receiver(free_port())
    await made.start()
    yield made
    await made.stop()


@pytest_asyncio.fixture
async def mail_server() -> AsyncIterator[MailServer]:
    """A mail server."""
    made = MailServer()
    yield made
    await asyncio.to_thread(made.stop)


@pytest_asyncio.fixture
async def engine(tmp_path: Path) -> AsyncIterator[Engine]:
    """An engine; the test opens it with its rules."""
    made = Engine(tmp_path)
    yield made
    await made.host.close()


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let attempts follow each other closely."""
    monkeypatch.setattr("lsst.dm.OCPS.notifications.notifier.FIRST_PAUSE", 0.05)
    monkeypatch.setattr("lsst.dm.OCPS.notifications.notifier.LONGEST_PAUSE", 0.2)
