# SPDX-License-Identifier: GPL-3.0-or-later

"""The interfaces of SAL components: their IDL files and their enumerations."""

import pathlib

from . import enums

__all__ = ["enums", "get_data_dir", "get_idl_dir", "get_pkg_root"]


def get_pkg_root() -> pathlib.Path:
    """Return the directory of this package."""
    return pathlib.Path(__file__).resolve().parent


def get_data_dir() -> pathlib.Path:
    """Return the directory of the package's data."""
    return get_pkg_root() / "data"


def get_idl_dir() -> pathlib.Path:
    """Return the directory with the IDL files, ``sal_revCoded_<component>.idl``."""
    return get_data_dir() / "idl"
