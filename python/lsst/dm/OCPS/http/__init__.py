# This file is part of dm_OCPS.
#
# Developed for the Vera C. Rubin Observatory.
# License: GPL-3.0-or-later; see COPYRIGHT and LICENSE at the top of the repository.
"""The HTTP face: UWS 1.1, and the JSON dialect of Rubin's services."""
