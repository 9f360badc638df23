# SPDX-License-Identifier: GPL-3.0-or-later
"""Specs: what a backend must run, as one frozen model per kind of job.

A definition makes a spec from a request; the backend that declares the kind
runs it. The engine stores specs, and has no code for particular kinds.
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

    A subclass declares its kind, ``kind: Literal["mine"] = "mine"``, by which
    it is found when a stored job is read. All fields must be JSON types, so
    that they can be stored.

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
        """Return the spec that was stored as ``document``; of another class if its form is an older one."""
        return cls.model_validate(document)

    @classmethod
    def of(cls, spec: Spec | None) -> Self:
        """Return ``spec`` if it is of this class.

        Raises
        ------
        BackendError
            If it is of another class.
        """
        if not isinstance(spec, cls):
            kind = spec.kind if spec else "none"
            raise BackendError(
                f"the stored spec cannot be read (expected a {cls.__name__}, found kind {kind})"
            )
        return spec

    def document(self) -> dict[str, Any]:
        """Return the spec as it is stored: a JSON object."""
        return self.model_dump(mode="json")


class UnreadSpec(Spec):
    """A stored spec whose model is not installed, or does not fit.

    It keeps the stored document until a program that has the model reads it.
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
