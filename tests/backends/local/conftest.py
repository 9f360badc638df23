# SPDX-License-Identifier: GPL-3.0-or-later
"""Fixtures: a preloaded pool, repositories, user code."""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from tests.backends.local.harness import PROBE, Pool, open_pool


@pytest_asyncio.fixture(scope="package", loop_scope="package")
async def pool(repo: Path, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Pool]:
    """A preloaded pool that all tests use."""
    async with open_pool(tmp_path_factory.mktemp("pool"), repo, max_workers=4) as pool:
        await pool.preloaded()
        yield pool


@pytest.fixture
def own_repo(pristine_repo: Path, tmp_path: Path) -> Path:
    """A repository of the test's own."""
    return Path(shutil.copytree(pristine_repo, tmp_path / "repo"))


@pytest.fixture
def probe(tmp_path: Path) -> Callable[[str], dict[str, Any]]:
    """Write a pipeline with user code that tells what it was given.

    Returns a function that writes it anew; settings of an environment that
    has it.
    """
    folder = tmp_path / "code"
    folder.mkdir()
    pipeline = folder / "probe.yaml"
    pipeline.write_text(
        "description: probe\ninstrument: democam.instrument.DemoCam\n"
        "tasks:\n  probe:\n    class: user_probe.ProbeTask\n"
    )

    def write(value: str) -> dict[str, Any]:
        (folder / "user_probe.py").write_text(PROBE.replace("VALUE", repr(value)))
        return {"name": "default", "variables": {"PYTHONPATH": str(folder), "PROBE": str(pipeline)}}

    return write
