# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether a server can be used at all: address, certificates, token."""

from __future__ import annotations

import logging
import ssl
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
from lsst.dm.OCPS.config import ConfigError, UwsConfig
from lsst.dm.OCPS.factory import check_config, make_manager
from lsst.dm.OCPS.jobs.errors import BackendError
from lsst.dm.OCPS.jobs.model import ExecutionPhase

from tests.backends.uws.conftest import LINK_TIMEOUT, SHORT, Engine, MakeEngine, configuration
from tests.backends.uws.standin import Fault, StandIn
from tests.conftest import find_service

TOKEN = "gt-not-to-be-seen.anywhere"

LOG = logging.getLogger("ocps.test")


def make_certificate(folder: Path) -> tuple[Path, Path]:
    """Make a key and a certificate that nobody has signed."""
    key, certificate = folder / "key.pem", folder / "cert.pem"
    command = [
        find_service("openssl"),
        "req",
        "-x509",
        "-newkey",
        "rsa:2048",
        "-nodes",
        "-subj",
        "/CN=stand-in",
    ]
    command += ["-addext", "subjectAltName=IP:127.0.0.1", "-keyout", str(key), "-out", str(certificate)]
    subprocess.run(command, check=True, capture_output=True)
    return key, certificate


@pytest_asyncio.fixture
async def guarded(tmp_path: Path) -> AsyncIterator[StandIn]:
    """A stand-in that wants a token."""
    (tmp_path / "token").write_text(TOKEN + "\n")
    server = await StandIn(token=TOKEN).start()
    yield server
    await server.stop()


async def test_good_server_passes(standin: StandIn, tmp_path: Path) -> None:
    await check_config(configuration(standin, tmp_path), LOG)
    assert standin.requests == ["GET /api/v1/job?phase=executing"]


async def test_the_root_of_a_server_of_the_json_dialect_will_do(standin: StandIn, tmp_path: Path) -> None:
    await check_config(configuration(standin, tmp_path, url=standin.url.removesuffix("/api/v1")), LOG)


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        ("401", "credentials"),
        ("403", "credentials"),
        ("500", "HTTP 500"),
        ("404", "no UWS server"),
        ("html", "text/html, not JSON"),
        ("redirect", "redirects to https://login.example/;"),
        ("wrong", "no list of jobs"),
        ("hang", "did not answer within 0.5 s"),
        ("drop", "connection was lost"),
    ],
)
async def test_unusable_server_is_refused_with_the_reason(
    standin: StandIn, tmp_path: Path, kind: str, reason: str
) -> None:
    standin.faults.append(Fault(kind, times=-1))
    changes = {"uws": SHORT} if kind == "hang" else {}
    with pytest.raises(BackendError, match=reason):
        await check_config(configuration(standin, tmp_path, **changes), LOG)


async def test_absent_server_is_refused(standin: StandIn, tmp_path: Path) -> None:
    await standin.stop()
    with pytest.raises(BackendError, match="cannot be reached"):
        await check_config(configuration(standin, tmp_path), LOG)


@pytest.mark.parametrize("url", ["http://no-such-host.invalid/api/v1", "http://:80/", "ftp://x/y", "a"])
async def test_address_that_is_none_is_refused(standin: StandIn, tmp_path: Path, url: str) -> None:
    with pytest.raises((BackendError, ConfigError), match=r"reached|url"):
        await check_config(configuration(standin, tmp_path, url=url), LOG)


@pytest.mark.parametrize(
    "config",
    [
        {"token_file": "/no/such/token"},
        {"ca_file": "/no/such/ca.pem"},
        {"ca_file": __file__},
    ],
)
async def test_unusable_file_is_named(standin: StandIn, tmp_path: Path, config: dict[str, str]) -> None:
    with pytest.raises(BackendError, match=next(iter(config))):
        await check_config(configuration(standin, tmp_path, uws=UwsConfig(**config)), LOG)


async def test_token_is_sent_and_never_shown(
    guarded: StandIn, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    config = configuration(guarded, tmp_path / "work")
    with pytest.raises(BackendError, match="credentials"):
        await check_config(config, LOG)
    config = configuration(guarded, tmp_path / "work", uws=UwsConfig(token_file=str(tmp_path / "token")))
    await check_config(config, LOG)
    guarded.faults.append(Fault("500", times=-1))
    with pytest.raises(BackendError) as caught:
        await check_config(config, LOG)
    assert TOKEN not in caplog.text + repr(caught.value)


async def test_token_is_in_no_log_and_no_job(
    guarded: StandIn, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    uws = UwsConfig(token_file=str(tmp_path / "token"), timeout=LINK_TIMEOUT)
    manager = await make_manager(configuration(guarded, tmp_path / "work", uws=uws), LOG)
    engine = Engine(manager, guarded)
    try:
        for kind in ("drop", "500", "garbage"):
            guarded.faults.append(Fault(kind, times=2))
        job = await engine.submit()
        await engine.phase(job, "executing")
        await guarded.stop()
        job = await engine.phase(job, "unknown")
        await guarded.start()
        guarded.end(job.id)
        job = await engine.end(job)
    finally:
        await manager.close()
    assert TOKEN not in caplog.text + repr(job)
    stored = b"".join(path.read_bytes() for path in (tmp_path / "work").glob("jobs.sqlite3*"))
    assert job.id.encode() in stored
    assert TOKEN.encode() not in stored


async def test_password_in_the_url_is_sent_and_never_shown(
    standin: StandIn, make_engine: MakeEngine, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, logger="ocps.test")
    caplog.set_level(logging.INFO, logger="aiosqlite")
    url = standin.url.replace("://", "://me:hidden-word@")
    engine = await make_engine(url=url)
    job = await engine.submit()
    await engine.phase(job, "executing")
    fault = engine.fault("500", times=-1)
    job = await engine.phase(job, "unknown")
    fault.times = 0
    standin.end(job.id)
    job = await engine.end(job)
    assert job.results[0].uri.startswith(standin.url)
    assert "hidden-word" not in caplog.text + repr(job)


async def test_tls_with_a_ca_of_ones_own(tmp_path: Path) -> None:
    key, certificate = make_certificate(tmp_path)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate, key)
    server = await StandIn(tls=context).start()
    try:
        with pytest.raises(BackendError, match=r"(?i)certificate"):
            await check_config(configuration(server, tmp_path), LOG)
        uws = UwsConfig(ca_file=str(certificate))
        await check_config(configuration(server, tmp_path, uws=uws), LOG)
    finally:
        await server.stop()


async def test_rejected_token_in_flight_loses_no_job(engine: Engine, standin: StandIn) -> None:
    job = await engine.submit()
    await engine.phase(job, "executing")
    fault = engine.fault("403", times=-1)
    job = await engine.phase(job, "unknown")
    assert "credentials" in job.message
    fault.times = 0
    standin.end(job.id)
    assert (await engine.end(job)).phase == ExecutionPhase.COMPLETED
