# SPDX-License-Identifier: GPL-3.0-or-later
"""Errors that observing scripts get."""

from __future__ import annotations

__all__ = ["OcpsError", "RefusedError", "UnavailableError"]


class OcpsError(RuntimeError):
    """Something went wrong with OCPS."""


class RefusedError(OcpsError):
    """OCPS refused a command; the message says why."""


class UnavailableError(OcpsError):
    """OCPS is not running or not ENABLED."""
