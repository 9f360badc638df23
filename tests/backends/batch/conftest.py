# SPDX-License-Identifier: GPL-3.0-or-later
"""Fixtures: each batch system that OCPS knows, started once for all tests."""

from __future__ import annotations

import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import pytest_asyncio

from tests.backends.batch.harness import Cluster, Engine, configure, open_engine
from tests.backends.batch.slurm_cluster import SlurmCluster

CLUSTERS = {"slurm": SlurmCluster}


@pytest.fixture(scope="session", params=list(CLUSTERS))
def cluster(request: pytest.FixtureRequest) -> Iterator[Cluster]:
    """A batch system."""
    # The path of a socket must be short, and Slurm's daemons want a folder that others cannot write to.
    with tempfile.TemporaryDirectory(prefix="c") as folder:
        cluster = CLUSTERS[request.param](Path(folder) / "c")
        yield cluster
        cluster.stop()


@pytest_asyncio.fixture
async def engine(cluster: Cluster, tmp_path: Path) -> AsyncIterator[Engine]:
    """An engine on the batch system."""
    async with open_engine(configure(cluster, tmp_path)) as engine:
        yield engine


@pytest.fixture(autouse=True)
def same_file_system(monkeypatch: pytest.MonkeyPatch) -> None:
    """The node of these clusters shares this file system, so what it writes is seen here at once."""
    monkeypatch.setattr("lsst.dm.OCPS.backends.batch.backend.FILE_DELAY", 0.2)
