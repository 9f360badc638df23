# SPDX-License-Identifier: GPL-3.0-or-later
"""What tests must know of the generation of SAL: salobj 6 on DDS, or salobj 8 on Kafka.

The installed salobj decides. ``lsst.dm.OCPS.sal.compat`` has the differences
that matter to OCPS itself.
"""

from __future__ import annotations

__all__ = ["BUS_VARIABLE", "ON_KAFKA", "ScriptState", "only_on_dds", "write_common_files"]

from pathlib import Path

import pytest
import yaml
from lsst.dm.OCPS.sal.compat import SALOBJ_MAJOR

ON_KAFKA = SALOBJ_MAJOR >= 7

BUS_VARIABLE = "LSST_TOPIC_SUBNAME" if ON_KAFKA else "LSST_DDS_PARTITION_PREFIX"
"""The environment variable that keeps programs on the bus apart."""

only_on_dds = pytest.mark.skipif(ON_KAFKA, reason="salobj 8 has no DDS")

if ON_KAFKA:
    from lsst.ts.xml.enums.Script import ScriptState
else:
    from lsst.ts.idl.enums.Script import ScriptState


def write_common_files(folder: Path, **labels: str) -> None:
    """Write the files that a folder of configurations must have beside these.

    Parameters
    ----------
    folder : `pathlib.Path`
        The folder.
    **labels : `str`
        Labels of salobj 6 and the files that they mean. salobj 8 has none.
    """
    (folder / "_init.yaml").write_text("{}\n")
    if not ON_KAFKA:
        (folder / "_labels.yaml").write_text(yaml.safe_dump(labels))
