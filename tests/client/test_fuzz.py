# SPDX-License-Identifier: GPL-3.0-or-later
"""Whatever is written in the file of profiles: it is used, or refused with a `ProfileError`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from lsst.dm.OCPS.client.profiles import ProfileError, find_profile, profiles_path

from tests.fuzzing import spoiled, taken, texts

GOOD = {
    "default": "summit",
    "profiles": {
        "summit": {"url": "https://ocps.example", "token_file": "~/token", "ca_file": "~/ca.pem"},
        "local": {"url": "http://localhost:8080", "token_env": "LOCAL_OCPS_TOKEN"},
    },
}


def toml(value: Any) -> str:
    """Write a value in TOML; what has no form there becomes a text."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{json.dumps(str(key))} = {toml(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list):
        return f"[{', '.join(map(toml, value))}]"
    if isinstance(value, bool | int | float | str):
        return json.dumps(value).replace("NaN", "nan").replace("Infinity", "inf")
    return json.dumps(str(value))


def use(folder: Path, content: bytes, name: str) -> None:
    """Look for a profile in a file with this content."""
    environ = {"XDG_CONFIG_HOME": str(folder), "LOCAL_OCPS_TOKEN": "secret"}
    path = profiles_path(environ)
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(content)
    profile, refused = taken(lambda: find_profile("", name, environ), ProfileError)
    assert refused or isinstance(profile.url, str)
    assert "secret" not in refused


relaxed = settings(deadline=None, max_examples=150, suppress_health_check=list(HealthCheck))
names = st.sampled_from(["", "summit", "local", "nobody"])


@relaxed
@given(spoiled(GOOD), names)
@example({"profiles": {"local": {"url": "x", "token_file": "a\0b"}}}, "local")
@example({"profiles": {"local": {"url": "x", "ca_file": "~no-such-user/x"}}}, "local")
@example({"profiles": {"local": {"url": "x", "token_file": "~no-such-user/x"}}}, "local")
@example({"profiles": {"local": {"url": "x", "token_file": "x" * 300}}}, "local")
@example({"profiles": 3}, "local")
@example({"default": ["x"]}, "")
def test_profiles_are_used_or_refused(
    tmp_path_factory: pytest.TempPathFactory, document: dict[str, Any], name: str
) -> None:
    lines = [f"{json.dumps(str(key))} = {toml(value)}" for key, value in document.items()]
    use(tmp_path_factory.getbasetemp(), "\n".join(lines).encode(errors="replace"), name)


@relaxed
@given(texts.map(lambda text: text.encode(errors="surrogatepass")) | st.binary(max_size=30), names)
@example(b"a = " + b"[" * 5000, "")
@example(b"a = " + b"9" * 5000, "")
@example(b"a = 2026-99-99", "")
def test_what_is_no_toml_is_refused(
    tmp_path_factory: pytest.TempPathFactory, content: bytes, name: str
) -> None:
    use(tmp_path_factory.getbasetemp(), content, name)
