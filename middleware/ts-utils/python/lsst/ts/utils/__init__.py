# SPDX-License-Identifier: GPL-3.0-or-later

"""Small tools that salobj shares with CSCs: time, angles, indices, and two helpers for tests."""

from ._angle import angle_diff, angle_wrap_center, angle_wrap_nonnegative, assert_angles_almost_equal
from ._misc import index_generator, make_done_future, modify_environ
from ._tai import (
    MJD_MINUS_UNIX_SECONDS,
    SECONDS_PER_DAY,
    astropy_time_from_tai_unix,
    current_tai,
    tai_from_utc,
    tai_from_utc_unix,
    utc_from_tai_unix,
)

__all__ = [
    "MJD_MINUS_UNIX_SECONDS",
    "SECONDS_PER_DAY",
    "angle_diff",
    "angle_wrap_center",
    "angle_wrap_nonnegative",
    "assert_angles_almost_equal",
    "astropy_time_from_tai_unix",
    "current_tai",
    "index_generator",
    "make_done_future",
    "modify_environ",
    "tai_from_utc",
    "tai_from_utc_unix",
    "utc_from_tai_unix",
]
