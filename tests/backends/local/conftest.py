# SPDX-License-Identifier: GPL-3.0-or-later
"""Fixtures: a preloaded pool, repositories, user code."""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from tests.backends.local.harness import Pool, make_probe, open_pool


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
    return make_probe(tmp_path / "code")
