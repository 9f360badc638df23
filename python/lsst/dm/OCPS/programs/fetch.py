# SPDX-License-Identifier: GPL-3.0-or-later
"""Fetch a file that a parameter gives by reference.

    python -I fetch.py URL FILE MAX_BYTES GLOB ...

The globs say from where; a redirection to elsewhere is refused too.
"""

from __future__ import annotations

import fnmatch
import os
import sys
import urllib.error
import urllib.request
from http.client import HTTPMessage
from typing import IO

TIMEOUT = 60.0
"""How long (s) the other side may be silent."""


class _Redirections(urllib.request.HTTPRedirectHandler):
    def __init__(self, globs: list[str]) -> None:
        self.globs = globs

    def redirect_request(
        self,
        req: urllib.request.Request,
        fp: IO[bytes],
        code: int,
        msg: str,
        headers: HTTPMessage,
        newurl: str,
    ) -> urllib.request.Request | None:
        check(newurl, self.globs)
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def check(url: str, globs: list[str]) -> None:
    """Refuse an address that no glob matches."""
    if not url.startswith(("http://", "https://")):
        raise ValueError(f"{url}: only http:// and https:// can be fetched")
    if not any(fnmatch.fnmatchcase(url, glob) for glob in globs):
        raise ValueError(f"{url} is not allowed; allowed are: {', '.join(globs)}")


def fetch(url: str, path: str, max_bytes: int, globs: list[str]) -> None:
    """Write what is at ``url`` into the file ``path``."""
    check(url, globs)
    os.makedirs(os.path.dirname(path), exist_ok=True)
    opener = urllib.request.build_opener(_Redirections(globs))
    with opener.open(url, timeout=TIMEOUT) as answer, open(path, "wb") as file:
        while block := answer.read(1 << 16):
            file.write(block)
            if file.tell() > max_bytes:
                raise ValueError(f"{url} is longer than {max_bytes} bytes")


def main() -> int:
    """Run from the command line."""
    url, path, max_bytes, *globs = sys.argv[1:]
    try:
        fetch(url, path, int(max_bytes), globs)
    except (OSError, ValueError) as error:
        print(f"{url} could not be fetched: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
