#!/usr/bin/env python
# SPDX-License-Identifier: GPL-3.0-or-later
"""SAL script for the ScriptQueue; see lsst.dm.OCPS.script.run_pipeline."""

import asyncio

from lsst.dm.OCPS.script.run_pipeline import RunPipeline

asyncio.run(RunPipeline.amain())
