# SPDX-License-Identifier: GPL-3.0-or-later
"""CSC processes for the tests of the SAL face."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest_asyncio
import yaml
from lsst.dm.OCPS.testing import CscProcess, Script, private_bus
from lsst.ts import salobj

from tests.generations import write_common_files

SIMULATED_DURATION = 0.3


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def simulated(tmp_path_factory) -> AsyncIterator[Script]:
    """A script connected to a simulating OCPS, which is ENABLED."""
    private_bus()
    # Simulation needs no configuration package.
    environment = {name: value for name, value in os.environ.items() if name != "DM_CONFIG_OCPS_DIR"}
    log = tmp_path_factory.mktemp("simulated") / "csc.log"
    csc = CscProcess("1", "--simulate", "--simulation-duration", str(SIMULATED_DURATION), log=log)
    csc.environment = environment
    async with csc, Script.connect() as script:
        await script.set_state(salobj.State.ENABLED)
        yield script


def write_config(folder: Path, **instance: object) -> Path:
    """Write a configuration package with one configuration, ``test.yaml``; return its directory."""
    folder.mkdir(parents=True, exist_ok=True)
    entry = {"sal_index": 1, **instance}
    (folder / "test.yaml").write_text(yaml.safe_dump({"instances": [entry]}))
    write_common_files(folder)
    return folder


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def local(repo: Path, tmp_path_factory) -> AsyncIterator[Script]:
    """A script connected to an OCPS with a local pool, which is ENABLED."""
    private_bus()
    folder = tmp_path_factory.mktemp("local")
    config = write_config(
        folder / "config",
        butler=str(repo),
        input_collection="DemoCam/raw/all",
        output_glob="*QuickLook,*Metrics,bias",
        work_dir=str(folder / "work"),
        max_workers=3,
    )
    async with (
        CscProcess("1", "--configdir", str(config), log=folder / "csc.log") as csc,
        Script.connect() as script,
    ):
        await script.set_state(salobj.State.ENABLED, "test.yaml")
        script.csc = csc
        script.work = folder / "work"
        yield script
