# SPDX-License-Identifier: GPL-3.0-or-later
"""Values of parameters: what is said of one that is out of range."""

from __future__ import annotations

import re
from typing import Any

import pytest
from lsst.dm.OCPS.jobs.errors import RequestError
from lsst.dm.OCPS.jobs.parameters import Parameter, check_parameters


@pytest.mark.parametrize(
    ("options", "value", "words"),
    [
        (
            {"type": "int", "min": 20_000_100, "max": 20_991_231},
            "1",
            "1 is not between 20000100 and 20991231",
        ),
        ({"type": "int", "min": 20_000_100}, "1", "1 is not 20000100 or more"),
        ({"type": "float", "max": 0.5, "unit": "s"}, "1e-1000", ""),
        ({"type": "float", "max": 0.5, "unit": "s"}, "12345678.25", "12345678.25 is not 0.5 s or less"),
        ({"type": "float", "min": 0}, "-1e300", "-1e+300 is not 0 or more"),
    ],
)
def test_a_value_out_of_range_is_refused_in_plain_numbers(
    options: dict[str, Any], value: str, words: str
) -> None:
    parameter = Parameter("x", **options)
    if not words:
        check_parameters([parameter], {"x": value})
        return
    with pytest.raises(RequestError, match=re.escape(words)):
        check_parameters([parameter], {"x": value})
