# SPDX-License-Identifier: GPL-3.0-or-later
"""Whatever is written in the file of secrets: it is used, or refused with a `ConfigError`."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from lsst.dm.OCPS.config import ConfigError
from lsst.dm.OCPS.http import secrets_file
from lsst.dm.OCPS.http.secrets_file import SecretsFile, hash_token

from tests.fuzzing import documents, spoiled, taken, yaml_texts

GOOD = {
    "users": {
        "alice": {"password": "scrypt$14$8$1$00$00"},
        "bob": {"token": hash_token("bobs-long-token")},
    }
}

relaxed = settings(deadline=None, max_examples=150, suppress_health_check=list(HealthCheck))


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave out the one costly thing: the hash that stands in for users who do not exist."""
    monkeypatch.setattr(secrets_file, "hash_password", lambda password: "scrypt$")


def use(folder: Path, content: bytes) -> None:
    """Read a file of secrets, and look for a token in it."""
    path = folder / "secrets.yaml"
    path.touch(0o600)
    path.write_bytes(content)
    found, refused = taken(lambda: SecretsFile(str(path), logging.getLogger("quiet")), ConfigError)
    if refused:
        assert "scrypt$14" not in refused
        assert "sha256$" not in refused
    else:
        assert found.owner_of_token("x") is None


@relaxed
@given(spoiled(GOOD) | documents)
@example({"users": ["alice"]})
@example({"users": {"alice": 3}})
@example({"users": {"alice": {"token": 3}}})
@example({"users": {"alice": {"password": ["scrypt"]}}})
def test_a_file_of_secrets_is_used_or_refused(
    tmp_path_factory: pytest.TempPathFactory, document: Any
) -> None:
    use(tmp_path_factory.getbasetemp(), yaml.safe_dump(document, allow_unicode=False).encode())


@relaxed
@given(yaml_texts.map(lambda text: text.encode(errors="surrogatepass")) | st.binary(max_size=40))
@example(b"users: " + b"[" * 5000)
@example(b"users: {a: {token: !!timestamp x}}")
def test_what_is_no_yaml_is_refused_as_secrets(
    tmp_path_factory: pytest.TempPathFactory, content: bytes
) -> None:
    use(tmp_path_factory.getbasetemp(), content)
