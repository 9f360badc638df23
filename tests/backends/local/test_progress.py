# SPDX-License-Identifier: GPL-3.0-or-later
"""What is read from a growing pipetask log, whatever a job writes into it."""

from __future__ import annotations

from pathlib import Path

import pytest
from lsst.dm.OCPS.backends.local.pipetask_progress import ProgressReader
from lsst.dm.OCPS.jobs.model import Progress


def test_progress_is_read_as_the_log_grows(tmp_path: Path) -> None:
    log = tmp_path / "ocps.log"
    reader = ProgressReader(log)
    assert reader.read() == Progress()
    log.write_text("INFO QuantumGraph contains 9 quanta\nINFO Executed 2 quanta success")
    assert reader.read() == Progress(0, 0, 9)
    with log.open("a") as file:
        file.write("fully, 1 failed and 6 remain out of total 9 quanta\n")
    assert reader.read() == Progress(2, 1, 9)


@pytest.mark.parametrize(
    "line",
    [
        "QuantumGraph contains {} quanta",
        "Executed {} quanta successfully, 0 failed and 1 remain out of total 9 quanta",
        "Executed 1 quanta successfully, 0 failed and 1 remain out of total {} quanta",
    ],
)
def test_numbers_without_bound_are_no_progress(tmp_path: Path, line: str) -> None:
    """Python refuses to convert more than 4300 digits; the job's log is followed all the same."""
    log = tmp_path / "ocps.log"
    log.write_text("QuantumGraph contains 9 quanta\n" + line.format("1" * 5000) + "\n")
    reader = ProgressReader(log)
    assert reader.read() == Progress(0, 0, 9)
    with log.open("a") as file:
        file.write("Executed 3 quanta successfully, 0 failed and 6 remain out of total 9 quanta\n")
    assert reader.read() == Progress(3, 0, 9)
