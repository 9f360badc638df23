# SPDX-License-Identifier: GPL-3.0-or-later
"""The name and version of the program in the head of each answer."""

from __future__ import annotations

__all__ = ["sign"]

from aiohttp import web
from multidict import istr

from ..version import __version__

_SERVER = istr("Server")
# Proxies replace Server by their own name.
_OCPS = istr("X-OCPS")
_PROGRAM = f"OCPS/{__version__}"


def sign(response: web.StreamResponse) -> None:
    """Name the program in the head of an answer, which must not have been sent yet."""
    headers = response.headers
    headers[_SERVER] = _PROGRAM
    headers[_OCPS] = __version__
