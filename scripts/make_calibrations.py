#!/usr/bin/env python
# SPDX-License-Identifier: GPL-3.0-or-later
"""SAL script for the ScriptQueue; see lsst.dm.OCPS.script.make_calibrations."""

import asyncio

from lsst.dm.OCPS.script.make_calibrations import MakeCalibrations

asyncio.run(MakeCalibrations.amain())
