# SPDX-License-Identifier: GPL-3.0-or-later
"""A short fault campaign: every kind of fault at least once, every job accounted for."""

from __future__ import annotations

import os
import random

import pytest

from faults.__main__ import Tally, campaign
from tests.conftest import find_program, missing_services

SERVICES = {"postgres": "PostgreSQL restarted", "redis-server": "Redis restarted", "cc": "clock jump"}


async def test_every_invariant_holds_through_every_kind_of_fault(tmp_path, repo, bus):
    seed = random.randrange(10**6)
    tally = Tally()
    await campaign(0, seed, tmp_path / "campaign", repo, tally, clients=3, pause=1.0, verbose=True)
    print(f"seed {seed}\n{tally.table()}")
    assert not tally.violations, f"seed {seed}: " + "\n".join(tally.violations)
    assert tally.injected.total() >= 12
    assert tally.ends["completed"] > 0
    for program, fault in SERVICES.items():
        if find_program(program):
            assert tally.injected[fault]
        elif os.environ.get("REQUIRE_SERVICES") == "1":
            pytest.fail(f"{program} is not installed (make services)")
        else:
            missing_services.add(program)
