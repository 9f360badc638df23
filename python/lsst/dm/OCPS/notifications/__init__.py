# SPDX-License-Identifier: GPL-3.0-or-later
"""Notifications about ends of jobs, by webhook and e-mail."""
