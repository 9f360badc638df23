# SPDX-License-Identifier: GPL-3.0-or-later
"""A cache of the installed distributions and their versions, shared by all jobs.

Loaded by path by ``main.py``. Each pipeline records the packages that it
used. To find their versions it reads the metadata of every installed
distribution, which takes 0.1 s and has the same result until something is
installed or removed.
"""

from __future__ import annotations

import importlib.metadata
import sys
from pathlib import Path
from typing import Any

_FILES = ("METADATA", "PKG-INFO", "RECORD", "top_level.txt")


class InstalledPackages:
    """The distributions on this interpreter's module search path."""

    def __init__(self) -> None:
        self._names: dict[str, list[str]] = {}
        self._versions: dict[str, str] = {}

    def scan(self) -> list[str]:
        """Read which distributions are installed.

        Returns
        -------
        files : `list` [`str`]
            The files and directories that were read; when one of them
            changes, the cache is out of date.
        """
        files = []
        self._names = dict(importlib.metadata.packages_distributions())
        for distribution in importlib.metadata.distributions():
            self._versions.setdefault(distribution.metadata["Name"], distribution.version)
            folder = Path(str(getattr(distribution, "_path", "")))
            files += [str(folder), *(str(folder / name) for name in _FILES)]
        return files

    def install(self) -> None:
        """Make `lsst.utils.packages` and `importlib.metadata` use the cache in this forked process."""
        packages: Any = sys.modules.get("lsst.utils.packages")
        if not hasattr(packages, "packages_distributions"):
            return
        # A pipeline may extend the search path; then the cache is not used.
        path = list(sys.path)
        find_names, find_version = packages.packages_distributions, importlib.metadata.version

        def packages_distributions() -> Any:
            return dict(self._names) if sys.path == path else find_names()

        def version(distribution_name: str) -> str:
            known = self._versions.get(distribution_name) if sys.path == path else None
            return find_version(distribution_name) if known is None else known

        packages.packages_distributions = packages_distributions
        importlib.metadata.version = version
