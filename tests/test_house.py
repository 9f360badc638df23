# SPDX-License-Identifier: GPL-3.0-or-later
"""How the package is kept: imports lead downwards only, and no file is too long.

`ROOMS` is the one table of what stands above what. A room may import from
lower levels and from itself; never from a room of its own level (a face knows
no other face, a backend no face) and never from a higher one.
"""

from __future__ import annotations

import ast
import gc
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[1] / "python" / "lsst" / "dm" / "OCPS"

NAME = "lsst.dm.OCPS"

ROOMS = {
    # What anybody may use: it knows nothing of the engine.
    "__init__": 0,
    "version": 0,
    "audit": 0,
    "logs": 0,
    "measures": 0,
    "private_files": 0,
    "programs": 0,
    "client": 1,
    "script": 1,
    "config_schema": 1,
    # The engine; its limits are part of the configuration.
    "jobs": 2,
    "config": 3,
    "rubin_json": 3,
    "yaml_files": 4,
    # What may be requested of the engine.
    "definitions": 5,
    "backend_api": 6,
    # Backends below the engine's interface, faces on top of it: side by side.
    "backends": 7,
    "cli": 7,
    "http": 7,
    "notifications": 7,
    "sal": 7,
    # What brings them together.
    "factory": 8,
    "host": 9,
    # What is started: programs, the CSC as one of them, and what starts those in tests.
    "sal.csc": 10,
    "sal.main": 11,
    "run_uws": 11,
    "testing": 11,
}

# Whoever makes the engine translates the configuration for it.
FORBIDDEN = {"jobs": {"config_schema", "client"}}

MAX_LINES = 450


def modules() -> list[Path]:
    """Return all Python files of the package."""
    return sorted(PACKAGE.rglob("*.py"))


def name_of(path: Path) -> str:
    """Return a module's name within the package."""
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(parts[:-1] if len(parts) > 1 and parts[-1] == "__init__" else parts)


def room_of(name: str) -> str:
    """Return the room of a module: its own entry in the table, or that of its package."""
    return name if name in ROOMS else name.partition(".")[0]


def parse(path: Path) -> ast.Module:
    """Return the syntax tree of a file."""
    # A finalizer that runs while Python 3.11 builds a tree makes it fail.
    gc.disable()
    try:
        return ast.parse(path.read_text())
    finally:
        gc.enable()


def imported(path: Path) -> Iterator[tuple[str, int]]:
    """Give each module of the package that a file imports anywhere, with the line."""
    package = f"{NAME}.{name_of(path)}".split(".")
    if path.name != "__init__.py" or path.parent == PACKAGE:
        package = package[:-1]
    for node in ast.walk(parse(path)):
        found: list[str] = []
        if isinstance(node, ast.Import):
            found = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            base = [*base, *(node.module.split(".") if node.module else [])]
            # What is imported may be a module or something in it.
            found = [".".join([*base, alias.name]) for alias in node.names]
        for module in found:
            if module.startswith(f"{NAME}."):
                yield module.removeprefix(f"{NAME}."), node.lineno


def known(name: str) -> str:
    """Return the module that a dotted name within the package is, or is in."""
    parts = name.split(".")
    while parts:
        path = PACKAGE.joinpath(*parts)
        if path.is_dir() or path.with_suffix(".py").is_file():
            return ".".join(parts)
        parts.pop()
    return "__init__"


def faults(path: Path) -> list[str]:
    """Return the imports of a file that lead upwards or sideways."""
    mine = room_of(name_of(path))
    wrong = []
    for name, line in imported(path):
        theirs = room_of(known(name))
        if theirs == mine:
            continue
        if ROOMS[theirs] >= ROOMS[mine] or theirs in FORBIDDEN.get(mine, ()):
            wrong.append(f"{path.relative_to(PACKAGE)}:{line}: {mine} must not import {theirs} ({name})")
    return wrong


def test_every_room_has_its_place_in_the_table():
    rooms = {name_of(path).partition(".")[0] for path in modules()}
    assert rooms - ROOMS.keys() == set(), "give it a level in ROOMS"


def test_imports_lead_downwards_only():
    # Names of the package itself are looked up when they are used.
    wrong = [fault for path in modules() if path != PACKAGE / "__init__.py" for fault in faults(path)]
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize(
    ("place", "text", "words"),
    [
        ("jobs/a.py", "from ..sal.result import exit_code", "jobs must not import sal"),
        ("jobs/a.py", "from .. import http", "jobs must not import http"),
        ("http/dashboard/a.py", "from ...sal import publisher", "http must not import sal"),
        ("backends/local/a.py", "import lsst.dm.OCPS.factory", "backends must not import factory"),
        ("client/a.py", "def later():\n    from lsst.dm.OCPS import jobs", "client must not import jobs"),
        ("cli/a.py", "from ..host import check_file", "cli must not import host"),
        ("sal/a.py", "from .csc import OcpsCsc", "sal must not import sal.csc"),
    ],
)
def test_an_import_that_leads_elsewhere_is_found(tmp_path, monkeypatch, place, text, words):
    """The check above can fail: it finds each kind of wrong import, also within functions."""
    for path in modules():
        copy = tmp_path / path.relative_to(PACKAGE)
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.touch()
    monkeypatch.setattr(f"{__name__}.PACKAGE", tmp_path)
    path = tmp_path / place
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    (fault,) = faults(path)
    assert words in fault


def test_no_file_is_too_long():
    lengths = {path: len(path.read_text().splitlines()) for path in modules()}
    long = {str(path.relative_to(PACKAGE)): lines for path, lines in lengths.items() if lines > MAX_LINES}
    assert not long


def phases_decided(tree: ast.Module) -> list[int]:
    """Return the lines on which a job's phase is set, other than in what a backend saw."""
    lines = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and ast.unparse(node.func) != "BackendUpdate":
            lines += [word.lineno for word in node.keywords if word.arg in ("phase", "final_phase")]
    return lines


def test_only_the_rules_decide_a_phase():
    engine = [path for path in modules() if room_of(name_of(path)) == "jobs"]
    deciding = [path.name for path in engine if phases_decided(parse(path))]
    assert deciding == ["rules.py"]


def test_the_engine_names_no_face():
    """The upgrade of old records alone does: they named their face instead of what it wanted."""
    faces = {"sal", "http", "cli"}
    naming = [
        path.name
        for path in modules()
        if room_of(name_of(path)) == "jobs"
        for node in ast.walk(parse(path))
        if isinstance(node, ast.Constant) and node.value in faces
    ]
    assert naming == ["records.py"]


def test_nothing_knows_a_backend_by_name():
    """Backends are found by their entry points, ours like those of a site."""
    for path in modules():
        if room_of(name_of(path)) != "backends":
            assert "backends" not in {room_of(known(name)) for name, _ in imported(path)}, path
