#!/usr/bin/env python
# SPDX-License-Identifier: GPL-3.0-or-later
"""SAL script for the ScriptQueue; see lsst.dm.OCPS.script.focus_sweep."""

import asyncio

from lsst.dm.OCPS.script.focus_sweep import FocusSweep

asyncio.run(FocusSweep.amain())
