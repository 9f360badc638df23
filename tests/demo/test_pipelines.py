# SPDX-License-Identifier: GPL-3.0-or-later

"""The pipelines run under an ordinary pipetask and find what the simulation put in."""

from __future__ import annotations

import io
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from democam.camera import AMPLIFIERS, DETECTORS
from democam.make_repo import DEFAULT_DAY
from democam.simulate import DetectorModel, true_best_focus
from lsst.daf.butler import Butler
from PIL import Image

RunPipetask = Callable[..., subprocess.CompletedProcess[str]]


def size_of_png(content: bytes) -> tuple[int, int]:
    """Return width and height of a PNG, which must be whole and show more than a blank page."""
    with Image.open(io.BytesIO(content)) as image:
        assert image.format == "PNG"
        image.load()
        assert len(image.getcolors(maxcolors=2**24)) > 100
        return image.size


def test_bias_finds_level_noise_and_hot_pixels(repo: Path, seed: int, bias_run: str) -> None:
    with Butler.from_config(str(repo), collections=bias_run, instrument="DemoCam") as butler:
        for detector in DETECTORS:
            truth = DetectorModel.build(seed, detector.id)
            metrics = butler.get("biasMetrics", detector=detector.id)
            assert metrics["n_exposures"] == 4
            assert metrics["hot_pixels"] == len(truth.hot_pixels)
            assert metrics["rejected_pixels"] > 10  # cosmic rays
            for amp, level, noise in zip(AMPLIFIERS, truth.levels, truth.read_noise, strict=True):
                found = metrics["amplifiers"][amp.name]
                assert found["read_noise_electron"] == pytest.approx(noise, rel=0.02)
                assert found["overscan_level_adu"] == pytest.approx(level, abs=4.0)
            bias = butler.get("bias", detector=detector.id)
            residual = bias.array - truth.structure
            assert abs(residual.mean()) < 0.1
            # No cosmic ray, of at least 270 ADU, survives in the mean of four.
            assert np.abs(residual).max() < 30.0
        assert size_of_png(butler.get("biasQuickLook")) == (1240, 702)


def test_results_can_be_retrieved_as_files(repo: Path, bias_run: str, tmp_path: Path) -> None:
    with Butler.from_config(str(repo), collections=bias_run) as butler:
        refs = [
            ref for name in ("bias", "biasMetrics", "biasQuickLook") for ref in butler.query_datasets(name)
        ]
        files = butler.retrieveArtifacts(refs, str(tmp_path), preserve_path=False)
    endings = sorted(file.getExtension() for file in files)
    assert endings == [".fits", ".fits", ".png", ".yaml", ".yaml"]


def test_flat_finds_the_gain(repo: Path, seed: int, bias_run: str, pipetask: RunPipetask) -> None:
    query = ("-d", "exposure.observation_type = 'flat'")
    done = pipetask("flat", "u/test/flat", *query, inputs=f"{bias_run},DemoCam/raw/all")
    assert done.returncode == 0, done.stderr
    with Butler.from_config(str(repo), collections="u/test/flat", instrument="DemoCam") as butler:
        for detector in DETECTORS:
            data_id = {"detector": detector.id, "physical_filter": "r_demo"}
            gains = butler.get("flatMetrics", data_id)["gain_electron_per_adu"]
            assert gains == pytest.approx({amp.name: amp.gain for amp in AMPLIFIERS}, rel=0.03)
            flat = butler.get("flat", data_id).array
            assert flat.mean() == pytest.approx(1.0, abs=0.01)
            # In electrons the amplifiers agree, and what is left is the response of the pixels.
            for amp in AMPLIFIERS:
                flat[:, amp.image] *= amp.gain
            ratio = flat / DetectorModel.build(seed, detector.id).response
            assert np.std(ratio / ratio.mean()) < 0.01
        assert size_of_png(butler.get("flatQuickLook", physical_filter="r_demo")) == (1240, 702)


def test_focus_sweep_finds_the_focus(repo: Path, seed: int, pipetask: RunPipetask) -> None:
    done = pipetask("focusSweep", "u/test/focus", "-d", "exposure.observation_type = 'focus'")
    assert done.returncode == 0, done.stderr
    data_id = {"instrument": "DemoCam", "group": f"{DEFAULT_DAY}-focus"}
    with Butler.from_config(str(repo), collections="u/test/focus") as butler:
        metrics = butler.get("focusSweepMetrics", data_id)
        assert metrics["unit"] == "mm"
        truth = true_best_focus(seed, DEFAULT_DAY)
        assert abs(metrics["best_focus"] - truth) < 4.0 * metrics["best_focus_err"]
        assert size_of_png(butler.get("focusSweepPlot", data_id)) == (1120, 880)


def test_broken_fails_on_one_detector_and_says_why(pipetask: RunPipetask) -> None:
    done = pipetask(
        "broken", "u/test/broken", "-d", "exposure.observation_type = 'bias' AND exposure.seq_num < 3"
    )
    assert done.returncode == 1
    assert "ValueError: Detector 1 of exposure DC_O_20261120_000001 cannot be processed" in done.stderr
    assert "Executed 2 quanta successfully, 2 failed and 0 remain out of total 4 quanta" in done.stderr


def test_slow_takes_the_time_it_is_given(repo: Path, pipetask: RunPipetask) -> None:
    query = ("-d", "exposure.seq_num = 1 AND detector = 0", "-c", "slow:duration=0.3")
    done = pipetask("slow", "u/test/slow", *query)
    assert done.returncode == 0, done.stderr
    assert "DC_O_20261120_000001: step 4 of 4." in done.stderr
    with Butler.from_config(str(repo), collections="u/test/slow", instrument="DemoCam") as butler:
        metrics = butler.get("slowMetrics", exposure=DEFAULT_DAY * 100_000 + 1, detector=0)
    assert metrics["duration_s"] >= 0.3


def test_one_quantum_is_one_quantum(repo: Path, pipetask: RunPipetask) -> None:
    done = pipetask("oneQuantum", "u/test/one", "-c", "oneQuantum:value=7")
    assert done.returncode == 0, done.stderr
    assert "QuantumGraph contains 1 quantum for 1 task" in done.stderr
    with Butler.from_config(str(repo), collections="u/test/one") as butler:
        assert butler.get("oneQuantumMetrics", instrument="DemoCam") == {"value": 7}


def test_a_night_without_data_gives_an_empty_graph(pipetask: RunPipetask) -> None:
    done = pipetask("bias", "u/test/empty", "-d", "exposure.day_obs = 19990101")
    assert "QuantumGraph was empty" in done.stderr, done.returncode


def test_a_flat_without_bias_says_what_is_missing(pipetask: RunPipetask) -> None:
    done = pipetask("flat", "u/test/nobias", "-d", "exposure.observation_type = 'flat'")
    assert done.returncode != 0
    assert "bias" in done.stderr


def test_a_task_that_crashes_takes_pipetask_with_it(pipetask: RunPipetask) -> None:
    done = pipetask("misbehave", "u/test/segfault", "-c", "misbehave:how=segfault")
    assert done.returncode == -signal.SIGSEGV
