# SPDX-License-Identifier: GPL-3.0-or-later

"""Enumerations of ScriptQueue."""

import enum

__all__ = ["Location", "SalIndex", "ScriptProcessState"]


class Location(enum.IntEnum):
    """Where in the queue a script goes."""

    FIRST = 1
    LAST = 2
    BEFORE = 3
    AFTER = 4


class SalIndex(enum.IntEnum):
    """The queues of the observatory."""

    MAIN_TEL = 1
    AUX_TEL = 2
    OCS = 3


class ScriptProcessState(enum.IntEnum):
    """How far the process of a script is."""

    UNKNOWN = 0
    LOADING = 1
    CONFIGURED = 2
    RUNNING = 3
    DONE = 4
    LOADFAILED = 5
    CONFIGURE_FAILED = 6
    CONFIGUREFAILED = CONFIGURE_FAILED  # the older name
    TERMINATED = 7
