# SPDX-License-Identifier: GPL-3.0-or-later
"""The configuration schema, under the name that configuration packages look up."""

__all__ = ["CONFIG_SCHEMA"]

from pathlib import Path

import yaml

CONFIG_SCHEMA = yaml.safe_load((Path(__file__).parent / "schema" / "OCPS.yaml").read_text())
