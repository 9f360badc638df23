# SPDX-License-Identifier: GPL-3.0-or-later
"""The OCS-Controlled Pipeline System."""

from __future__ import annotations

__all__ = ["CONFIG_SCHEMA", "OcpsCsc", "__version__"]

import importlib
from typing import TYPE_CHECKING, Any

from .version import __version__

if TYPE_CHECKING:
    from .config_schema import CONFIG_SCHEMA
    from .sal.csc import OcpsCsc

_PLACES = {"CONFIG_SCHEMA": "config_schema", "OcpsCsc": "sal.csc"}


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used: the client needs neither SAL nor the schema."""
    if name in _PLACES:
        return getattr(importlib.import_module(f".{_PLACES[name]}", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
