# SPDX-License-Identifier: GPL-3.0-or-later

"""Angles on a circle. A number is an angle in degrees."""

import typing

import astropy.units as u
from astropy.coordinates import Angle

__all__ = ["angle_diff", "angle_wrap_center", "angle_wrap_nonnegative", "assert_angles_almost_equal"]

AngleLike: typing.TypeAlias = Angle | float


def angle_wrap_center(angle: AngleLike) -> Angle:
    """Wrap an angle to [-180, 180) degrees."""
    return Angle(angle, u.deg).wrap_at(180 * u.deg)


def angle_wrap_nonnegative(angle: AngleLike) -> Angle:
    """Wrap an angle to [0, 360) degrees."""
    return Angle(angle, u.deg).wrap_at(360 * u.deg)


def angle_diff(angle1: AngleLike, angle2: AngleLike) -> Angle:
    """Return ``angle1 - angle2``, wrapped to [-180, 180) degrees."""
    return angle_wrap_center(Angle(angle1, u.deg) - Angle(angle2, u.deg))


def assert_angles_almost_equal(angle1: AngleLike, angle2: AngleLike, max_diff: AngleLike = 1e-5) -> None:
    """Assert that two angles are equal, apart from whole turns.

    Parameters
    ----------
    angle1, angle2
        The directions.
    max_diff
        How far they may be apart.

    Raises
    ------
    AssertionError
        If they are farther apart.
    """
    diff = abs(angle_diff(angle1, angle2))
    if diff > Angle(max_diff, u.deg):
        raise AssertionError(f"{angle1} and {angle2} are {diff} apart, which is more than {max_diff}")
