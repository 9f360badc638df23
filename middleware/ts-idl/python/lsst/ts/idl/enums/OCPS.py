# This file is part of dm_OCPS.
#
# Developed for the Vera C. Rubin Observatory.
# License: GPL-3.0-or-later; see COPYRIGHT and LICENSE at the top of the repository.

"""Enumerations of OCPS."""

import enum

__all__ = ["SalIndex"]


class SalIndex(enum.IntEnum):
    """The instances of OCPS, by the data they process."""

    LATISS = 1
    LSSTComCam = 2
    LSSTCam = 3
    RA = 101
