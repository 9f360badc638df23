# SPDX-License-Identifier: GPL-3.0-or-later

"""A night's observing plan: which exposures there are and when they were taken."""

from __future__ import annotations

__all__ = ["Exposure", "Plan", "plan_night"]

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta


@dataclass(frozen=True)
class Plan:
    """How many frames of each kind a night has.

    Attributes
    ----------
    biases, flats : `int`
        Numbers of frames.
    focus_positions : `tuple` [ `float`, ... ]
        Camera positions of the focus sweep in mm.
    """

    biases: int = 4
    flats: int = 3
    focus_positions: tuple[float, ...] = (-1.2, -0.8, -0.4, 0.0, 0.4, 0.8, 1.2)


@dataclass(frozen=True)
class Exposure:
    """One exposure, with the names the Butler's ``exposure`` record has for its parts.

    Times are UTC; `focus` is the camera position in mm.
    """

    day_obs: int
    seq_num: int
    group: str
    physical_filter: str
    observation_type: str
    observation_reason: str
    target_name: str
    exposure_time: float
    begin: datetime
    focus: float = 0.0

    @property
    def id(self) -> int:
        """Exposure id: the night and a sequence number of five digits (`int`)."""
        return self.day_obs * 100_000 + self.seq_num

    @property
    def obs_id(self) -> str:
        """Name of the exposure (`str`)."""
        return f"DC_O_{self.day_obs}_{self.seq_num:06d}"

    @property
    def end(self) -> datetime:
        """End of the exposure (`datetime.datetime`)."""
        # The Butler wants time spans that are not empty, and a bias still takes the time of a readout.
        return self.begin + timedelta(seconds=self.exposure_time + 1.0)


def noon(day_obs: int) -> datetime:
    """Return the start of a night, noon UTC.

    Parameters
    ----------
    day_obs : `int`
        The night as YYYYMMDD.

    Returns
    -------
    start : `datetime.datetime`
        With time zone UTC.

    Raises
    ------
    ValueError
        If there is no such day.
    """
    try:
        return datetime.strptime(str(day_obs), "%Y%m%d").replace(hour=12, tzinfo=UTC)
    except ValueError:
        raise ValueError(f"{day_obs} is not a day; give YYYYMMDD, such as 20261120.") from None


def plan_night(day_obs: int, plan: Plan) -> Iterator[Exposure]:
    """List a night's exposures: biases, flats, then a focus sweep.

    Parameters
    ----------
    day_obs : `int`
        The night as YYYYMMDD.
    plan : `Plan`
        How many of each.

    Yields
    ------
    exposure : `Exposure`
        In the order of observation; sequence numbers start at 1.
    """
    begin = noon(day_obs) + timedelta(hours=9)
    seq_num = 0
    blocks: list[tuple[str, str, str, str, float, tuple[float, ...]]] = [
        ("bias", "bias", "empty", "none", 0.0, (0.0,) * plan.biases),
        ("flat", "flat", "r_demo", "dome", 5.0, (0.0,) * plan.flats),
        ("focus", "focus_sweep", "r_demo", "focus field", 15.0, plan.focus_positions),
    ]
    for observation_type, reason, physical_filter, target, exposure_time, positions in blocks:
        group = f"{day_obs}-{observation_type}"
        for position in positions:
            seq_num += 1
            exposure = Exposure(
                day_obs=day_obs,
                seq_num=seq_num,
                group=group,
                physical_filter=physical_filter,
                observation_type=observation_type,
                observation_reason=reason,
                target_name=target,
                exposure_time=exposure_time,
                begin=begin,
                focus=position,
            )
            yield exposure
            begin = exposure.end + timedelta(seconds=2.0)
