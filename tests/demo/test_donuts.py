# SPDX-License-Identifier: GPL-3.0-or-later

"""Stars are found and measured rightly, and the best focus is as good as its uncertainty claims."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from democam import simulate
from democam.camera import DETECTORS, OPTICS
from democam.donuts import FocusFit, ImageSize, fit_focus, measure_donuts, repair
from democam.image import DemoImage
from democam.make_repo import simulate_raw
from democam.observations import Exposure, Plan, plan_night
from democam.tasks.focus import FitFocusTask, MeasureDonutsTask

DAY = 20261120


def sweep(seed: int) -> list[tuple[Exposure, int, DemoImage]]:
    """Simulate a focus sweep."""
    return [
        (exposure, detector.id, simulate_raw(exposure, detector, seed))
        for exposure in plan_night(DAY, Plan(biases=0, flats=0))
        for detector in DETECTORS
    ]


def test_every_isolated_star_is_found_where_it_is() -> None:
    task = MeasureDonutsTask()
    for _, detector, raw in sweep(seed=2):
        found = task.run(raw).measurement["stars"]
        truth = simulate.star_field(2, DAY, detector)
        assert len(found) >= len(truth) - 1
        distances = [
            min(np.hypot(star["row_px"] - s.row, star["column_px"] - s.column) for s in truth)
            for star in found
        ]
        # The largest donuts of the faintest stars are the vaguest.
        assert max(distances) < 1.5
        assert np.median(distances) < 0.4


def test_best_focus_is_within_its_uncertainty_of_the_truth() -> None:
    measure, fit = MeasureDonutsTask(), FitFocusTask()
    pulls, errors = [], []
    for seed in range(12):
        results = [measure.run(raw) for _, _, raw in sweep(seed)]
        metrics = fit.run([r.measurement for r in results], [r.cutout for r in results]).metrics
        pulls.append(
            (metrics["best_focus"] - simulate.true_best_focus(seed, DAY)) / metrics["best_focus_err"]
        )
        errors.append(metrics["best_focus_err"])
        assert metrics["within_sweep"]
        assert metrics["n_exposures"] == 7
    assert np.abs(pulls).max() < 4.0
    # Neither too small nor too large: deviations are about as large as their uncertainties.
    assert 0.4 < np.sqrt(np.mean(np.square(pulls))) < 1.8
    assert 0.0005 < np.mean(errors) < 0.005


def test_size_grows_as_the_optics_say() -> None:
    measure, fit = MeasureDonutsTask(), FitFocusTask()
    results = [measure.run(raw) for _, _, raw in sweep(seed=3)]
    metrics = fit.run([r.measurement for r in results], [r.cutout for r in results]).metrics
    growth = np.sqrt(2.0 * OPTICS.variance_per_mm2) * OPTICS.pixel_scale
    assert metrics["growth_arcsec_per_mm"] == pytest.approx(growth, rel=0.02)
    seeing = np.sqrt(2.0) * simulate.SEEING * OPTICS.pixel_scale
    assert metrics["smallest_rms_radius_arcsec"] == pytest.approx(seeing, rel=0.15)


def parabola(best: float, positions: tuple[float, ...] = (-1.0, -0.5, 0.0, 0.5, 1.0)) -> list[ImageSize]:
    """Return sizes without noise."""
    return [ImageSize(str(z), z, 2.0 + 40.0 * (z - best) ** 2, 0.1) for z in positions]


def test_a_parabola_is_recovered_exactly() -> None:
    fit = fit_focus(parabola(0.123))
    assert fit.best_focus == pytest.approx(0.123, abs=1e-9)
    assert (fit.curvature, fit.minimum) == pytest.approx((40.0, 2.0))
    assert fit.dof == 2
    assert fit.size2(0.623) == pytest.approx(12.0)


def test_uncertainty_scales_with_that_of_the_sizes_and_with_scatter() -> None:
    sizes = parabola(0.1)

    def error(sizes: list[ImageSize], scatter: float = 0.0) -> float:
        fit: FocusFit = fit_focus(sizes, scatter)
        return fit.best_focus_err

    assert error([replace(s, size2_err=0.3) for s in sizes]) == pytest.approx(3.0 * error(sizes), rel=1e-6)
    assert error(sizes, scatter=0.3) > 2.0 * error(sizes)
    noisy = [replace(s, size2=s.size2 + sign) for s, sign in zip(sizes, (1, -1, 1, -1, 1), strict=True)]
    assert error(noisy) > 2.0 * error(sizes)


def test_seeing_does_not_average_out_over_detectors() -> None:
    once = parabola(0.1)
    twice = once + once  # the same exposures, seen by a second detector
    photons_only = fit_focus(once).best_focus_err / fit_focus(twice).best_focus_err
    with_seeing = fit_focus(once, 1.0).best_focus_err / fit_focus(twice, 1.0).best_focus_err
    assert photons_only == pytest.approx(np.sqrt(2.0))
    assert with_seeing == pytest.approx(1.0, abs=0.02)


def test_too_few_positions_are_refused() -> None:
    with pytest.raises(ValueError, match="at least 4 camera positions; this one has 3"):
        fit_focus(parabola(0.1, (-1.0, 0.0, 1.0)))


def test_a_sweep_without_focus_is_refused() -> None:
    sizes = [replace(size, size2=50.0 - size.size2) for size in parabola(0.0)]
    with pytest.raises(ValueError, match="did not go through focus"):
        fit_focus(sizes)


def test_hot_pixels_and_columns_are_repaired_and_stars_are_not() -> None:
    rng = np.random.default_rng(1)
    image = 40.0 + rng.normal(0.0, 5.0, (256, 256))
    simulate._add_donut(image, simulate.Star(100.3, 90.6, 2.0e4), 0.0, 0.85)
    flawed = image.copy()
    flawed[30, 40] += 2000.0
    flawed[:, 200] += 60.0
    repaired = repair(flawed, noise=5.0)
    assert repaired[30, 40] < 70.0
    assert abs(repaired[:, 200].mean() - 40.0) < 2.0
    np.testing.assert_allclose(repaired[90:110, 80:100], image[90:110, 80:100])


def test_an_empty_field_has_no_stars() -> None:
    image = 40.0 + np.random.default_rng(1).normal(0.0, 5.0, (256, 256))
    assert measure_donuts(image, aperture=23.0, noise=5.0) == []
