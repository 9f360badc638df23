# SPDX-License-Identifier: GPL-3.0-or-later
"""``ocps``: OCPS from a terminal."""

__all__ = ["main"]

from .main import main
