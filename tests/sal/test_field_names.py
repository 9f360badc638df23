# SPDX-License-Identifier: GPL-3.0-or-later
"""What the engine refuses is told with the field names of ``execute``."""

from __future__ import annotations

import pytest
from lsst.dm.OCPS.jobs.errors import QueueFullError, RequestError
from lsst.dm.OCPS.sal.answers import refusals
from lsst.ts import salobj


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (RequestError("no such job: 'x'", "prerequisites"), "prereq_jobs: no such job: 'x'"),
        (RequestError("'a' is not of the form key=value", "parameters"), "config: 'a' is not of the form"),
        (RequestError("nothing of a field"), "nothing of a field"),
        (QueueFullError("full"), "full"),
    ],
)
def test_a_refused_command_names_its_own_fields(error, text):
    with pytest.raises(salobj.ExpectedError) as caught, refusals():
        raise error
    assert str(caught.value).startswith(text)
