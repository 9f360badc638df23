# SPDX-License-Identifier: GPL-3.0-or-later

"""Enumerations of Script."""

import enum

__all__ = ["MetadataCoordSys", "MetadataDome", "MetadataRotSys", "ScriptState"]


class ScriptState(enum.IntEnum):
    """How far a script is."""

    UNKNOWN = 0
    UNCONFIGURED = 1
    CONFIGURED = 2
    RUNNING = 3
    PAUSED = 4
    ENDING = 5
    STOPPING = 6
    FAILING = 7
    DONE = 8
    STOPPED = 9
    FAILED = 10
    CONFIGURE_FAILED = 11


class MetadataCoordSys(enum.IntEnum):
    """Coordinate systems of a script's position."""

    NONE = 1
    ICRS = 2
    OBSERVED = 3
    MOUNT = 4


class MetadataRotSys(enum.IntEnum):
    """Systems of a script's camera angle."""

    NONE = 1
    SKY = 2
    HORIZON = 3
    MOUNT = 4


class MetadataDome(enum.IntEnum):
    """How a script wants the dome."""

    CLOSED = 1
    OPEN = 2
    EITHER = 3
