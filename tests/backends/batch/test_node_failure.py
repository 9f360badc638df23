# SPDX-License-Identifier: GPL-3.0-or-later
"""A job on a node that fails: whether it may be run again depends on what its supervisor has written."""

from __future__ import annotations

from pathlib import Path
from typing import cast

import pytest
from lsst.dm.OCPS.backends.batch.backend import BatchBackend, _Watched
from lsst.dm.OCPS.backends.slurm import Slurm, SlurmSettings, _entry
from lsst.dm.OCPS.jobs.backend import BackendUpdate
from lsst.dm.OCPS.jobs.model import ExecutionPhase, Job
from lsst.dm.OCPS.jobs.workspace import Workspaces

# The cluster of the other tests cannot cut its only node off, so Slurm's answer is given here.


@pytest.mark.parametrize(
    ("state", "outcome_lost", "may_still_run"),
    [("NODE_FAIL", True, True), ("NODE_FAIL", False, False), ("PREEMPTED", True, False)],
)
def test_a_job_without_a_status_on_a_failed_node_may_still_run(
    tmp_path: Path, state: str, outcome_lost: bool, may_still_run: bool
) -> None:
    workspaces = Workspaces(tmp_path)
    backend = BatchBackend(workspaces, {}, Slurm(SlurmSettings()))
    watched = _Watched(cast(Job, None), workspaces.of("a"))
    seen = BackendUpdate(phase=ExecutionPhase.ERROR, outcome_lost=outcome_lost)
    ending = backend._complete(seen, watched, _entry("1", state, None, 0.0, ""))
    assert ending.error is not None
    assert ending.error.transient
    assert ending.may_still_run == may_still_run
