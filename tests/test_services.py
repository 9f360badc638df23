# SPDX-License-Identifier: GPL-3.0-or-later
"""A run of the tests says at its end which services were missing, in one process or in several."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT

CONFTEST = "from tests.conftest import pytest_sessionfinish, pytest_terminal_summary, pytest_testnodedown\n"
TEST = "from tests.conftest import find_service\n\n\ndef test_it():\n    find_service('no-such-service')\n"


def run_pytest(folder: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a test that needs a service that nobody has."""
    (folder / "conftest.py").write_text(CONFTEST)
    (folder / "test_it.py").write_text(TEST)
    (folder / "pytest.ini").write_text("[pytest]\n")
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-p",
        "no:cacheprovider",
        "-p",
        "xdist",
        *arguments,
        str(folder),
    ]
    # Other plugins take long to import.
    environment["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"
    outside = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    return subprocess.run(
        command,
        cwd=folder,
        env={**outside, "PYTHONPATH": str(ROOT), "REQUIRE_SERVICES": "", **environment},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize("workers", ["0", "1"])
def test_missing_services_are_named_at_the_end(tmp_path: Path, workers: str) -> None:
    ended = run_pytest(tmp_path, "-n", workers)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert "not tested for want of no-such-service: install it with make services" in ended.stdout
    assert "1 skipped" in ended.stdout.splitlines()[-1]


def test_where_all_services_are_required_a_missing_one_is_a_failure(tmp_path: Path) -> None:
    ended = run_pytest(tmp_path, "-n", "1", REQUIRE_SERVICES="1")
    assert ended.returncode == 1
    assert "1 failed" in ended.stdout.splitlines()[-1]
