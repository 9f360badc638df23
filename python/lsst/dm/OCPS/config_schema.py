# SPDX-License-Identifier: GPL-3.0-or-later
"""The configuration schema, under the name that configuration packages look up."""

__all__ = ["CONFIG_SCHEMA"]

from pathlib import Path

import yaml

_FOLDER = Path(__file__).parent / "schema"

CONFIG_SCHEMA = yaml.safe_load((_FOLDER / "OCPS.yaml").read_text())

# Written once, for files of job definitions and for the general definition of an instance.
CONFIG_SCHEMA["definitions"]["retries"] = yaml.safe_load((_FOLDER / "definitions.yaml").read_text())[
    "definitions"
]["retries"]
