# SPDX-License-Identifier: GPL-3.0-or-later
"""The local pool: jobs as processes on this machine."""
