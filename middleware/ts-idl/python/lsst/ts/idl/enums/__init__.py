# SPDX-License-Identifier: GPL-3.0-or-later

"""Enumerations of SAL components, one module for each."""

from . import OCPS, Script, ScriptQueue, Test

__all__ = ["OCPS", "Script", "ScriptQueue", "Test"]
