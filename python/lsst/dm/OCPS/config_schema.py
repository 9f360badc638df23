# This file is part of dm_OCPS.
#
# Developed for the Vera C. Rubin Observatory.
# License: GPL-3.0-or-later; see COPYRIGHT and LICENSE at the top of the repository.
"""The configuration schema, under the name that configuration packages look up."""

__all__ = ["CONFIG_SCHEMA"]

from pathlib import Path

import yaml

CONFIG_SCHEMA = yaml.safe_load((Path(__file__).parent / "schema" / "OCPS.yaml").read_text())
