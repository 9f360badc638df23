# This file is part of dm_OCPS.
#
# Developed for the Vera C. Rubin Observatory.
# License: GPL-3.0-or-later; see COPYRIGHT and LICENSE at the top of the repository.
"""Benchmarks: ``python -m benchmarks.NAME --json``; the last line is one JSON object."""
