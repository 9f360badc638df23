# SPDX-License-Identifier: GPL-3.0-or-later
"""What a backend is to run: one frozen model per kind of job.

A definition makes a spec of a request; the backend that declares its kind
runs it. The engine stores specs and knows no kind by name.
"""

from __future__ import annotations

__all__ = ["Spec", "UnreadSpec", "read_spec"]

from collections.abc import Mapping
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, ValidationError

from .errors import BackendError

_kinds: dict[str, type[Spec]] = {}


class Spec(BaseModel):
    """Base of all specs.

    A subclass names its kind, and is then found by it when a stored job is
    read: ``kind: Literal["mine"] = "mine"``. All fields must be JSON types,
    so that they can be stored.

    Parameters
    ----------
    kind : `str`
        The kind of job.
    """

    model_config = ConfigDict(frozen=True)

    kind: str

    @classmethod
    def __pydantic_init_subclass__(cls, **_: Any) -> None:
        kind = cls.model_fields["kind"].default
        if isinstance(kind, str):
            _kinds[kind] = cls

    @classmethod
    def read(cls, document: Mapping[str, Any]) -> Spec:
        """Return the spec that was stored as ``document``; of another class if its form has changed."""
        return cls.model_validate(document)

    @classmethod
    def of(cls, spec: Spec | None) -> Self:
        """Return ``spec``, which must be of this class.

        Raises
        ------
        BackendError
            If it is not.
        """
        if not isinstance(spec, cls):
            kind = spec.kind if spec else "none"
            raise BackendError(f"what it is to run cannot be read (a {cls.__name__} of kind {kind})")
        return spec

    def document(self) -> dict[str, Any]:
        """Return the spec as it is stored: a JSON object."""
        return self.model_dump(mode="json")


class UnreadSpec(Spec):
    """A spec whose model is not there, or does not fit what was stored.

    It holds what was stored, until a program that knows it reads it.
    """

    model_config = ConfigDict(frozen=True, extra="allow")


def read_spec(document: Mapping[str, Any] | Spec | None) -> Spec | None:
    """Return the spec that was stored as ``document``; `None` for a job that has none yet."""
    if document is None or isinstance(document, Spec):
        return document
    if not document:
        return None
    kind = _kinds.get(str(document.get("kind")))
    try:
        return kind.read(document) if kind else UnreadSpec(**document)
    except ValidationError:
        return UnreadSpec(**document)
