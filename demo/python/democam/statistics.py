# SPDX-License-Identifier: GPL-3.0-or-later

"""Statistics that outliers do not upset."""

from __future__ import annotations

__all__ = ["clipped_mean_and_std"]

import numpy as np


def clipped_mean_and_std(
    values: np.ndarray, n_sigma: float = 5.0, max_rounds: int = 10
) -> tuple[float, float]:
    """Return mean and standard deviation after clipping outliers.

    Raw frames are digitised to few ADU, which a median absolute deviation would show as steps; five sigma
    is wide enough to leave the standard deviation of a Gaussian as it is.

    Parameters
    ----------
    values : `numpy.ndarray`
        Samples, any shape, at least one.
    n_sigma : `float`, optional
        Samples further from the mean than this many standard deviations are left out.
    max_rounds : `int`, optional
        Stop after so many rounds even if samples are still being left out.

    Returns
    -------
    mean, std : `float`
        In the unit of the samples.
    """
    kept = np.asarray(values, dtype=float).ravel()
    # A median to start with: a single huge outlier would otherwise hide behind the spread it causes.
    centre, spread = float(np.median(kept)), float(kept.std())
    for _ in range(max_rounds):
        inside = kept[np.abs(kept - centre) <= n_sigma * spread]
        if inside.size in (0, kept.size):
            break
        kept, centre, spread = inside, float(inside.mean()), float(inside.std())
    return float(kept.mean()), float(kept.std())
