# SPDX-License-Identifier: GPL-3.0-or-later
"""Command lines as they may be shown: without what looks like a secret."""

from __future__ import annotations

__all__ = ["HIDDEN", "SECRET_NAME", "hide_in_argv", "hide_values"]

import re
from collections.abc import Iterable, Mapping

HIDDEN = "***"
"""What is shown instead of a secret."""

SECRET_NAME = re.compile(r"PASS|SECRET|TOKEN|CREDENTIAL|PRIVATE|API_?KEY", re.IGNORECASE)
"""What the name of a secret has in it."""

_NAME = r"(?:\w|-)*(?:PASS|SECRET|TOKEN|CREDENTIAL|PRIVATE|API[_-]?KEY)(?:\w|-)*"
_VALUE = r"(\"[^\"]*\"|'[^']*'|\S+)"
_NAMED = re.compile(rf"({_NAME}\s*[=:]\s*){_VALUE}", re.IGNORECASE)
_OPTION = re.compile(rf"(-{_NAME}\s+){_VALUE}", re.IGNORECASE)
_AUTHORIZATION = re.compile(r"(\b(?:Bearer|Basic)\s+)([^\s'\"]+)", re.IGNORECASE)
_IN_URL = re.compile(r"(\w://[^/\s@:]*:)([^/\s@]+)(?=@)")


def hide_values(values: Mapping[str, str]) -> dict[str, str]:
    """Return values without those whose name is that of a secret."""
    return {name: HIDDEN if value and SECRET_NAME.search(name) else value for name, value in values.items()}


def hide_in_argv(words: Iterable[str]) -> tuple[str, ...]:
    """Return the words of a command line without what looks like a secret.

    That is the value of an option or variable with such a name, the password
    in a URL, and what follows ``Bearer`` or ``Basic``.
    """
    shown = []
    secret_next = False
    for word in words:
        if secret_next and not word.startswith("-"):
            shown.append(HIDDEN)
            secret_next = False
            continue
        secret_next = word.startswith("-") and bool(SECRET_NAME.search(word.replace("-", "_")))
        # One that brings its value along.
        secret_next = secret_next and "=" not in word and " " not in word
        for pattern in (_IN_URL, _AUTHORIZATION, _NAMED, _OPTION):
            word = pattern.sub(rf"\1{HIDDEN}", word)
        shown.append(word)
    return tuple(shown)
