# SPDX-License-Identifier: GPL-3.0-or-later

"""Enumerations of OCPS."""

import enum

__all__ = ["SalIndex"]


class SalIndex(enum.IntEnum):
    """The instances of OCPS, by the data they process."""

    LATISS = 1
    LSSTComCam = 2
    LSSTCam = 3
    RA = 101
