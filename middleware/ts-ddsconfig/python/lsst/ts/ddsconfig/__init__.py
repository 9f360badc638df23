# SPDX-License-Identifier: GPL-3.0-or-later

"""The file with the quality of service of SAL's topics."""

import pathlib

__all__ = ["get_pkg_root", "get_qos_path"]


def get_pkg_root() -> pathlib.Path:
    """Return the directory of this package."""
    return pathlib.Path(__file__).resolve().parent


def get_qos_path() -> pathlib.Path:
    """Return the path of the file with the QoS profiles."""
    return get_pkg_root() / "data" / "qos" / "QoS.xml"
