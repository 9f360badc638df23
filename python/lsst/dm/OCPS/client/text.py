# SPDX-License-Identifier: GPL-3.0-or-later
"""Text from servers, made safe for terminals and logs."""

from __future__ import annotations

__all__ = ["one_line", "printable"]


def printable(text: str) -> str:
    """Replace control characters, of escape sequences for example; line breaks and tabs stay."""
    if text.isprintable():
        return text
    return "".join(
        character if character.isprintable() or character in "\n\t" else "\N{REPLACEMENT CHARACTER}"
        for character in text
    )


def one_line(text: str, length: int = 500) -> str:
    """Return at most ``length`` characters of a text in one line without control characters."""
    return printable(" ".join(text[: 4 * length].split()))[:length]
