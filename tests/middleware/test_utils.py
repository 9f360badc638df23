# SPDX-License-Identifier: GPL-3.0-or-later

"""lsst.ts.utils."""

import os
import time

import astropy.time
import astropy.units as u
import pytest
from hypothesis import given
from hypothesis import strategies as st
from lsst.ts import utils

LEAP = astropy.time.Time("2017-01-01", scale="utc").unix  # the latest leap second was just before
angles = st.floats(-1e4, 1e4)


def test_tai_is_ahead_of_utc():
    assert utils.current_tai() == pytest.approx(time.time() + 37, abs=2)


@given(st.floats(LEAP, 1.85e9))
def test_tai_agrees_with_astropy_and_back(utc):
    tai = utils.tai_from_utc_unix(utc)
    assert utils.utc_from_tai_unix(tai) == pytest.approx(utc, abs=1e-6)
    astropy_time = utils.astropy_time_from_tai_unix(tai)
    assert astropy_time.utc.unix == pytest.approx(utc, abs=1e-5)
    assert utils.tai_from_utc(astropy_time) == pytest.approx(tai, abs=1e-5)


@pytest.mark.parametrize(
    ("seconds", "offset"), [(-86401, 36), (-86400, 36), (-43200, 36.5), (-1e-3, 37), (0, 37), (1, 37)]
)
def test_leap_second_is_spread_over_its_day(seconds, offset):
    utc = LEAP + seconds
    assert utils.tai_from_utc_unix(utc) - utc == pytest.approx(offset, abs=1e-4)


def test_utc_is_given_in_any_format():
    tai = utils.tai_from_utc_unix(LEAP + 86400)
    for utc, format in (
        ("2017-01-02", None),
        ("2017-01-02T00:00:00", "isot"),
        (57755.0, "mjd"),
        (1483315200, "unix"),
    ):
        assert utils.tai_from_utc(utc, format) == pytest.approx(tai)


def test_no_tai_before_1972():
    for function in (utils.tai_from_utc_unix, utils.utc_from_tai_unix):
        with pytest.raises(ValueError, match="1972"):
            function(0)


@given(angles, angles)
def test_angles_are_wrapped(one, two):
    for angle, low in ((utils.angle_wrap_center(one), -180), (utils.angle_wrap_nonnegative(one), 0)):
        assert low <= angle.deg < low + 360
        utils.assert_angles_almost_equal(angle, one)
    diff = utils.angle_diff(one, two)
    assert -180 <= diff.deg < 180
    utils.assert_angles_almost_equal(two * u.deg + diff, one)


def test_different_angles_are_told():
    utils.assert_angles_almost_equal(359.5, -0.5)
    utils.assert_angles_almost_equal(0, 1, max_diff=1.1)
    with pytest.raises(AssertionError, match="apart"):
        utils.assert_angles_almost_equal(0, 1)


def test_indices_begin_again():
    counter = utils.index_generator(3, 5, i0=4)
    assert [next(counter) for _ in range(5)] == [4, 5, 3, 4, 5]
    assert next(utils.index_generator()) == 1


@pytest.mark.parametrize("args", [(1, 1), (2, 1), (1, 5, 0), (1, 5, 6)])
def test_bad_range_of_indices_is_refused(args):
    with pytest.raises(ValueError, match="must be"):
        utils.index_generator(*args)


@pytest.mark.asyncio
async def test_done_future_is_done():
    assert await utils.make_done_future() is None


def test_environment_is_restored(monkeypatch):
    monkeypatch.setenv("OCPS_TEST_A", "a")
    monkeypatch.delenv("OCPS_TEST_B", raising=False)
    before = dict(os.environ)
    with utils.modify_environ(OCPS_TEST_A=None, OCPS_TEST_B="b"):
        assert "OCPS_TEST_A" not in os.environ
        assert os.environ["OCPS_TEST_B"] == "b"
    assert dict(os.environ) == before
    with pytest.raises(RuntimeError, match="OCPS_TEST_A"), utils.modify_environ(OCPS_TEST_A=1):
        pass
    assert dict(os.environ) == before
