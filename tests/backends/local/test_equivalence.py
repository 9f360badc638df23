# SPDX-License-Identifier: GPL-3.0-or-later
"""A preloaded job leaves what the same commands leave that are typed by hand.

Each pipeline runs in the pool on one repository; then the very same command
lines run as new processes on a copy that was made before.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import re
import shutil
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from lsst.daf.butler import Butler
from lsst.dm.OCPS.jobs.workspace import Workspace

from tests.backends.local.harness import BIAS, Pool, open_pool
from tests.waiting import until

pytestmark = pytest.mark.asyncio(loop_scope="module")

CASES = {
    "one quantum": ("oneQuantum", "", "", 0),
    "bias": ("bias.yaml#combine", BIAS, "-c isr:doBias=False", 0),
    "focus sweep": ("focusSweep", "exposure.observation_type='focus'", "", 0),
    "two processes": ("oneQuantum", "", "-j 2 -c oneQuantum:value=7", 0),
    "broken": ("broken", BIAS, "", 1),
    "no data": ("bias", "exposure.day_obs=19990101", "", 1),
    "bad query": ("bias", "exposure.nonsense = 3", "", 1),
    "no collection": ("bias", BIAS, "-i no/such/collection", 1),
    "usage": ("oneQuantum", "", "--start-method nonsense", 2),
    "raises": ("misbehave", "", "-c misbehave:how=raise", 1),
    "exits": ("misbehave", "", "-c misbehave:how=exit -c misbehave:exitCode=7", 7),
    "crashes": ("misbehave", "", "-c misbehave:how=segfault", -11),
}


@dataclass
class Left:
    """What a job left."""

    codes: list[int]
    summary: Any
    log: list[str]
    files: set[str]
    datasets: dict[tuple[str, ...], str] = field(default_factory=dict)


@dataclass
class Both:
    """What all cases left, in the pool and by hand, and the repositories."""

    preloaded: dict[str, Left]
    cold: dict[str, Left]
    repos: dict[str, Path]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def both(pristine_repo: Path, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Both]:
    folder = tmp_path_factory.mktemp("equivalence")
    repos = {kind: Path(shutil.copytree(pristine_repo, folder / kind)) for kind in ("warm", "cold")}
    preloaded, jobs = {}, {}
    async with open_pool(folder / "work", repos["warm"], max_workers=1, output_glob="*") as pool:
        await pool.preloaded()
        for name, (pipeline, query, config, _) in CASES.items():
            path = f"$DEMOCAM_DIR/pipelines/{pipeline}" if ".yaml" in pipeline else pipeline
            submitted = await pool.submit(path, query, config)
            job = await pool.end(submitted)
            workspace = pool.workspace(job)
            jobs[name] = workspace
            status = workspace.read_json("status.json")
            codes = [0] * status["step"] + [status["exit_code"]]
            preloaded[name] = await collect(repos["warm"], workspace.root, workspace.output, job.id, codes)
        assert len(pool.zygotes.pids()) == 1
    cold = {}
    two_at_a_time = asyncio.Semaphore(2)

    async def by_hand(name: str, workspace: Workspace) -> None:
        async with two_at_a_time:
            place = folder / "by-hand" / workspace.root.name
            cold[name] = await run_by_hand(workspace, repos["warm"], repos["cold"], place)

    await asyncio.gather(*(by_hand(name, workspace) for name, workspace in jobs.items()))
    yield Both(preloaded, cold, repos)


async def run_by_hand(workspace: Workspace, repo: Path, other: Path, folder: Path) -> Left:
    """Run the commands of a job with another repository and directory."""
    text = (workspace.engine / "plan.json").read_text()
    plan = json.loads(text.replace(str(workspace.root), str(folder)).replace(str(repo), str(other)))
    output = Path(plan["cwd"])
    output.mkdir(parents=True)
    codes = []
    with open(plan["log"], "ab") as log:
        for step in plan["steps"]:
            process = await asyncio.create_subprocess_exec(
                *step["argv"],
                cwd=output,
                env=plan["environment"],
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
            codes.append(await process.wait())
            if codes[-1] != 0:
                break
    return await collect(other, folder, output, workspace.root.name, codes)


async def collect(repo: Path, root: Path, output: Path, job_id: str, codes: list[int]) -> Left:
    """Gather what a job left."""
    places = {str(repo): "REPO", str(root): "JOB"}
    summary = root / "summary.json"
    left = Left(
        codes,
        normalise_summary(json.loads(summary.read_text())) if summary.exists() else None,
        [normalise(line, places) for line in (output / "ocps.log").read_text().splitlines()],
        {str(path.relative_to(output)) for path in output.rglob("*") if path.is_file()},
    )
    with Butler.from_config(str(repo)) as butler:
        runs = butler.collections.query(f"u/ocps/{job_id}/*")
        for ref in butler.query_all_datasets(runs, find_first=False) if runs else ():
            data_id = json.dumps({key: str(value) for key, value in ref.dataId.required.items()})
            key = (ref.datasetType.name, str(ref.datasetType.storageClass_name), data_id, str(ref.run))
            content = Path(butler.getURI(ref).ospath).read_bytes()
            # Logs and metadata tell times and process ids.
            varies = ref.datasetType.name.endswith(("_log", "_metadata"))
            left.datasets[key] = "" if varies else hashlib.sha256(content).hexdigest()
    return left


_VARYING = (
    (r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d[.\d]*(\+00:00|Z)?", "TIME"),
    (r"\b[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}\b", "UUID"),
    (r"\b\d+\.\d+ seconds", "N seconds"),
    (r"\b[Pp]rocess(es)? \d+", "process N"),
    (r"0x[0-9a-f]+", "ADDRESS"),
    (r"pid=\d+", "pid=N"),
)


def normalise(line: str, places: dict[str, str]) -> str:
    """Take out of a log line what differs from run to run."""
    for place, word in places.items():
        line = line.replace(place, word)
    for pattern, word in _VARYING:
        line = re.sub(pattern, word, line)
    return line


def normalise_summary(value: Any) -> Any:
    """Take out of a summary what differs from run to run."""
    if isinstance(value, dict):
        varying = {"cmdLine", "creationUTC", "startTime", "endTime", "quantumId"}
        return {name: normalise_summary(item) for name, item in value.items() if name not in varying}
    if isinstance(value, list):
        return [normalise_summary(item) for item in value]
    return value


@pytest.mark.parametrize("case", CASES)
async def test_exit_codes_are_those_of_the_commands(both: Both, case: str) -> None:
    assert both.preloaded[case].codes == both.cold[case].codes
    assert both.cold[case].codes[-1] == CASES[case][3]


@pytest.mark.parametrize("case", CASES)
async def test_logs_are_the_same_line_by_line(both: Both, case: str) -> None:
    assert both.preloaded[case].log == both.cold[case].log


@pytest.mark.parametrize("case", CASES)
async def test_summaries_are_the_same(both: Both, case: str) -> None:
    assert both.preloaded[case].summary == both.cold[case].summary


@pytest.mark.parametrize("case", CASES)
async def test_datasets_and_their_contents_are_the_same(both: Both, case: str) -> None:
    assert both.preloaded[case].datasets == both.cold[case].datasets
    assert bool(both.cold[case].datasets) == (CASES[case][3] in (0, 7, -11) or case in ("broken", "raises"))


@pytest.mark.parametrize("case", CASES)
async def test_the_same_files_are_retrieved(both: Both, case: str) -> None:
    assert both.preloaded[case].files | {"_butler_zip_index.json"} == both.cold[case].files | {
        "_butler_zip_index.json"
    }


async def test_collections_and_dataset_types_are_the_same(both: Both) -> None:
    found = {}
    for kind, repo in both.repos.items():
        with Butler.from_config(str(repo)) as butler:
            collections = {
                info.name: (info.type.name, tuple(info.children))
                for info in butler.collections.query_info("*", include_summary=False)
            }
            types = {
                (each.name, str(each.dimensions), each.storageClass_name, each.isCalibration())
                for each in butler.registry.queryDatasetTypes()
            }
            found[kind] = collections, types
    assert found["warm"] == found["cold"]
    assert len(found["cold"][1]) > 20


async def test_preloading_is_what_was_tested(pool: Pool) -> None:
    """Had jobs started as new processes, all of the above would be true, too."""
    await pool.preloaded()
    # Nor is there anything that keeps it from the shorter ways through the Butler.
    assert [zygote.problem for zygote in pool.zygotes._zygotes.values()] == [""]
    job = await pool.submit("misbehave", config="-c misbehave:how=hang")
    await until((pool.workspace(job).engine / "group.json").exists)
    assert pool.was_preloaded(job)
    await pool.manager.abort(job.id)
