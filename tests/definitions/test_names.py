# SPDX-License-Identifier: GPL-3.0-or-later
"""Names in a file of definitions."""

from __future__ import annotations

from pathlib import Path

import pytest
from lsst.dm.OCPS.config import ConfigError
from lsst.dm.OCPS.definitions.files import load_definitions


def test_a_parameter_whose_name_is_a_number_is_refused_in_words(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    path.write_text("definitions: [{name: a, kind: command, argv: ['true'], parameters: {1: {}}}]")
    with pytest.raises(ConfigError, match="parameters/1: expected a text as the name"):
        load_definitions([str(path)], None)
