# This file is part of dm_OCPS.
#
# Developed for the Vera C. Rubin Observatory.
# License: GPL-3.0-or-later; see COPYRIGHT and LICENSE at the top of the repository.
"""The JSON dialect of Rubin's services: ``/api/v1/job``."""

from __future__ import annotations

__all__ = ["routes"]

from aiohttp import web


def routes(path: str) -> list[web.RouteDef]:
    return []
