# SPDX-License-Identifier: GPL-3.0-or-later
"""Reading YAML files that people write."""

from __future__ import annotations

__all__ = ["MAX_VALUES", "parse_yaml", "read_yaml"]

from pathlib import Path
from typing import Any

import yaml

from .config import ConfigError

MAX_VALUES = 200_000
"""How many values a file may hold, with each alias counted as what it stands for."""


def read_yaml(path: Path) -> Any:
    """Read a YAML file.

    Parameters
    ----------
    path : `pathlib.Path`
        The file, in UTF-8.

    Returns
    -------
    document : `object`
        What it holds.

    Raises
    ------
    ConfigError
        If it cannot be read, is not YAML, contains itself by an alias, or is
        too large. The text names the file.
    """
    try:
        return parse_yaml(path.read_text(encoding="utf-8"))
    except (ConfigError, OSError, ValueError) as error:
        raise ConfigError(f"{path}: {_one_line(error)}") from None


def parse_yaml(text: str) -> Any:
    """Return what a YAML text holds.

    Raises
    ------
    ConfigError
        As `read_yaml`.
    """
    try:
        document = yaml.safe_load(text)
    except RecursionError:
        raise ConfigError("not YAML: nested too deeply") from None
    except Exception as error:
        # Not only YAMLError: values with a wrong tag or out of range raise whatever Python does.
        raise ConfigError(f"not YAML: {_one_line(error)}") from None
    if _count(document, set(), {}) > MAX_VALUES:
        raise ConfigError(f"more than {MAX_VALUES} values")
    return document


def _count(value: Any, above: set[int], known: dict[int, int]) -> int:
    """Return how many values there are in a value, itself among them; aliases count each time."""
    if not isinstance(value, (dict, list)):
        return 1
    identity = id(value)
    if identity in above:
        raise ConfigError("an alias stands for something that contains it")
    if identity not in known:
        above.add(identity)
        inner = [*value.keys(), *value.values()] if isinstance(value, dict) else value
        known[identity] = 1 + sum(_count(item, above, known) for item in inner)
        above.remove(identity)
    return known[identity]


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:1000] or type(error).__name__
