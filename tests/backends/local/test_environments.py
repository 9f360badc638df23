# SPDX-License-Identifier: GPL-3.0-or-later
"""Environments, what a job gets of OCPS's own, and its limits."""

from __future__ import annotations

import contextlib
import copy
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest
import pytest_asyncio
from lsst.dm.OCPS.jobs.errors import RequestError
from lsst.dm.OCPS.jobs.model import ExecutionPhase

from tests.backends.local.harness import make_probe, open_pool, probed

pytestmark = pytest.mark.asyncio(loop_scope="package")

Phase = ExecutionPhase
Probe = Callable[[str], dict[str, Any]]
BIN = Path(sys.executable).parent


SECRETS = ("REDIS_PASSWORD", "GITHUB_TOKEN", "MY_SECRET_DIR", "AWS_SECRET_ACCESS_KEY", "ANYTHING_ELSE")


@dataclass
class Given:
    """What a job was given of OCPS's environment variables, and what else has them."""

    job_id: str
    root: str
    """The job's folder."""
    found: dict[str, Any]
    """What the job found."""
    zygote: str
    """The environment variables of the preloaded process."""
    contents: list[bytes]
    """The files in OCPS's work directory."""


@pytest_asyncio.fixture(scope="module", loop_scope="package")
async def given(repo: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[bool, Given]:
    """What a preloaded job and a cold one are given by an OCPS that has secrets in its environment."""
    folder = tmp_path_factory.mktemp("given")
    environment = make_probe(folder / "code")("x")
    found = {}
    with pytest.MonkeyPatch.context() as patch:
        for name in SECRETS:
            patch.setenv(name, "hush-hush")
        for preload in (True, False):
            settings, work, zygote = [{**environment, "preload": preload}], folder / f"work-{preload}", ""
            async with open_pool(work, repo, environments=settings) as pool:
                if preload:
                    pid = await pool.preloaded()
                    # Where this may be read at all: another user than root may not look into it.
                    with contextlib.suppress(psutil.AccessDenied):
                        zygote = str(psutil.Process(pid).environ())
                job = await pool.run(environment["variables"]["PROBE"])
                assert bool(pool.zygotes.pids()) == preload
                # While the engine is open: the store's journal goes with it.
                contents = []
                for path in work.rglob("*"):
                    # The process of the next job makes and removes files meanwhile.
                    with contextlib.suppress(FileNotFoundError):
                        if path.is_file():
                            contents.append(path.read_bytes())
                root = str(pool.workspace(job).root)
                found[preload] = Given(job.id, root, probed(job), zygote, contents)
    return found


async def test_a_job_is_given_the_same_preloaded_or_not(given: dict[bool, Given]) -> None:
    preloaded, cold = (copy.deepcopy(given[preload].found) for preload in (True, False))
    for each, its in ((preloaded, given[True]), (cold, given[False])):
        # A directory with a name by chance.
        assert each["environment"].pop("DAF_BUTLER_CACHE_DIRECTORY_IF_UNSET")
        # Random.
        assert each["environment"].pop("JOB_MARK")
        del each["session"]
        for name in ("cwd", "argv", "descriptors"):
            each[name] = str(each[name]).replace(its.root, "JOB").replace(its.job_id, "ID")
        for name, value in each["environment"].items():
            each["environment"][name] = value.replace(its.root, "JOB").replace(its.job_id, "ID")
    assert preloaded == cold


@pytest.mark.parametrize("preload", [True, False])
async def test_no_secret_of_ocps_reaches_a_job(given: dict[bool, Given], preload: bool) -> None:
    its = given[preload]
    assert its.found["environment"]["JOB_ID"] == its.job_id
    assert "hush-hush" not in str(its.found["environment"])
    assert "hush-hush" not in its.zygote
    assert its.contents
    assert not any(b"hush-hush" in content for content in its.contents)


async def test_limits_are_set(repo: Path, tmp_path: Path, probe: Probe) -> None:
    environment = probe("x")
    limits = {"memory": 3 * 2**30, "open_files": 200, "nice": 3, "threads": 2}
    async with open_pool(
        tmp_path / "work", repo, environments=[environment], limits=limits, max_workers=1
    ) as pool:
        await pool.preloaded()
        found = probed(await pool.run(environment["variables"]["PROBE"]))
        job = await pool.run("misbehave", config="-c misbehave:how=memory -c misbehave:megabytes=4000")
    assert found["limits"] == {"memory": [3 * 2**30] * 2, "open_files": [200] * 2, "core": [0, 0]}
    assert found["nice"] == os.nice(0) + 3
    # pipetask itself sets them to 1 in its own process.
    assert found["environment"]["OMP_NUM_THREADS"] in ("1", "2")
    assert job.phase == Phase.ERROR
    assert job.error is not None
    assert "out of memory" in job.error.message


async def test_untested_versions_of_the_science_pipelines_take_the_butlers_own_way(
    repo: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    metadata = tmp_path / "packages" / "lsst_pipe_base-99.0.dist-info" / "METADATA"
    metadata.parent.mkdir(parents=True)
    metadata.write_text("Metadata-Version: 2.1\nName: lsst-pipe-base\nVersion: 99.0\n")
    environment = {"name": "next", "variables": {"PYTHONPATH": str(metadata.parents[1])}}
    async with open_pool(tmp_path / "work", repo, environments=[environment]) as pool:
        await pool.preloaded()
        assert (await pool.run("oneQuantum")).phase == Phase.COMPLETED
    assert "jobs use the Butler without the faster ways: not tested with lsst-pipe-base 99.0" in caplog.text


async def test_a_broken_environment_is_refused_and_others_work(repo: Path, tmp_path: Path) -> None:
    environments = [
        {"name": "default"},
        {"name": "broken", "setup": "echo 'no such tag: {version}' >&2; exit 3"},
        {"name": "absent", "python": str(tmp_path / "no" / "python")},
    ]
    async with open_pool(tmp_path / "work", repo, environments=environments) as pool:
        with pytest.raises(
            RequestError, match="no environment 'unheard'; there are: default, broken, absent"
        ):
            await pool.submit("oneQuantum", version="unheard")
        with pytest.raises(RequestError, match="environment 'absent': there is no program"):
            await pool.submit("oneQuantum", version="absent")
        job = await pool.run("oneQuantum", version="broken")
        assert job.phase == Phase.ERROR
        assert "no such tag: broken" in pool.log(job)
        await pool.backend.check()
        assert (await pool.run("oneQuantum")).phase == Phase.COMPLETED


async def test_a_pattern_gives_one_preloaded_process_per_version(
    repo: Path, tmp_path: Path, probe: Probe, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lsst.dm.OCPS.backends.local.zygote.pool.MAX_ZYGOTES", 1)
    environment = probe("x")
    setup = f"export PATH={BIN}:$PATH TAG={{version}}"
    stack = {"name": "w_*", "setup": setup, "variables": environment["variables"]}
    default = {"name": "default", "preload": False}
    async with open_pool(tmp_path / "work", repo, environments=[default, stack]) as pool:
        assert pool.zygotes.pids() == []
        # The first job of a version starts it, and does not wait for it.
        job = await pool.submit("oneQuantum", config="--start-method nonsense", version="w_2026_46")
        assert (await pool.end(job)).exit_code == 2
        for version in ("w_2026_46", "w_2026_47"):
            job = await pool.run("oneQuantum", config="--start-method nonsense", version=version)
            await pool.zygotes.wait_ready(pool.backend.planners["pipetask"].preload(job))
            job = await pool.run(environment["variables"]["PROBE"], version=version)
            assert probed(job)["environment"]["TAG"] == version
            assert probed(job)["main"] == str(BIN / "pipetask")
        assert len(pool.zygotes.pids()) == 1
        with pytest.raises(RequestError, match="no environment"):
            await pool.submit("oneQuantum", version="w_2026_46; rm -rf /")
