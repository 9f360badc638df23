# SPDX-License-Identifier: GPL-3.0-or-later
"""The units for systemd: systemd accepts them, and what they start runs within their limits."""

from __future__ import annotations

import asyncio
import configparser
import contextlib
import os
import platform
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest
import yaml
from lsst.dm.OCPS.testing import Script

from tests.conftest import ROOT, find_service
from tests.deploy.address_families import SOCKET
from tests.ports import free_port
from tests.waiting import TIMEOUT, until

UNITS = ROOT / "deploy" / "systemd"
BIN = Path(sys.executable).parent
RESTRICT = Path(__file__).with_name("address_families.py")
NAMES = ["ocps-csc@1.service", "ocps-uws.service"]
MOST_EXPOSED = 50
"""The largest exposure that systemd calls OK, times ten."""


@pytest.fixture
def units(tmp_path: Path) -> Path:
    """The units, with the programs of this installation."""
    folder = Path(shutil.copytree(UNITS, tmp_path / "units"))
    for unit in folder.glob("*.service"):
        unit.write_text(unit.read_text().replace("/opt/ocps/bin", str(BIN)))
    return folder


def analyze(units: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run systemd-analyze; it looks for units in a folder first."""
    command = [find_service("systemd-analyze"), *arguments]
    environment = {**os.environ, "SYSTEMD_UNIT_PATH": f"{units}:"}
    return subprocess.run(command, capture_output=True, text=True, check=False, env=environment)


@pytest.mark.parametrize("name", NAMES)
def test_systemd_finds_no_fault(units: Path, name: str) -> None:
    found = analyze(units, "verify", "--man=no", "--recursive-errors=no", name)
    # It may also find fault with other units of the machine.
    said = [line for line in found.stderr.splitlines() if "ocps" in line]
    assert (found.returncode, said) == (0, [])


@pytest.mark.parametrize("name", NAMES)
def test_a_service_is_not_more_exposed_than_systemd_calls_ok(units: Path, name: str) -> None:
    path = units / name.replace("@1", "@")
    found = analyze(
        units, "security", "--offline=yes", "--no-pager", f"--threshold={MOST_EXPOSED}", str(path)
    )
    assert found.returncode == 0, found.stdout[-300:] + found.stderr
    assert "Overall exposure level" in found.stdout


def settings(unit: str) -> dict[str, str]:
    """Return the settings of a unit's service."""
    parser = configparser.RawConfigParser(strict=False)
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    parser.read([UNITS / unit, *sorted((UNITS / "ocps-.service.d").iterdir())])
    return dict(parser["Service"])


@contextlib.asynccontextmanager
async def start(unit: str, tmp_path: Path, **variables: str) -> AsyncIterator[asyncio.subprocess.Process]:
    """Start what a unit starts, with the variables that systemd and an environment file would set."""
    service = settings(unit)
    restricted = (sys.executable, str(RESTRICT), service["RestrictAddressFamilies"])
    if platform.machine() not in SOCKET or subprocess.run([*restricted, "true"], check=False).returncode:
        pytest.skip("system calls cannot be filtered here")
    line = service["ExecStart"].replace("/opt/ocps/bin", str(BIN)).replace("%i", "1")
    line = line.replace("/etc/ocps", str(tmp_path))
    environment = {
        "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin",
        "LANG": "C.UTF-8",
        **variables,
    }
    environment |= {"HOME": str(tmp_path), "USER": "ocps", "TMPDIR": str(tmp_path)}
    process = await asyncio.create_subprocess_exec(
        *restricted,
        *shlex.split(line),
        env=environment,
        cwd="/",
    )
    try:
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()


async def end(process: asyncio.subprocess.Process) -> None:
    """End a process as systemd does."""
    process.send_signal(signal.SIGTERM)
    assert await asyncio.wait_for(process.wait(), TIMEOUT) == 0


async def test_the_csc_is_on_the_bus_within_its_units_limits(tmp_path: Path, bus: None) -> None:
    variables = {name: value for name, value in os.environ.items() if name.startswith("LSST_")}
    async with start("ocps-csc@.service", tmp_path, **variables) as process, Script.connect() as script:
        await script.wait_for_csc()
        await end(process)


async def test_the_server_answers_within_its_units_limits(tmp_path: Path) -> None:
    port = free_port()
    instance = {
        "sal_index": 1,
        "work_dir": str(tmp_path / "work"),
        "definitions": ["sleep"],
        "http": {"port": port, "auth": {"open": True}},
    }
    (tmp_path / "ocps.yaml").write_text(yaml.safe_dump({"instances": [instance]}))
    async with start("ocps-uws.service", tmp_path) as process, aiohttp.ClientSession() as session:

        async def answers() -> bool:
            assert process.returncode is None
            with contextlib.suppress(aiohttp.ClientError):
                async with session.get(f"http://127.0.0.1:{port}/healthz") as answer:
                    return answer.status == 200
            return False

        await until(answers)
        await end(process)
