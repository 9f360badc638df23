# SPDX-License-Identifier: GPL-3.0-or-later
"""Which distributions are installed, found out once for all jobs.

Loaded by path by ``main.py``. Each pipeline records the packages that it
used. To name their versions it reads the metadata of all that is installed,
which takes 0.1 s and gives the same as long as nothing is installed.
"""

from __future__ import annotations

import importlib.metadata
import sys
from pathlib import Path
from typing import Any

_FILES = ("METADATA", "PKG-INFO", "RECORD", "top_level.txt")


class InstalledPackages:
    """What is installed where Python looks for modules."""

    def __init__(self) -> None:
        self._names: dict[str, list[str]] = {}
        self._versions: dict[str, str] = {}

    def scan(self) -> list[str]:
        """Find out; return the files and directories that this depends on."""
        files = []
        self._names = dict(importlib.metadata.packages_distributions())
        for distribution in importlib.metadata.distributions():
            self._versions.setdefault(distribution.metadata["Name"], distribution.version)
            folder = Path(str(getattr(distribution, "_path", "")))
            files += [str(folder), *(str(folder / name) for name in _FILES)]
        return files

    def offer(self) -> None:
        """Let this process, a forked one, use what was found."""
        packages: Any = sys.modules.get("lsst.utils.packages")
        if not hasattr(packages, "packages_distributions"):
            return
        # Code of the user may look for modules in further places.
        path = list(sys.path)
        find_names, find_version = packages.packages_distributions, importlib.metadata.version

        def packages_distributions() -> Any:
            return dict(self._names) if sys.path == path else find_names()

        def version(distribution_name: str) -> str:
            known = self._versions.get(distribution_name) if sys.path == path else None
            return find_version(distribution_name) if known is None else known

        packages.packages_distributions = packages_distributions
        importlib.metadata.version = version
