# SPDX-License-Identifier: GPL-3.0-or-later
"""What all tests share: a Butler with DemoCam data, a private SAL partition, services.

Several worker processes may run tests side by side (pytest-xdist). What is
costly to make and only read is made once for all of them.
"""

from __future__ import annotations

import configparser
import fcntl
import gc
import importlib.metadata
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

# The threads of a numerical library wait for work in a loop, which costs more time than they save here.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

# How long an example takes depends on the machine, and must not fail a test.
settings.register_profile("ocps", deadline=None)
settings.load_profile("ocps")

ROOT = Path(__file__).resolve().parents[1]

missing_services: set[str] = set()

SLOW_FIRST = (
    "faults/test_campaign",
    "backends/batch/test_batch",
    "backends/local/test_equivalence",
    "backends/local/test_zygote",
    "sal/test_sal_scripts",
    "sal/test_start",
    "middleware/test_sal",
    "backends/local/test_environments",
    "security/test_hostile_workspace",
    "sal/test_process",
    "http/test_tools",
    "engine/test_recovery",
    "backends/uws/test_hostile_server",
    "client/test_cli",
    "demo/test_pipelines",
    "dashboard/test_dashboard",
    "client/test_hostile",
    "sal/test_local",
    "backends/local/test_concurrency",
    "sal/test_standard",
    "test_configuration_check",
    "client/test_client",
)
"""The modules that take longest, in this order: with them first, workers end at about the same time."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the modules that take longest first."""

    def rank(item: pytest.Item) -> int:
        module = item.path.relative_to(ROOT / "tests").with_suffix("").as_posix()
        return SLOW_FIRST.index(module) if module in SLOW_FIRST else len(SLOW_FIRST)

    items.sort(key=rank)


def find_program(program: str) -> str | None:
    """Return the path of a program of a Debian package, `None` if it is not installed."""
    found = shutil.which(program)
    if found is None:
        # Debian keeps PostgreSQL's programs out of the way.
        candidates = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{program}"))
        found = str(candidates[-1]) if candidates else None
    return found


def find_service(program: str) -> str:
    """Return the path of a program of a Debian package; skip the test if it is not installed.

    With REQUIRE_SERVICES=1 the test fails instead.
    """
    found = find_program(program)
    if found is None:
        missing_services.add(program)
        message = f"{program} is not installed (make services)"
        if os.environ.get("REQUIRE_SERVICES") == "1":
            pytest.fail(message)
        pytest.skip(message)
    return found


def check_installed() -> None:
    """Stop if the installed metadata of an editable checkout lack an entry point that setup.cfg has."""
    declared = configparser.RawConfigParser()
    declared.optionxform = str  # type: ignore[assignment,method-assign]
    declared.read(ROOT / "setup.cfg")
    for group, text in declared["options.entry_points"].items():
        names = {line.partition("=")[0].strip() for line in text.splitlines() if line.strip()}
        if names - importlib.metadata.entry_points(group=group).names:
            pytest.exit("setup.cfg has changed since OCPS was installed: pip install --no-deps -e .", 3)


def pytest_configure() -> None:
    """Stop at once where no test could tell anything; let programs under test hear SIGINT."""
    # Until `pytest_collection_finish`, what is made is kept: collections would only cost time.
    gc.disable()
    check_installed()
    # A shell starts what is to run in the background with SIGINT ignored, and programs inherit that.
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_finish() -> None:
    """Collect garbage from now on, but do not look through modules and collected tests each time."""
    gc.freeze()
    gc.enable()


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Tell the main process of pytest-xdist which services this worker missed."""
    if hasattr(session.config, "workeroutput"):
        session.config.workeroutput["missing_services"] = sorted(missing_services)


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """Collect the missing services of a worker in the main process, which alone writes the summary."""
    missing_services.update(getattr(node, "workeroutput", {}).get("missing_services", ()))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Name the services that were missing at the end, where it is read."""
    for program in sorted(missing_services):
        terminalreporter.write_line(f"not tested for want of {program}: install it with make services")
    _show_attacks(terminalreporter)


def _show_attacks(terminalreporter: pytest.TerminalReporter) -> None:
    """Print how many attacks of each class tests/security tried, and how many got through."""
    counts: dict[str, list[int]] = {}
    # The report of the teardown has what the fixture recorded.
    for report in [found for group in terminalreporter.stats.values() for found in group]:
        if getattr(report, "when", "") == "teardown":
            for name, value in report.user_properties:
                if name == "attacks":
                    kind, tried, through = value
                    total = counts.setdefault(kind, [0, 0])
                    total[0] += tried
                    total[1] += through
    if counts:
        terminalreporter.section("attacks: tried, got through")
    for kind, (tried, through) in sorted(counts.items(), key=lambda item: -item[1][0]):
        terminalreporter.write_line(f"{kind:32} {tried:6} {through:4}")


@pytest.fixture(autouse=True, scope="session")
def _environment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    # pytest's own folders stay where they are looked for.
    tmp_path_factory.getbasetemp()
    with tempfile.TemporaryDirectory(prefix="ocps-tests-") as folder, pytest.MonkeyPatch.context() as patch:
        # PostgreSQL runs as another user, and has its sockets there.
        os.chmod(folder, 0o755)
        patch.setattr(tempfile, "tempdir", folder)
        patch.setenv("TMPDIR", folder)
        patch.setenv("XDG_STATE_HOME", f"{folder}/state")
        patch.setenv("DEMOCAM_DIR", str(ROOT / "demo"))
        patch.setenv("DM_CONFIG_OCPS_DIR", str(ROOT / "config"))
        yield


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
    """A Butler with DemoCam raws, one for all workers; not to be written to."""
    folder = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        # The one above is that of all workers.
        folder = folder.parent
    path = folder / "pristine"
    with open(folder / "pristine.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        command = [sys.executable, "-m", "democam.make_repo", str(path), "--exist-ok"]
        subprocess.run(command, check=True)
    return path


@pytest.fixture(scope="session")
def repo(pristine_repo: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Butler with DemoCam raws that all tests of a worker may write to."""
    path = tmp_path_factory.mktemp("shared") / "repo"
    shutil.copytree(pristine_repo, path)
    return path
