# SPDX-License-Identifier: GPL-3.0-or-later

"""The part of OpenSplice's Python DCPS interface that salobj 6 uses, on Eclipse Cyclone DDS.

Names, arguments and behaviour follow what salobj expects of OpenSplice; what Cyclone does differently is
hidden here. See ``middleware/README.md`` for the environment variables.
"""

import importlib.metadata

from cyclonedds.core import DDSException

from ._conditions import (
    DDSDuration,
    DDSStateKind,
    GuardCondition,
    QueryCondition,
    ReadCondition,
    WaitSet,
)
from ._entities import DataReader, DataWriter, DomainParticipant, Publisher, SampleInfo, Subscriber
from ._qos import DDSDurabilityKind, DDSHistoryKind, PartitionQosPolicy, Qos, QosProvider

# A CSC reports this as ``softwareVersions.openSpliceVersion``, so it says which DDS really runs.
__version__ = f"cyclonedds-{importlib.metadata.version('cyclonedds')}"

__all__ = [
    "DDSDurabilityKind",
    "DDSDuration",
    "DDSException",
    "DDSHistoryKind",
    "DDSStateKind",
    "DataReader",
    "DataWriter",
    "DomainParticipant",
    "GuardCondition",
    "PartitionQosPolicy",
    "Publisher",
    "Qos",
    "QosProvider",
    "QueryCondition",
    "ReadCondition",
    "SampleInfo",
    "Subscriber",
    "WaitSet",
]
