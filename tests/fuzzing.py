# SPDX-License-Identifier: GPL-3.0-or-later
"""What hypothesis makes for parsers: texts, documents, and good documents with something wrong in them."""

from __future__ import annotations

__all__ = ["documents", "spoiled", "taken", "texts", "yaml_texts"]

import copy
from collections.abc import Callable, Iterator
from typing import Any

from hypothesis import strategies as st

texts = st.one_of(
    st.text(max_size=40),
    # Lone surrogates too: they come from JSON and from file names.
    st.text(st.characters(categories=["Cs", "L", "P", "Cc"]), max_size=20),
    st.sampled_from(
        ["", "-", "--", "~", "$", "${", "\0", "..", "/", "x" * 5000, "²", "١", "{", "{{a}", "%s"]
    ),
)

_numbers = st.one_of(
    st.integers(),
    st.floats(),
    st.sampled_from([10**400, -(10**400), 2**63, 2**31, -1, 0]),
)

documents: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | _numbers | texts | st.binary(max_size=8) | st.dates() | st.datetimes(),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(texts | st.integers() | st.none() | st.booleans(), inner, max_size=3)
    ),
    max_leaves=8,
)
"""Whatever YAML can hold."""

yaml_texts = st.one_of(
    st.text(max_size=60),
    st.text(st.sampled_from("[]{}:,-&*!|>#'\"\n\t %?ab01."), max_size=60),
    st.sampled_from(
        [
            "[" * 5000,
            "a: " + "9" * 5000,
            "2026-99-99",
            "!!python/object/apply:os.system [id]",
            "!!timestamp x",
            "!!int x",
            "!!float ''",
            "!!binary '*'",
            "&a [*a]",
            "? {a: b}\n: c",
            "? [a]\n: c",
            "<<: 1",
            "a: 1\na: 2",
            "---\na\n---\nb",
            "%YAML 9.9\n---\na",
            "\ufeffa: b",
            ".inf: .nan",
            "=",
            "a: =",
        ]
    ),
)
"""What looks like YAML, and where parsers of it are known to stumble."""


def _places(document: Any, place: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Return the way to each value of a document."""
    yield place
    if isinstance(document, dict):
        for key, value in document.items():
            yield from _places(value, (*place, key))
    elif isinstance(document, list):
        for index, value in enumerate(document):
            yield from _places(value, (*place, index))


@st.composite
def spoiled(draw: st.DrawFn, good: Any) -> Any:
    """Take a good document and replace, remove or add one to three values."""
    document = copy.deepcopy(good)
    for _ in range(draw(st.integers(1, 3))):
        place = draw(st.sampled_from(list(_places(document))))
        if not place:
            continue
        holder = document
        for key in place[:-1]:
            holder = holder[key]
        action = draw(st.sampled_from(["replace", "replace", "replace", "remove", "add"]))
        if action == "remove":
            del holder[place[-1]]
        elif action == "add" and isinstance(holder, dict):
            holder[draw(texts | st.integers() | st.none())] = draw(documents)
        else:
            holder[place[-1]] = draw(documents)
    return document


def taken(parse: Callable[[], Any], refusal: type[Exception]) -> tuple[Any, str]:
    """Return what a parser makes of its input, or in words why it was refused; no other error is caught."""
    try:
        return parse(), ""
    except refusal as error:
        words = str(error)
        assert words
        assert len(words) < 20_000
        return None, words
