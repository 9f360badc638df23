# SPDX-License-Identifier: GPL-3.0-or-later
"""A preloaded job leaves what the same commands leave that are typed by hand.

All scenarios run in the pool on one repository, and without the pool on a
copy that was made before: some as new processes, the others as forks of a
process that has only imported the programs' modules (see
``plain_pipetask.py``), which saves the test-suite minutes.
"""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import pytest_asyncio

from tests.backends.local.equivalence import Forked, Left, Preloaded, Typed, carry_out, rows
from tests.backends.local.harness import Pool, open_pool
from tests.waiting import until

pytestmark = pytest.mark.asyncio(loop_scope="module")

ONE = "-p oneQuantum.yaml"
BIAS = "-p bias.yaml -d exposure.observation_type='bias'"
COMBINE = BIAS.replace(".yaml", ".yaml#combine")
SWEEP = "-p focusSweep.yaml -d exposure.observation_type='focus'"
BROKEN = "-p broken.yaml -d exposure.observation_type='bias'"
MISBEHAVE = "-p misbehave.yaml"
REGISTER = "--register-dataset-types"
FIRST, SECOND = "--output-run OUT/first", "--output-run OUT/second"

# Arguments of `pipetask run`; a blank within an argument is written as ~.
SCENARIOS = {
    "no registration": [f"{ONE} {FIRST}"],
    "one quantum": [f"{ONE} {FIRST} {REGISTER}"],
    "many quanta": [f"{BIAS} {FIRST} {REGISTER}"],
    "focus sweep": [f"{SWEEP} {FIRST} {REGISTER}"],
    "subset": [f"{COMBINE} {FIRST} {REGISTER} -c isr:doBias=False"],
    "config file": [f"{ONE} {FIRST} -C oneQuantum:HERE/override.py"],
    "no versions": [f"{ONE} {FIRST} --no-versions"],
    "two processes": [f"{ONE} {FIRST} -j 2 -c oneQuantum:value=7"],
    "failing quanta": [f"{BROKEN} {FIRST} {REGISTER}"],
    "fail fast": [f"{BROKEN} {FIRST} --fail-fast"],
    "no data": [f"-p bias.yaml {FIRST} -d exposure.day_obs=19990101"],
    "bad query": [f"-p bias.yaml {FIRST} -d exposure.nonsense=3"],
    "no collection": [f"{ONE} {FIRST} -i no/such/collection"],
    "bad option": [f"{ONE} {FIRST} --start-method nonsense"],
    "raises": [f"{MISBEHAVE} {FIRST} {REGISTER} -c misbehave:how=raise"],
    "exits": [f"{MISBEHAVE} {FIRST} -c misbehave:how=exit -c misbehave:exitCode=7"],
    "is killed": [f"{MISBEHAVE} {FIRST} -c misbehave:how=kill"],
    "crashes": [f"{MISBEHAVE} {FIRST} -c misbehave:how=segfault"],
    "run again": [f"{ONE} {FIRST}", f"{ONE} {SECOND} -c oneQuantum:value=8"],
    "same run again": [f"{ONE} {FIRST}", f"{ONE} {FIRST}"],
    "extend": [f"{ONE} {FIRST}", f"{ONE} {FIRST} --extend-run"],
    "extend by others": [f"{COMBINE} {FIRST}", f"{BIAS} {FIRST} --extend-run"],
    "extend after a failure": [f"{BROKEN} {FIRST}", f"{BROKEN} {FIRST} --extend-run"],
    "clobber after a failure": [f"{BROKEN} {FIRST}", f"{BROKEN} {FIRST} --extend-run --clobber-outputs"],
    "extend after a crash": [
        f"{MISBEHAVE} {FIRST} -c misbehave:how=exit",
        f"{MISBEHAVE} {FIRST} -c misbehave:how=exit --extend-run",
    ],
    "skip some": [f"{COMBINE} {FIRST}", f"{BIAS} {SECOND} --skip-existing-in OUT/first"],
    "skip all": [f"{SWEEP} {FIRST}", f"{SWEEP} {SECOND} --skip-existing-in OUT/first"],
    "init only": [f"{ONE} {FIRST} --init-only", f"{ONE} {FIRST} --extend-run"],
    "replace": [f"{ONE} {FIRST}", f"{ONE} {SECOND} --replace-run"],
    "replace and purge": [f"{ONE} {FIRST}", f"{ONE} {SECOND} --replace-run --prune-replaced=purge"],
    "replace and unstore": [f"{ONE} {FIRST}", f"{ONE} {SECOND} --replace-run --prune-replaced=unstore"],
}
COLD = ("one quantum", "failing quanta", "crashes")
CODES = {
    "no registration": 1,
    "failing quanta": 1,
    "fail fast": 1,
    "no data": 1,
    "bad query": 1,
    "no collection": 1,
    "bad option": 2,
    "raises": 1,
    "exits": 7,
    "is killed": -9,
    "crashes": -11,
    "same run again": 1,
    "extend": 1,
    "skip all": 1,
    "extend after a failure": 1,
    "clobber after a failure": 1,
    "extend after a crash": 7,
}


@dataclass
class Both:
    """What all scenarios left, in the pool and without it, and the repositories."""

    preloaded: dict[str, Left]
    typed: dict[str, Left]
    repos: dict[str, Path]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def both(pristine_repo: Path, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Both]:
    top = tmp_path_factory.mktemp("equivalence")
    found = Both({}, {}, {})
    for kind in ("preloaded", "typed"):
        (top / kind).mkdir()
        found.repos[kind] = Path(shutil.copytree(pristine_repo, top / kind / "repo"))
        (top / kind / "override.py").write_text("config.value = 6\n")
    async with open_pool(top / "work", found.repos["preloaded"], max_workers=1) as pool:
        await pool.preloaded()
        # Else the shorter ways through the Butler would not be taken.
        assert [zygote.problem for zygote in pool.zygotes._zygotes.values()] == [""]
        run = Preloaded(pool).run
        for name, scenario in SCENARIOS.items():
            folder = top / "preloaded" / name.replace(" ", "-")
            found.preloaded[name] = await carry_out(
                run, scenario, folder.name, found.repos["preloaded"], folder
            )
        assert len(pool.zygotes.pids()) == 1
        environment = dict(pool.preload.variables)
    typed = Typed(environment)
    async with Forked(environment) as forked:
        for name, scenario in SCENARIOS.items():
            folder = top / "typed" / name.replace(" ", "-")
            run = typed.run if name in COLD else forked.run
            found.typed[name] = await carry_out(run, scenario, folder.name, found.repos["typed"], folder)
    yield found


@pytest.mark.parametrize("name", SCENARIOS)
async def test_exit_codes_are_the_same(both: Both, name: str) -> None:
    assert both.preloaded[name].codes == both.typed[name].codes
    # Of the last command; retrieval follows.
    assert both.typed[name].codes[-2] == CODES.get(name, 0)


@pytest.mark.parametrize("name", SCENARIOS)
async def test_logs_are_the_same_line_by_line(both: Both, name: str) -> None:
    assert both.preloaded[name].log == both.typed[name].log


@pytest.mark.parametrize("name", SCENARIOS)
async def test_summaries_are_the_same(both: Both, name: str) -> None:
    assert both.preloaded[name].summaries == both.typed[name].summaries


@pytest.mark.parametrize("name", SCENARIOS)
async def test_collections_datasets_and_their_contents_are_the_same(both: Both, name: str) -> None:
    assert both.preloaded[name].chains == both.typed[name].chains
    assert both.preloaded[name].datasets == both.typed[name].datasets
    nothing = ("no data", "bad query", "no collection", "bad option", "no registration")
    assert bool(both.typed[name].datasets) == (name not in nothing)


@pytest.mark.parametrize("name", SCENARIOS)
async def test_the_same_files_are_retrieved(both: Both, name: str) -> None:
    assert both.preloaded[name].files == both.typed[name].files
    # Where some are registered and not stored, nothing is retrieved.
    stored = bool(both.typed[name].datasets) and name != "replace and unstore"
    assert bool(both.typed[name].files) == stored


async def test_all_rows_of_the_database_are_the_same(both: Both) -> None:
    preloaded, typed = rows(both.repos["preloaded"]), rows(both.repos["typed"])
    assert preloaded.keys() == typed.keys()
    for table in typed:
        assert preloaded[table] == typed[table], table
    assert len(typed["dataset"]) > 200


# The loop of the pool: on another one nothing reads what the preloaded process answers.
@pytest.mark.asyncio(loop_scope="package")
async def test_preloading_is_what_was_tested(pool: Pool) -> None:
    """Had jobs started as new processes, all of the above would be true, too."""
    await pool.preloaded()
    job = await pool.submit("misbehave", config="-c misbehave:how=hang")
    await until((pool.workspace(job).engine / "group.json").exists)
    assert pool.was_preloaded(job)
    aborted = await pool.manager.abort(job.id)
    # Without doubt: nothing of it runs any more.
    assert aborted.message == "aborted on request"
