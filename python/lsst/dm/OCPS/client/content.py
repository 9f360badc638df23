# SPDX-License-Identifier: GPL-3.0-or-later
"""The content of a result: bytes, text, JSON, table or picture."""

from __future__ import annotations

__all__ = ["Content"]

import base64
import io
import json
import mimetypes
from dataclasses import dataclass, field
from typing import Any

from .errors import ClientError

TABLE_FORMATS = {
    ".ecsv": "ascii.ecsv",
    ".csv": "ascii.csv",
    ".fits": "fits",
    ".fit": "fits",
    ".parquet": "parquet",
    ".parq": "parquet",
    ".vot": "votable",
    ".xml": "votable",
    ".txt": "ascii",
    ".dat": "ascii",
}
"""Astropy's name of the format, by the end of a file's name."""

PICTURES = ("image/png", "image/jpeg", "image/svg+xml")
"""Media types of pictures that a notebook shows."""


@dataclass(frozen=True)
class Content:
    """The content of a result; in a notebook, a picture or text shows itself.

    Parameters
    ----------
    name : `str`
        Name of the result.
    data : `bytes`
        Its bytes.
    mime_type : `str`
        Media type; guessed from the name where the server does not say.
    """

    name: str
    data: bytes = field(repr=False)
    mime_type: str = ""

    def __post_init__(self) -> None:
        if not self.mime_type:
            guessed = mimetypes.guess_type(self.name)[0] or "application/octet-stream"
            object.__setattr__(self, "mime_type", guessed)

    def text(self) -> str:
        """Return it as text, which is UTF-8.

        Raises
        ------
        ClientError
            If it is not.
        """
        try:
            return self.data.decode()
        except UnicodeDecodeError:
            raise ClientError(f"{self.name} is not text ({self.mime_type})") from None

    def json(self) -> Any:
        """Return what it holds as JSON.

        Raises
        ------
        ClientError
            If it is not JSON.
        """
        try:
            return json.loads(self.data)
        except (ValueError, RecursionError):
            raise ClientError(f"{self.name} is not JSON ({self.mime_type})") from None

    def table(self, **options: Any) -> Any:
        """Return it as an `astropy.table.Table`.

        Parameters
        ----------
        **options
            For `astropy.table.Table.read`: ``format`` where the name does
            not say it.

        Raises
        ------
        ClientError
            If astropy is not installed, or cannot read it.
        """
        try:
            from astropy.table import Table
        except ImportError:
            raise ClientError("Tables are read with astropy, which is not installed") from None
        suffix = f".{self.name.rpartition('.')[2].lower()}"
        options.setdefault("format", TABLE_FORMATS.get(suffix))
        try:
            return Table.read(io.BytesIO(self.data), **options)
        except Exception as error:
            # Each format has errors of its own.
            reason = " ".join(str(error).split())[:300]
            raise ClientError(f"{self.name} cannot be read as a table: {reason}") from None

    def picture(self) -> Content:
        """Return it, as a notebook shows it.

        Raises
        ------
        ClientError
            If it is not a picture that a notebook can show.
        """
        if self.mime_type not in PICTURES:
            raise ClientError(f"{self.name} is not a picture ({self.mime_type})")
        return self

    def _repr_mimebundle_(self, **_: Any) -> dict[str, str]:
        """Return what a notebook shows."""
        if self.mime_type == "image/svg+xml":
            # As a picture, in which no program of it is run.
            source = base64.b64encode(self.data).decode()
            return {"text/html": f'<img src="data:image/svg+xml;base64,{source}"/>', "text/plain": repr(self)}
        if self.mime_type in PICTURES:
            return {self.mime_type: base64.b64encode(self.data).decode(), "text/plain": repr(self)}
        return {"text/plain": repr(self)}
