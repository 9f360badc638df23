# SPDX-License-Identifier: GPL-3.0-or-later
"""A backend and a definition of a site's own, in a distribution of their own."""

from __future__ import annotations

import importlib
import logging
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from lsst.dm.OCPS.config import ConfigError, load_instance
from lsst.dm.OCPS.factory import check_config, make_manager
from lsst.dm.OCPS.jobs.errors import TransitionError
from lsst.dm.OCPS.jobs.model import ExecutionPhase, Job, JobRequest

from tests.conftest import ROOT
from tests.waiting import TIMEOUT, until_job

EXAMPLE = ROOT / "examples" / "ocps-backend-example"

LOG = logging.getLogger("own_backend")


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory):
    """The example, installed into a folder of its own that is on the path of modules."""
    target, source = tmp_path_factory.mktemp("site"), tmp_path_factory.mktemp("source") / "example"
    # pip leaves what it builds beside the source.
    shutil.copytree(EXAMPLE, source)
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation"]
    options = ["--no-index", "--disable-pip-version-check", "--target", str(target)]
    subprocess.run([*command, *options, str(source)], check=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(target))
        importlib.invalidate_caches()
        yield target
    sys.modules.pop("ocps_backend_example", None)


def executing(job: Job) -> bool:
    return job.phase == ExecutionPhase.EXECUTING


def configuration(folder: Path, **fields: object):
    entry = {"sal_index": 1, "backend": "clock", "work_dir": str(folder / "work"), **fields}
    return load_instance({"instances": [entry]}, 1)


async def test_an_installed_backend_runs_its_jobs(installed, tmp_path):
    config = configuration(tmp_path, backend_settings={"delay": 0})
    await check_config(config, LOG)
    manager = await make_manager(config, LOG)
    try:
        assert manager.lane.kind == "clock"
        job = await manager.submit(JobRequest("greet", {"name": "Vera"}))
        job = await manager.wait(job.id, TIMEOUT)
        assert job.phase == ExecutionPhase.COMPLETED
        assert [result.id for result in job.results] == ["ocps.log", "greeting.txt"]
        assert (manager.workspaces.of(job.id).output / "greeting.txt").read_text() == "Hello Vera\n"
    finally:
        await manager.close()


async def test_its_jobs_can_be_aborted_and_do_not_get_lost(installed, tmp_path):
    config = configuration(tmp_path, backend_settings={"delay": 3600})
    manager = await make_manager(config, LOG)
    job = await manager.submit(JobRequest("greet", {"name": "Vera"}))
    await until_job(manager, job.id, executing)
    assert (await manager.abort(job.id)).phase == ExecutionPhase.ABORTED
    with pytest.raises(TransitionError):
        await manager.abort(job.id)
    job = await manager.submit(JobRequest("greet", {"name": "Vera"}))
    await until_job(manager, job.id, executing)
    await manager.close()
    manager = await make_manager(config, LOG)
    job = await manager.wait(job.id, TIMEOUT)
    assert job.error.message == "OCPS ended"
    await manager.close()


async def test_its_settings_and_its_name_are_checked(installed, tmp_path):
    with pytest.raises(ConfigError, match="backend_settings/delay: 'soon' is not a time"):
        await check_config(configuration(tmp_path, backend_settings={"delay": "soon"}), LOG)
    with pytest.raises(
        ConfigError, match=r"there is no 'clok'; there are: clock, local, simulation, slurm, uws"
    ):
        await check_config(configuration(tmp_path, backend="clok"), LOG)


def test_the_example_imports_nothing_but_the_public_module():
    text = "".join(path.read_text() for path in (EXAMPLE / "python").rglob("*.py"))
    assert text.count("lsst.dm.OCPS") == text.count("lsst.dm.OCPS.backend_api") == 1
