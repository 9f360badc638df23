# SPDX-License-Identifier: GPL-3.0-or-later
"""What all tests share: a Butler with DemoCam data, a bus of one's own, services."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]

SERVICES = {"redis-server": "redis", "postgres": "postgresql"}
"""Programs of system services that tests use, with their Debian packages."""

missing_services: set[str] = set()


def find_service(program: str) -> str:
    """Return the path of a service's program; skip the test if it is not installed.

    With REQUIRE_SERVICES=1 the test fails instead.
    """
    found = shutil.which(program)
    if found is None:
        # Debian keeps PostgreSQL's programs out of the way.
        candidates = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{program}"))
        found = str(candidates[-1]) if candidates else None
    if found is None:
        missing_services.add(program)
        message = f"{program} is not installed (make services)"
        if os.environ.get("REQUIRE_SERVICES") == "1":
            pytest.fail(message)
        pytest.skip(message)
    return found


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Name the services that were missing at the end, where it is read."""
    for program in sorted(missing_services):
        terminalreporter.write_line(f"not tested for want of {program}: install it with make services")


@pytest.fixture(autouse=True, scope="session")
def _environment() -> None:
    os.environ["DEMOCAM_DIR"] = str(ROOT / "demo")
    os.environ["DM_CONFIG_OCPS_DIR"] = str(ROOT / "config")


@pytest.fixture
def bus(monkeypatch: pytest.MonkeyPatch) -> None:
    """A SAL partition that nobody else uses."""
    from lsst.dm.OCPS.testing import private_bus

    private: dict[str, str] = {}
    private_bus(private)
    for name, value in private.items():
        monkeypatch.setenv(name, value)


@pytest.fixture(scope="session")
def pristine_repo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Butler with DemoCam raws; not to be written to."""
    path = tmp_path_factory.mktemp("pristine") / "repo"
    subprocess.run([sys.executable, "-m", "democam.make_repo", str(path)], check=True)
    return path


@pytest.fixture(scope="session")
def repo(pristine_repo: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Butler with DemoCam raws that all tests may write to."""
    path = tmp_path_factory.mktemp("shared") / "repo"
    shutil.copytree(pristine_repo, path)
    return path
