# SPDX-License-Identifier: GPL-3.0-or-later
"""The soak test: a long run under load, in which OCPS's costs must stay flat; see ``doc/reliability.rst``."""
