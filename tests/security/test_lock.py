# SPDX-License-Identifier: GPL-3.0-or-later
"""The lock of third-party packages: one version each, with hashes."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def normal(pin: str) -> str:
    return pin.lower().replace("_", "-")


def test_every_pinned_package_has_hashes_of_the_same_version():
    pins = {line for line in (ROOT / "requirements.in").read_text().split("\n") if "==" in line}
    entries = re.split(r"(?m)^(?=[A-Za-z0-9])", (ROOT / "requirements.txt").read_text())[1:]
    locked = {entry.split()[0]: re.findall(r"--hash=sha256:[0-9a-f]{64}\b", entry) for entry in entries}
    assert {pin.lower().replace("_", "-") for pin in pins} == {
        name.lower().replace("_", "-") for name in locked
    }
    assert all(locked.values())


def test_what_is_ours_is_installed_by_path_only():
    for line in (ROOT / "requirements-local.txt").read_text().splitlines():
        assert line.startswith(("#", "./", "-e .")), line
