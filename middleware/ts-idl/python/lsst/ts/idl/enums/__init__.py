# This file is part of dm_OCPS.
#
# Developed for the Vera C. Rubin Observatory.
# License: GPL-3.0-or-later; see COPYRIGHT and LICENSE at the top of the repository.

"""Enumerations of SAL components, one module for each."""

from . import OCPS, Script, ScriptQueue, Test

__all__ = ["OCPS", "Script", "ScriptQueue", "Test"]
