# SPDX-License-Identifier: GPL-3.0-or-later
"""The soak: OCPS worked for long, and whether its costs stay what they were; see ``doc/reliability.rst``."""
