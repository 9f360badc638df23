# SPDX-License-Identifier: GPL-3.0-or-later
"""What a preloaded job leaves that is killed: whole quanta, and no dataset without its file.

The task of these tests kills its own process at an event that can be counted.
KILLS=20 in the environment tries more events than the few that are usual.
"""

from __future__ import annotations

import os
import tempfile
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest
from lsst.daf.butler import Butler
from lsst.dm.OCPS.jobs.model import ExecutionPhase

from tests.backends.local.harness import BIAS, Pool, open_pool

pytestmark = pytest.mark.asyncio(loop_scope="package")

KILLER = """
import os, signal
import lsst.pipe.base.connectionTypes as cT
import sqlalchemy
from lsst.daf.butler.datastores.fileDatastore import FileDatastore
from lsst.pex.config import Field
from lsst.pipe.base import PipelineTask, PipelineTaskConfig, PipelineTaskConnections, Struct

DIMENSIONS = ("instrument", "exposure", "detector")


class KillerConnections(PipelineTaskConnections, dimensions=DIMENSIONS):
    one = cT.Output(name="killerOne", doc=".", storageClass="StructuredDataDict", dimensions=DIMENSIONS)
    two = cT.Output(name="killerTwo", doc=".", storageClass="StructuredDataDict", dimensions=DIMENSIONS)


class KillerConfig(PipelineTaskConfig, pipelineConnections=KillerConnections):
    event = Field[str]("What to count.", default="file")
    count = Field[int]("At which of them to die.", default=0)


class KillerTask(PipelineTask):
    ConfigClass = KillerConfig
    _DefaultName = "killer"
    left = None

    def run(self):
        if KillerTask.left is None:
            KillerTask.left = self.config.count
            {"file": self.count_files, "statement": self.count_statements}[self.config.event]()
        return Struct(one={"n": 1}, two={"n": 2})

    @staticmethod
    def happen(*_):
        KillerTask.left -= 1
        if KillerTask.left == 0:
            os.kill(os.getpid(), signal.SIGKILL)

    def count_files(self):
        write = FileDatastore._write_in_memory_to_artifact

        def write_or_die(*args, **kwargs):
            written = write(*args, **kwargs)
            self.happen()
            return written

        FileDatastore._write_in_memory_to_artifact = write_or_die

    def count_statements(self):
        for name in ("after_cursor_execute", "commit"):
            sqlalchemy.event.listen(sqlalchemy.Engine, name, self.happen)
"""

FILES = (6, 3, 1, 2, 4, 5, 7, 9, 11, 12)
STATEMENTS = (5, 14, 1, 2, 3, 4, 6, 7, 8, 11)
MOMENTS = [
    moment
    for file, statement in zip(FILES, STATEMENTS, strict=True)
    for moment in (("file", file), ("statement", statement))
]


TYPES = {"killerOne", "killerTwo", "killer_metadata", "killer_log"}


def visible(repo: Path, run: str) -> dict[str, set[str]]:
    """Return the dataset types of each quantum that are visible; all visible datasets must have files."""
    found: dict[str, set[str]] = defaultdict(set)
    with Butler.from_config(str(repo)) as butler:
        for ref in butler.query_all_datasets(run, find_first=False):
            assert Path(butler.getURI(ref).ospath).stat().st_size, ref
            if ref.datasetType.name in TYPES:
                found[str(ref.dataId)].add(ref.datasetType.name)
    return found


@pytest.fixture
def killer(tmp_path: Path) -> dict[str, Any]:
    """Settings of an environment that has the task; variable KILLER is its pipeline."""
    folder = tmp_path / "code"
    folder.mkdir()
    (folder / "user_killer.py").write_text(KILLER)
    pipeline = folder / "killer.yaml"
    pipeline.write_text(
        "description: killer\ninstrument: democam.instrument.DemoCam\n"
        "tasks:\n  killer:\n    class: user_killer.KillerTask\n"
    )
    return {"name": "default", "variables": {"PYTHONPATH": str(folder), "KILLER": str(pipeline)}}


async def left(pool: Pool, killer: dict[str, Any], repo: Path, event: str, count: int) -> dict[str, set[str]]:
    """Run the task and have it killed; return what is visible then."""
    config = f"-c killer:event={event} -c killer:count={count}"
    job = await pool.run(killer["variables"]["KILLER"], BIAS, config)
    assert job.phase == (ExecutionPhase.ERROR if count else ExecutionPhase.COMPLETED), pool.log(job)
    assert job.exit_code == (-9 if count else 0)
    pid = pool.workspace(job).read_json("group.json")["pid"]
    assert not list(Path(tempfile.gettempdir()).glob(f"butler-cache-dir-{pid}-*"))
    return visible(repo, f"u/ocps/{job.id}/run")


async def test_what_is_visible_after_a_kill_is_a_set_of_whole_quanta(
    own_repo: Path, tmp_path: Path, killer: dict[str, Any]
) -> None:
    async with open_pool(tmp_path / "work", own_repo, environments=[killer]) as pool:
        await pool.preloaded()
        total = await left(pool, killer, own_repo, "file", 0)
        assert len(total) > 4
        for event, count in MOMENTS[: int(os.environ.get("KILLS", "4"))]:
            quanta = await left(pool, killer, own_repo, event, count)
            assert all(types == TYPES for types in quanta.values())
            assert len(quanta) < len(total)
            if event == "file":
                # Two outputs, metadata and log.
                assert len(quanta) == (count - 1) // 4


async def test_shorter_ways_can_be_turned_off(own_repo: Path, tmp_path: Path, killer: dict[str, Any]) -> None:
    """Then a killed job leaves what a typed command leaves that is killed: whatever it has stored."""
    async with open_pool(tmp_path / "work", own_repo, environments=[{**killer, "fast": False}]) as pool:
        await pool.preloaded()
        quanta = await left(pool, killer, own_repo, "file", 3)
        assert list(quanta.values()) == [{"killerOne", "killerTwo"}]
