# SPDX-License-Identifier: GPL-3.0-or-later

"""DemoCam as the Butler knows it."""

from __future__ import annotations

__all__ = ["DemoCam"]

from lsst.daf.butler import DataId, FormatterV2, Registry
from lsst.pipe.base import Instrument

from .camera import DETECTORS, FILTERS, NAME
from .formatters import DemoImageFormatter


class DemoCam(Instrument):
    """A camera with two small detectors that exists in simulation only."""

    policyName = "democam"
    raw_definition = ("raw", ("instrument", "exposure", "detector"), "DemoCamImage")

    @classmethod
    def getName(cls) -> str:
        return NAME

    def register(self, registry: Registry, *, update: bool = False) -> None:
        """Insert the instrument, its detectors and its filters; see the base class."""
        with registry.transaction():
            registry.syncDimensionData(
                "instrument",
                {
                    "name": NAME,
                    "class_name": f"{__name__}.{type(self).__name__}",
                    "detector_max": len(DETECTORS),
                    # Exposure ids are the day (8 digits) followed by a 5-digit sequence number.
                    "exposure_max": 10**13,
                    "visit_max": 10**13,
                },
                update=update,
            )
            for detector in DETECTORS:
                raft, _, name_in_raft = detector.name.partition("_")
                registry.syncDimensionData(
                    "detector",
                    {
                        "instrument": NAME,
                        "id": detector.id,
                        "full_name": detector.name,
                        "name_in_raft": name_in_raft,
                        "raft": raft,
                        "purpose": "SCIENCE",
                    },
                    update=update,
                )
            for physical_filter, band in FILTERS.items():
                registry.syncDimensionData(
                    "physical_filter",
                    {"instrument": NAME, "name": physical_filter, "band": band},
                    update=update,
                )

    def getRawFormatter(self, dataId: DataId) -> type[FormatterV2]:
        return DemoImageFormatter
