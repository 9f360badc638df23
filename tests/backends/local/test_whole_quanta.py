# SPDX-License-Identifier: GPL-3.0-or-later
"""What a preloaded job leaves that is killed: whole quanta, and no dataset without its file.

The task of these tests kills its own process at an event that can be counted.
KILLS=20 in the environment tries more events than the few that are usual.
"""

from __future__ import annotations

import os
from collections import defaultdict
from pathlib import Path

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

FILES = (1, 2, 3, 4, 5, 6, 7, 9, 11, 12)
STATEMENTS = (5, 1, 2, 3, 4, 6, 7, 8, 11, 16)
MOMENTS = [
    moment
    for file, statement in zip(FILES, STATEMENTS, strict=True)
    for moment in (("file", file), ("statement", statement))
]


def whole_quanta(repo: Path, run: str) -> int:
    """Check what is visible in a run; return of how many quanta."""
    types = {"killerOne", "killerTwo", "killer_metadata", "killer_log"}
    found: dict[str, set[str]] = defaultdict(set)
    with Butler.from_config(str(repo)) as butler:
        if not butler.collections.query(run):
            return 0
        for ref in butler.query_all_datasets(run, find_first=False):
            assert Path(butler.getURI(ref).ospath).stat().st_size, ref
            if ref.datasetType.name in types:
                found[str(ref.dataId)].add(ref.datasetType.name)
    assert all(names == types for names in found.values()), found
    return len(found)


async def test_what_is_visible_after_a_kill_is_a_set_of_whole_quanta(own_repo: Path, tmp_path: Path) -> None:
    folder = tmp_path / "code"
    folder.mkdir()
    (folder / "user_killer.py").write_text(KILLER)
    pipeline = folder / "killer.yaml"
    pipeline.write_text(
        "description: killer\ninstrument: democam.instrument.DemoCam\n"
        "tasks:\n  killer:\n    class: user_killer.KillerTask\n"
    )
    environment = {"name": "default", "variables": {"PYTHONPATH": str(folder), "KILLER": str(pipeline)}}
    async with open_pool(tmp_path / "work", own_repo, environments=[environment]) as pool:
        await pool.preloaded()
        total = await whole(pool, own_repo, str(pipeline), "file", 0)
        assert total > 4
        # Two outputs and the metadata are written by the Butler; the log is not counted.
        for event, count in MOMENTS[: int(os.environ.get("KILLS", "4"))]:
            left = await whole(pool, own_repo, str(pipeline), event, count)
            assert left < total
            if event == "file":
                assert left == (count - 1) // 3


async def whole(pool: Pool, repo: Path, pipeline: str, event: str, count: int) -> int:
    """Run the task and have it killed; return how many quanta it has left."""
    config = f"-c killer:event={event} -c killer:count={count}"
    job = await pool.run(pipeline, BIAS, config)
    assert job.phase == (ExecutionPhase.ERROR if count else ExecutionPhase.COMPLETED), pool.log(job)
    assert job.exit_code == (-9 if count else 0)
    return whole_quanta(repo, f"u/ocps/{job.id}/run*")
