# This file is part of dm_OCPS.
#
# Developed for the Vera C. Rubin Observatory.
# License: GPL-3.0-or-later; see COPYRIGHT and LICENSE at the top of the repository.
"""``ocps``: OCPS from a terminal."""

__all__ = ["main"]

from .main import main
