# SPDX-License-Identifier: GPL-3.0-or-later
"""The version; ``setup.cfg`` reads it from here."""

__all__ = ["__version__"]

__version__ = "1.0.0"
