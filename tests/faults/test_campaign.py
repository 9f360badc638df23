# SPDX-License-Identifier: GPL-3.0-or-later
"""A short fault campaign: every kind of fault once, every job accounted for."""

from __future__ import annotations

import random

from faults.__main__ import Tally, campaign


async def test_every_invariant_holds_through_every_kind_of_fault(tmp_path, bus):
    seed = random.randrange(10**6)
    tally = Tally()
    await campaign(0, seed, tmp_path / "campaign", tally, verbose=True)
    print(f"seed {seed}\n{tally.table()}")
    assert not tally.violations, f"seed {seed}: " + "\n".join(tally.violations)
    assert tally.injected.total() >= 15
    assert tally.ends["completed"] > 0
