# SPDX-License-Identifier: GPL-3.0-or-later

"""Enumerations of Test."""

import enum

__all__ = ["Int0Enum", "Int0ValueEnum"]


class Int0Enum(enum.IntEnum):
    """Values for the field int0 of the event scalars."""

    ONE = 1
    TWO = 2
    THREE = 3


class Int0ValueEnum(enum.IntEnum):
    """Values for the field int0 of the event arrays."""

    ZERO = 0
    TWO = 2
    FOUR = 4
    FIVE = 5
