# SPDX-License-Identifier: GPL-3.0-or-later
"""A pipeline task that writes its own start and end to the ledger, as ``tick.sh`` does."""

from __future__ import annotations

import os
import time
from pathlib import Path

import lsst.pipe.base.connectionTypes as cT
from lsst.pex.config import Field
from lsst.pipe.base import PipelineTask, PipelineTaskConfig, PipelineTaskConnections, Struct


class LedgerConnections(PipelineTaskConnections, dimensions=("instrument",)):
    answer = cT.Output(
        doc="The token of the job.",
        name="ledgerAnswer",
        storageClass="StructuredDataDict",
        dimensions=("instrument",),
    )


class LedgerConfig(PipelineTaskConfig, pipelineConnections=LedgerConnections):
    place = Field[str](doc="LEDGER/TOKEN-DURATION-CODE-WAY.yaml", default="")


class LedgerTask(PipelineTask):
    """Write to the ledger, sleep, and end as the job is to end."""

    ConfigClass = LedgerConfig
    _DefaultName = "ledger"
    config: LedgerConfig

    def run(self) -> Struct:
        """Run the quantum; an exit code other than 0 ends the process here."""
        place = Path(self.config.place)
        token, duration, code, _ = place.stem.split("-")
        ledger = place.with_name(token)
        with ledger.open("a") as file:
            file.write(f"start {os.getpid()}\n")
        time.sleep(float(duration))
        with ledger.open("a") as file:
            file.write(f"end {code}\n")
        if int(code):
            os._exit(int(code))
        return Struct(answer={"token": token})
