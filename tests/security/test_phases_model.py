# SPDX-License-Identifier: GPL-3.0-or-later
"""A model of UWS's phases over HTTP: what is sent at once has the effect of some order of it."""

from __future__ import annotations

import asyncio
from itertools import permutations

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    precondition,
    rule,
    run_state_machine_as_test,
)

from tests.security.conftest import attacker

FORM = {"Content-Type": "application/x-www-form-urlencoded"}
BODIES = {"RUN": b"PHASE=RUN", "ABORT": b"PHASE=ABORT", "HOLD": b"PHASE=HOLD", "DELETE": b"ACTION=DELETE"}
LIVE = frozenset({"PENDING", "ACTIVE", "HELD"})


def after(phase: str, action: str) -> set[str]:
    """Return the phases that an action may lead to; the same one where it is refused.

    ACTIVE stands for QUEUED and EXECUTING: which one depends on the others.
    """
    if phase == "GONE" or (phase == "ABORTED" and action != "DELETE"):
        return {phase}
    if action == "DELETE":
        return {"GONE"}
    if action == "ABORT":
        return {"ABORTED"}
    if action == "RUN":
        return {"ACTIVE"}
    return {"ACTIVE", "HELD"} if phase == "ACTIVE" else {"HELD"}


def reachable(phase: str, actions: list[str]) -> set[str]:
    """Return the phases in which a job may be after actions that come in any order."""
    found = set()
    for order in set(permutations(actions)):
        phases = {phase}
        for action in order:
            phases = set().union(*(after(one, action) for one in phases))
        found |= phases
    return found


class Phases(RuleBasedStateMachine):
    """Jobs that never end by themselves, on a server with few workers."""

    served = None
    loop = None

    def __init__(self) -> None:
        super().__init__()
        self.jobs: dict[str, str] = {}

    def ask(self, *requests: tuple[str, str, bytes]) -> list[tuple[int, bytes]]:
        """Send requests at once; return their answers."""

        async def send() -> list[tuple[int, bytes]]:
            who = attacker(self.served)
            return await asyncio.gather(
                *(who.ask(method, path, body, FORM) for method, path, body in requests)
            )

        return asyncio.run_coroutine_threadsafe(send(), self.loop).result(120)

    @initialize()
    def begin(self) -> None:
        self.create(run=False)

    @precondition(lambda self: len(self.jobs) < 6)
    @rule(run=st.booleans())
    def create(self, run: bool) -> None:
        body = b"duration=3600&PHASE=RUN" if run else b"duration=3600"
        ((status, answer),) = self.ask(("POST", "/uws/sleep", body))
        assert status == 303
        location = answer.partition(b"Location: ")[2].partition(b"\r\n")[0].decode()
        job = "/" + location.partition("://")[2].partition("/")[2]
        self.jobs[job] = "ACTIVE" if run else "PENDING"

    @precondition(lambda self: self.jobs)
    @rule(data=st.data(), actions=st.lists(st.sampled_from(sorted(BODIES)), min_size=1, max_size=4))
    def act(self, data: st.DataObject, actions: list[str]) -> None:
        job = data.draw(st.sampled_from(sorted(self.jobs)))
        before = self.jobs[job]
        answers = self.ask(*(("POST", job, BODIES[action]) for action in actions))
        done = [action for action, (status, _) in zip(actions, answers, strict=True) if status == 303]
        for status, answer in answers:
            assert status in (303, 403, 404), answer
        self.jobs[job] = phase = self.phase(job)
        assert phase in reachable(before, actions), (before, actions, done, phase)
        # What was answered as done was done.
        if "DELETE" in done:
            assert phase == "GONE"
        elif "ABORT" in done and "DELETE" not in actions:
            assert phase == "ABORTED"
        if before in LIVE and "DELETE" in actions:
            assert "DELETE" in done
        if phase != before:
            assert done

    @precondition(lambda self: self.jobs)
    @rule(data=st.data())
    def look(self, data: st.DataObject) -> None:
        job = data.draw(st.sampled_from(sorted(self.jobs)))
        assert self.phase(job) == self.jobs[job]

    def phase(self, job: str) -> str:
        ((status, answer),) = self.ask(("GET", f"{job}/phase", b""))
        if status == 404:
            return "GONE"
        found = answer.rpartition(b"\r\n\r\n")[2].decode()
        return "ACTIVE" if found in ("QUEUED", "EXECUTING") else found

    def teardown(self) -> None:
        self.ask(*(("POST", job, BODIES["DELETE"]) for job, phase in self.jobs.items() if phase != "GONE"))


async def test_phases_change_as_the_model_says_whatever_is_sent_at_once(start):
    Phases.served = await start(max_workers=2)
    Phases.loop = asyncio.get_running_loop()
    options = settings(
        max_examples=10,
        stateful_step_count=10,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    await asyncio.to_thread(run_state_machine_as_test, Phases, settings=options)
    assert not Phases.served.manager.live()
