# SPDX-License-Identifier: GPL-3.0-or-later

"""International Atomic Time (TAI), which SAL uses: as "unix seconds", that is, UTC unix time plus TAI-UTC."""

import bisect
import time

import astropy.time  # also brings the leap seconds that erfa knows up to date
import erfa

__all__ = [
    "MJD_MINUS_UNIX_SECONDS",
    "SECONDS_PER_DAY",
    "astropy_time_from_tai_unix",
    "current_tai",
    "tai_from_utc",
    "tai_from_utc_unix",
    "utc_from_tai_unix",
]

SECONDS_PER_DAY = 24 * 60 * 60
"""Seconds in a day without a leap second."""

MJD_MINUS_UNIX_SECONDS = 40587 * SECONDS_PER_DAY
"""Seconds from the zero of the modified Julian date to that of unix time."""

# When (unix seconds) TAI-UTC (seconds) took its values. Before 1972 it was no whole number.
_STARTS: list[float] = []
_OFFSETS: list[float] = []
for _row in erfa.leap_seconds.get():
    if _row["year"] >= 1972:
        _STARTS.append(astropy.time.Time(f"{_row['year']}-{_row['month']:02}-01", scale="utc").unix)
        _OFFSETS.append(float(_row["tai_utc"]))


def _segment(seconds: float, starts: list[float]) -> int:
    """Return the index of the last start that is not after a time.

    Raises
    ------
    ValueError
        If the time is before 1972.
    """
    index = bisect.bisect(starts, seconds) - 1
    if index < 0:
        raise ValueError(f"{seconds} unix seconds is before 1972, when whole leap seconds began")
    return index


def astropy_time_from_tai_unix(tai_unix: float) -> astropy.time.Time:
    """Return the astropy time of a TAI time (unix seconds)."""
    return astropy.time.Time((MJD_MINUS_UNIX_SECONDS + tai_unix) / SECONDS_PER_DAY, scale="tai", format="mjd")


def tai_from_utc_unix(utc_unix: float) -> float:
    """Return the TAI time (unix seconds) of a UTC time (unix seconds).

    A leap second is spread over the day before it, for unix time has no place for it.

    Raises
    ------
    ValueError
        If the time is before 1972.
    """
    index = _segment(utc_unix, _STARTS)
    offset = _OFFSETS[index]
    if index + 1 < len(_STARTS):
        to_leap = _STARTS[index + 1] - utc_unix
        if to_leap < SECONDS_PER_DAY:
            offset += (_OFFSETS[index + 1] - offset) * (1 - to_leap / SECONDS_PER_DAY)
    return utc_unix + offset


def tai_from_utc(utc: float | str | astropy.time.Time, format: str | None = "unix") -> float:
    """Return the TAI time (unix seconds) of a UTC time.

    Parameters
    ----------
    utc
        The time. An astropy time may be in any scale.
    format
        The format of ``utc`` by astropy's name, None to let astropy guess; not used for an astropy time.

    Raises
    ------
    ValueError
        If the time is before 1972 or not of that format.
    """
    if isinstance(utc, float | int) and format == "unix":
        return tai_from_utc_unix(utc)
    if not isinstance(utc, astropy.time.Time):
        utc = astropy.time.Time(utc, scale="utc", format=format)
    return tai_from_utc_unix(utc.unix)


def utc_from_tai_unix(tai_unix: float) -> float:
    """Return the UTC time (unix seconds) of a TAI time (unix seconds); the difference is a whole number.

    Raises
    ------
    ValueError
        If the time is before 1972.
    """
    starts = [start + offset for start, offset in zip(_STARTS, _OFFSETS, strict=True)]
    return tai_unix - _OFFSETS[_segment(tai_unix, starts)]


def _clock_is_right() -> bool:
    """Return whether the kernel's TAI clock is right; on many hosts its leap seconds were never set."""
    try:
        return abs(time.clock_gettime(time.CLOCK_TAI) - tai_from_utc_unix(time.time())) < 1.1
    except (AttributeError, OSError):
        return False


_USE_CLOCK = _clock_is_right()


def current_tai() -> float:
    """Return the time now (TAI, unix seconds)."""
    return time.clock_gettime(time.CLOCK_TAI) if _USE_CLOCK else tai_from_utc_unix(time.time())
