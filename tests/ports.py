# SPDX-License-Identifier: GPL-3.0-or-later
"""A TCP port for a program that cannot be told to choose one itself."""

from __future__ import annotations

__all__ = ["free_port"]

import os
import random
import re
import socket

RANGE = (20_000, 32_000)
"""Below the ports that Linux gives to clients: no connection takes one before the program has it."""


def free_port() -> int:
    """Return a free port of 127.0.0.1, another one for each worker of pytest-xdist."""
    worker = int(re.sub(r"\D", "", os.environ.get("PYTEST_XDIST_WORKER", "")) or 0)
    workers = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
    while True:
        port = random.randrange(*RANGE) // workers * workers + worker
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
