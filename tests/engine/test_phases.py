# SPDX-License-Identifier: GPL-3.0-or-later
"""The phases of a job: its rules in every order, through the ledger and the store."""

from __future__ import annotations

import asyncio
import itertools
import logging
from functools import partial

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule
from lsst.dm.OCPS.jobs import rules
from lsst.dm.OCPS.jobs.backend import BackendUpdate
from lsst.dm.OCPS.jobs.errors import TransitionError
from lsst.dm.OCPS.jobs.ledger import Ledger
from lsst.dm.OCPS.jobs.model import TERMINAL, TRANSITIONS, ExecutionPhase, Job, check_transition, now
from lsst.dm.OCPS.jobs.store import JobStore

from tests.engine.test_rules import RULES

Phase = ExecutionPhase
ENDS = {Phase.COMPLETED, Phase.ERROR, Phase.ABORTED}

# Written down once more, so that a mistake in the program is not repeated here.
LEGAL = {
    "PENDING": "QUEUED HELD ABORTED ERROR",
    "HELD": "QUEUED ABORTED ERROR",
    "QUEUED": "EXECUTING COMPLETED ERROR ABORTED HELD UNKNOWN",
    "EXECUTING": "COMPLETED ERROR ABORTED SUSPENDED UNKNOWN QUEUED",
    "SUSPENDED": "EXECUTING COMPLETED ERROR ABORTED UNKNOWN",
    "UNKNOWN": "QUEUED EXECUTING SUSPENDED COMPLETED ERROR ABORTED",
    "COMPLETED": "ARCHIVED",
    "ERROR": "ARCHIVED",
    "ABORTED": "ARCHIVED",
    "ARCHIVED": "",
}


@pytest.mark.parametrize(("old", "new"), list(itertools.product(Phase, Phase)))
def test_only_the_designed_transitions_are_legal(old, new):
    if str(new) in LEGAL[old].split():
        check_transition(old, new)
    else:
        with pytest.raises(TransitionError):
            check_transition(old, new)


def new_job(job_id: str = "a" * 32, phase: ExecutionPhase = Phase.PENDING) -> Job:
    time = now()
    return Job(job_id, "any", phase, {}, None, "test", creation_time=time, phase_time=time)


class PhaseMachine(RuleBasedStateMachine):
    """Changes one job in every way, legal or not, and compares with a model."""

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.ends: list[ExecutionPhase] = []
        self.shown: list[Job] = []
        self.run(self._open())
        self.model = Phase.PENDING

    def run(self, coroutine):
        return self.loop.run_until_complete(coroutine)

    async def _open(self) -> None:
        self.store = await JobStore.open()
        self.ledger = Ledger(self.store, logging.getLogger("quiet"), self._changed)
        await self.ledger.open()
        self.id = (await self.ledger.insert(new_job())).id

    def _changed(self, old: Job | None, new: Job) -> None:
        self.shown.append(new)
        if new.phase in ENDS and old is not None and old.phase != new.phase:
            self.ends.append(new.phase)

    @rule(name=st.sampled_from(sorted(RULES)))
    def change(self, name: str) -> None:
        old = self.run(self.ledger.get(self.id))
        try:
            new = self.run(self.ledger.change(self.id, RULES[name](old)))
        except TransitionError:
            return
        assert new.phase == old.phase or new.phase in TRANSITIONS[old.phase]
        self.model = new.phase

    @rule(phase=st.sampled_from(list(Phase)), code=st.integers(-15, 3))
    def report(self, phase: ExecutionPhase, code: int) -> None:
        """Whatever a backend says, an end stays what it is."""
        before = self.run(self.ledger.get(self.id))
        update = BackendUpdate(phase=phase, exit_code=code)
        after = self.run(self.ledger.change(self.id, partial(rules.seen, update=update)))
        if before.terminal:
            assert after == before
        self.model = after.phase

    @invariant()
    def store_and_memory_agree(self) -> None:
        stored = self.run(self.store.get(self.id))
        assert stored is not None
        assert stored.phase == self.model
        assert stored == self.run(self.ledger.get(self.id))
        assert (self.id in self.ledger.live) == (self.model not in TERMINAL)

    @invariant()
    def there_is_one_end(self) -> None:
        assert len(self.ends) <= 1
        assert [job.sequence for job in self.shown] == sorted({job.sequence for job in self.shown})

    def teardown(self) -> None:
        self.run(self.store.close())
        self.loop.close()


TestPhaseMachine = PhaseMachine.TestCase
TestPhaseMachine.settings = settings(max_examples=40, stateful_step_count=25, deadline=None)


async def test_two_ends_at_once_leave_one():
    """Completion and abort race in the same instant; one wins, the other changes nothing."""
    store = await JobStore.open()
    ends: list[str] = []
    ledger = Ledger(store, logging.getLogger("quiet"), lambda _, new: ends.append(new.phase))
    for number in range(200):
        ends.clear()
        job = await ledger.insert(new_job(f"{number:032x}", Phase.EXECUTING))

        async def end(phase: ExecutionPhase, job=job) -> None:
            update = BackendUpdate(phase=phase)
            await ledger.change(job.id, partial(rules.seen, update=update))

        first, second = (Phase.COMPLETED, Phase.ABORTED)[:: 1 if number % 2 else -1]
        await asyncio.gather(end(first), end(second))
        assert ends == [Phase.EXECUTING, first]
    await store.close()
