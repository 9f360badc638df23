# This file is part of dm_OCPS.
#
# Developed for the Vera C. Rubin Observatory.
# License: GPL-3.0-or-later; see COPYRIGHT and LICENSE at the top of the repository.
"""Butlers that are opened before a job comes, and cloned in it.

Loaded by path by ``zygote.py``.
"""

from __future__ import annotations


class Butlers:
    """The Butlers of one repository.

    Parameters
    ----------
    repo : `str`
        The repository, as jobs name it.
    """

    def __init__(self, repo: str) -> None:
        self.repo = repo

    def needed(self) -> bool:
        """Whether there is something to open."""
        return False

    def open(self) -> None:
        """Open them."""

    def offer(self) -> None:
        """Let this process, a forked one, have them."""
