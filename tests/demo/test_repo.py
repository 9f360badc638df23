# SPDX-License-Identifier: GPL-3.0-or-later

"""Repositories are whole, reproducible, and never made over something else."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest
from democam.formatters import to_fits
from democam.image import DemoImage
from democam.instrument import DemoCam
from democam.make_repo import DEFAULT_DAY, RAW_COLLECTION, main, make_repo
from democam.observations import Plan
from lsst.daf.butler import Butler, DatasetType
from lsst.pipe.base import Instrument

SMALL = Plan(biases=1, flats=1, focus_positions=())


def contents(repo: Path) -> dict[str, tuple[str, str]]:
    """Return id and checksum of each raw by data id."""
    with Butler.from_config(str(repo), collections=RAW_COLLECTION) as butler:
        return {
            str(ref.dataId): (str(ref.id), hashlib.sha256(butler.getURI(ref).read()).hexdigest())
            for ref in butler.query_datasets("raw")
        }


def test_repository_knows_instrument_exposures_and_raws(repo: Path) -> None:
    with Butler.from_config(str(repo), collections=RAW_COLLECTION, instrument="DemoCam") as butler:
        assert isinstance(Instrument.fromName("DemoCam", butler.registry), DemoCam)
        assert len(butler.query_dimension_records("detector")) == 2
        exposures = butler.query_dimension_records("exposure")
        kinds = [record.observation_type for record in exposures]
        assert {kind: kinds.count(kind) for kind in kinds} == {"bias": 4, "flat": 3, "focus": 7}
        assert {record.day_obs for record in exposures} == {DEFAULT_DAY}
        assert len(butler.query_datasets("raw")) == 28
        raw = butler.get("raw", exposure=DEFAULT_DAY * 100_000 + 1, detector=1)
        assert raw.array.dtype == np.uint16
        assert raw.header["DETNAME"] == "R00_S01"
        assert raw.header["IMGTYPE"] == "bias"


def test_same_seed_makes_same_raws_and_another_seed_others(seed: int, tmp_path: Path) -> None:
    days = (20261120, 20261121)
    first = contents(make_repo(tmp_path / "a", days=days, seed=seed, plan=SMALL))
    assert contents(make_repo(tmp_path / "b", days=days, seed=seed, plan=SMALL)) == first
    other = contents(make_repo(tmp_path / "c", days=days, seed=seed + 1, plan=SMALL))
    assert len(first) == 8
    assert other.keys() == first.keys()
    assert not {checksum for _, checksum in first.values()} & {checksum for _, checksum in other.values()}


def test_an_existing_place_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "precious").write_text("data")
    with pytest.raises(FileExistsError, match="is not a DemoCam repository"):
        make_repo(tmp_path, exist_ok=True)
    assert [path.name for path in tmp_path.iterdir()] == ["precious"]


def test_an_existing_repository_is_kept_when_it_is_the_same(seed: int, repo: Path) -> None:
    before = (repo / "butler.yaml").stat().st_mtime_ns
    assert make_repo(repo, seed=seed, exist_ok=True) == repo
    assert (repo / "butler.yaml").stat().st_mtime_ns == before
    with pytest.raises(FileExistsError, match="use it as it is"):
        make_repo(repo, seed=seed)
    with pytest.raises(FileExistsError, match="another seed"):
        make_repo(repo, seed=seed + 1, exist_ok=True)


def test_a_failure_leaves_nothing_behind(tmp_path: Path) -> None:
    with pytest.raises(ValueError):
        make_repo(tmp_path / "deep" / "repo", days=(20261399,))
    with pytest.raises(RuntimeError, match=r"registry database cannot be used: .*nosuch"):
        make_repo(tmp_path / "repo", plan=SMALL, registry_db="nosuch://host/database")
    assert not (tmp_path / "repo").exists()
    assert list(tmp_path.iterdir()) == []


def test_command_line_says_what_is_wrong(seed: int, repo: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(repo), "--exist-ok", "--seed", str(seed)]) == 0
    assert capsys.readouterr().out.strip() == str(repo)
    assert main([str(repo)]) == 1
    assert "choose another place" in capsys.readouterr().err


def test_images_survive_a_round_trip(tmp_path: Path) -> None:
    butler_root = make_repo(tmp_path / "repo", plan=SMALL)
    with Butler.from_config(str(butler_root), run="u/test", writeable=True) as butler:
        for name, array in {
            "anyFloat": np.linspace(-1.0, 1.0, 12, dtype=np.float32).reshape(3, 4),
            "anyInteger": np.arange(65524, 65536, dtype=np.uint16).reshape(3, 4),
        }.items():
            dataset_type = DatasetType(
                name, {"instrument", "detector"}, "DemoCamImage", universe=butler.dimensions
            )
            butler.registry.registerDatasetType(dataset_type)
            header = {"INSTRUME": "DemoCam", "DETECTOR": 0, "GAIN": 1.5, "LIT": True}
            ref = butler.put(DemoImage(array, dict(header)), name, instrument="DemoCam", detector=0)
            back = butler.get(ref)
            np.testing.assert_array_equal(back.array, array)
            assert back.array.dtype == array.dtype
            assert back.header == header
            assert butler.getURI(ref).getExtension() == ".fits"


def test_what_is_no_png_is_not_stored_as_one(tmp_path: Path) -> None:
    with Butler.from_config(
        str(make_repo(tmp_path / "repo", plan=SMALL)), run="u/test", writeable=True
    ) as butler:
        dataset_type = DatasetType("anyPicture", {"instrument"}, "PngImage", universe=butler.dimensions)
        butler.registry.registerDatasetType(dataset_type)
        with pytest.raises(Exception, match="Failed to serialize") as caught:
            butler.put(b"GIF89a", "anyPicture", instrument="DemoCam")
        assert "is not a PNG image" in str(caught.value.__cause__)
        assert not butler.exists("anyPicture", instrument="DemoCam")


def test_the_same_image_is_always_the_same_file() -> None:
    image = DemoImage(np.ones((2, 3), dtype=np.float32), {"OBSID": "x"})
    assert to_fits(image) == to_fits(image)
