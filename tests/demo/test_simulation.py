# SPDX-License-Identifier: GPL-3.0-or-later

"""The simulated frames are what they claim to be."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from democam import simulate
from democam.camera import AMPLIFIERS, DETECTORS, OPTICS, RAW_SHAPE, SHAPE
from democam.image import DemoImage
from democam.observations import Plan, plan_night
from democam.statistics import clipped_mean_and_std
from democam.tasks.isr import subtract_overscan

SEED, DAY = 5, 20261120


def test_frames_depend_on_seed_exposure_and_detector_only() -> None:
    first = simulate.bias_frame(SEED, 1, 0)
    simulate.bias_frame(SEED, 2, 0)
    np.testing.assert_array_equal(simulate.bias_frame(SEED, 1, 0), first)
    for other in (
        simulate.bias_frame(SEED + 1, 1, 0),
        simulate.bias_frame(SEED, 2, 0),
        simulate.bias_frame(SEED, 1, 1),
    ):
        assert (other != first).mean() > 0.5


def test_raw_frames_have_shape_and_type_of_a_camera() -> None:
    for frame in (
        simulate.bias_frame(SEED, 1, 0),
        simulate.flat_frame(SEED, 1, 0),
        simulate.focus_frame(SEED, 1, 0, DAY, 0.3),
    ):
        assert frame.shape == RAW_SHAPE
        assert frame.dtype == np.uint16


def test_overscan_follows_the_electronic_level() -> None:
    model = simulate.DetectorModel.build(SEED, 0)
    levels = []
    for exposure in range(8):
        image = subtract_overscan(DemoImage(simulate.bias_frame(SEED, exposure, 0)))
        assert image.array.shape == SHAPE
        levels.append([image.header[f"OSLV{amp.name}"] for amp in AMPLIFIERS])
        for amp in AMPLIFIERS:
            residual = image.array[:, amp.image] - model.structure[:, amp.image]
            assert abs(clipped_mean_and_std(residual)[0]) < 0.2
    # The level drifts by 2 ADU between frames, and the overscan sees it.
    assert np.abs(np.mean(levels, axis=0) - model.levels).max() < 3.0
    assert np.std(levels, axis=0).min() > 0.5


def test_overscan_of_a_frame_from_another_camera_is_refused() -> None:
    with pytest.raises(ValueError, match="256x288"):
        subtract_overscan(DemoImage(np.zeros((10, 10))))


def test_flats_are_vignetted_away_from_the_optical_axis() -> None:
    images = [subtract_overscan(DemoImage(simulate.flat_frame(SEED, 1, d.id))).array for d in DETECTORS]
    left = [image[:, AMPLIFIERS[0].image][:, :30].mean() for image in images]
    # The axis lies between the detectors: to the right of the first one, to the left of the second one.
    assert left[0] < 0.95 * left[1]


def test_a_donut_grows_as_geometry_says() -> None:
    for radius in (0.0, 5.0, 12.0, 18.0):
        image = np.zeros(SHAPE)
        simulate._add_donut(image, simulate.Star(128.0, 128.0, 1.0), radius, simulate.SEEING)
        rows, columns = np.indices(SHAPE)
        expected = radius**2 * (1.0 + OPTICS.obscuration**2) / 4.0 + simulate.SEEING**2
        assert image.sum() == pytest.approx(1.0, abs=1e-3)
        assert (image * (columns - 128.0) ** 2).sum() == pytest.approx(expected, rel=0.02)
        assert (image * (rows - 128.0) ** 2).sum() == pytest.approx(expected, rel=0.02)


def test_a_night_has_its_exposures_in_order() -> None:
    exposures = list(plan_night(DAY, Plan(biases=2, flats=1, focus_positions=(-1.0, 1.0))))
    assert [e.observation_type for e in exposures] == ["bias", "bias", "flat", "focus", "focus"]
    assert [e.id for e in exposures] == [DAY * 100_000 + n for n in range(1, 6)]
    assert all(a.end <= b.begin for a, b in pairwise(exposures))


def test_a_day_that_is_none_is_refused() -> None:
    with pytest.raises(ValueError, match="20261301 is not a day"):
        list(plan_night(20261301, Plan()))
