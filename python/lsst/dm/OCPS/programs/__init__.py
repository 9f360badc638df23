# SPDX-License-Identifier: GPL-3.0-or-later
"""Small programs that jobs run; each needs the standard library alone."""
