# This file is part of dm_OCPS.
#
# Developed for the Vera C. Rubin Observatory.
# License: GPL-3.0-or-later; see COPYRIGHT and LICENSE at the top of the repository.
"""The version; ``setup.cfg`` reads it from here."""

__all__ = ["__version__"]

__version__ = "1.0.0"
