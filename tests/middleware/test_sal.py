# SPDX-License-Identifier: GPL-3.0-or-later

"""SAL between processes: a CSC in one, remotes in another."""

import asyncio
import contextlib
import itertools

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from lsst.ts import salobj

pytestmark = pytest.mark.asyncio

TIMEOUT = 60
_indices = itertools.count(1)


@contextlib.asynccontextmanager
async def make_remote(index, **kwargs):
    """Give a started remote of Test with a domain of its own."""
    async with salobj.Domain() as domain, salobj.Remote(domain, "Test", index, **kwargs) as remote:
        yield remote


async def next_after(topic, origin):
    """Return the next message of a topic that a given process sent."""
    while True:
        data = await topic.next(flush=False, timeout=TIMEOUT)
        if data.private_origin == origin:
            return data


async def test_a_csc_goes_through_its_states(peer):
    index = next(_indices)
    async with make_remote(index) as remote, peer("csc", index):
        states = (salobj.State.STANDBY, salobj.State.DISABLED, salobj.State.ENABLED)
        for state in states:  # the CSC starts in STANDBY and enables itself
            assert (await remote.evt_summaryState.next(flush=False, timeout=TIMEOUT)).summaryState == state
        visited = await salobj.set_summary_state(remote, salobj.State.STANDBY, timeout=TIMEOUT)
        assert visited == [salobj.State.ENABLED, salobj.State.DISABLED, salobj.State.STANDBY]
        with pytest.raises(salobj.AckError) as e:
            await remote.cmd_setScalars.set_start(int0=1, timeout=TIMEOUT)
        assert e.value.ackcmd.ack == salobj.SalRetCode.CMD_FAILED


async def test_versions_say_that_this_is_cyclone(peer):
    index = next(_indices)
    async with peer("csc", index), make_remote(index) as remote:
        versions = await remote.evt_softwareVersions.aget(timeout=TIMEOUT)
        assert versions.openSpliceVersion.startswith("cyclonedds-")
        assert versions.xmlVersion.endswith("+cyclone")


async def test_command_is_answered_and_event_and_telemetry_follow(peer):
    index = next(_indices)
    async with make_remote(index) as remote, peer("csc", index):
        await remote.evt_heartbeat.next(flush=False, timeout=TIMEOUT)
        ack = await remote.cmd_wait.set_start(duration=0.01, timeout=TIMEOUT, wait_done=False)
        acks = [ack.ack]
        while acks[-1] != salobj.SalRetCode.CMD_COMPLETE:
            ack = await remote.cmd_wait.next_ackcmd(ack, timeout=TIMEOUT, wait_done=False)
            acks.append(ack.ack)
        codes = salobj.SalRetCode
        assert acks == [codes.CMD_ACK, codes.CMD_INPROGRESS, codes.CMD_COMPLETE]

        await remote.cmd_setScalars.set_start(string0="é↯", double0=0.1, timeout=TIMEOUT)
        for topic in (remote.evt_scalars, remote.tel_scalars):
            data = await topic.next(flush=False, timeout=TIMEOUT)
            assert (data.string0, data.double0, data.TestID) == ("é↯", 0.1, index)
            assert data.private_sndStamp <= data.private_rcvStamp


async def test_late_joiner_gets_events_but_no_telemetry_or_commands(peer):
    index = next(_indices)
    async with make_remote(index) as remote, peer("csc", index) as csc:
        await remote.evt_heartbeat.next(flush=False, timeout=TIMEOUT)
        for value in range(5):
            await remote.cmd_setScalars.set_start(int0=value, timeout=TIMEOUT)

        async with make_remote(index) as late:
            assert late.evt_scalars.has_data
            assert late.evt_scalars.get().int0 == 4
            assert late.evt_scalars.nqueued == 1
            assert late.evt_summaryState.get().summaryState == salobj.State.ENABLED
            assert not late.tel_scalars.has_data
        async with make_remote(index, evt_max_history=3) as late:
            values = [late.evt_scalars.get_oldest().int0 for _ in range(late.evt_scalars.nqueued)]
            assert values == [2, 3, 4]
        async with make_remote(index, evt_max_history=0) as late:
            assert not late.evt_scalars.has_data

    # A command from before a CSC started is not obeyed.
    async with make_remote(index) as remote:
        late_task = asyncio.create_task(remote.cmd_fault.set_start(timeout=TIMEOUT))
        async with peer("csc", index) as csc:
            await next_after(remote.evt_heartbeat, csc.ready["origin"])
            assert remote.evt_summaryState.get().summaryState == salobj.State.ENABLED
            late_task.cancel()


async def test_remotes_see_the_csc_of_their_index_and_index_zero_sees_all(peer):
    one, two = next(_indices), next(_indices)
    async with (
        make_remote(one) as first,
        make_remote(two) as second,
        make_remote(0) as every,
        peer("csc", one, two),
    ):
        for remote in (first, second):
            await remote.evt_heartbeat.next(flush=False, timeout=TIMEOUT)
            await remote.cmd_setScalars.set_start(int0=remote.salinfo.index, timeout=TIMEOUT)
        seen = {(await every.evt_scalars.next(flush=False, timeout=TIMEOUT)).TestID for _ in range(2)}
        assert seen == {one, two}
        for remote, index in ((first, one), (second, two)):
            data = await remote.evt_scalars.next(flush=False, timeout=TIMEOUT)
            assert (data.TestID, data.int0) == (index, index)
            assert remote.evt_scalars.nqueued == 0

        # A late remote of all indices gets the last event of each.
        async with make_remote(0) as late:
            assert late.evt_scalars.nqueued == 2

        # It can command any of them.
        await every.cmd_setScalars.set_start(TestID=two, int0=99, timeout=TIMEOUT)
        assert (await second.evt_scalars.next(flush=False, timeout=TIMEOUT)).int0 == 99
        assert first.evt_scalars.nqueued == 0


async def test_remotes_do_not_see_the_answers_to_each_other(peer):
    index, count = next(_indices), 20
    async with make_remote(index) as mine, peer("csc", index):
        seen = set()
        reader = mine.salinfo._ackcmd_reader
        forward = reader.callback
        reader.callback = lambda ack: (seen.add((ack.identity, ack.origin)), forward(ack))
        await mine.evt_heartbeat.next(flush=False, timeout=TIMEOUT)

        async with salobj.Domain() as domain:
            domain.default_identity = "somebody@else"  # the same process, another identity
            async with salobj.Remote(domain, "Test", index) as other, peer("remote", index, count) as third:
                await other.evt_heartbeat.next(flush=False, timeout=TIMEOUT)
                for _ in range(count):
                    await mine.cmd_wait.set_start(duration=0, timeout=TIMEOUT)
                    await other.cmd_wait.set_start(duration=0, timeout=TIMEOUT)
                told = await third.read()

        assert seen == {(mine.salinfo.identity, mine.salinfo.domain.origin)}
        assert told["identity"] == mine.salinfo.identity  # the same user, another process
        assert {tuple(pair) for pair in told["seen"]} == {(told["identity"], told["origin"])}


async def test_successor_of_a_killed_csc_is_heard(peer):
    index = next(_indices)
    async with make_remote(index) as remote:
        async with peer("csc", index) as csc:
            await next_after(remote.evt_heartbeat, csc.ready["origin"])
            await remote.cmd_setScalars.set_start(int0=1, timeout=TIMEOUT)
            running = asyncio.create_task(remote.cmd_wait.set_start(duration=TIMEOUT, timeout=TIMEOUT))
            await asyncio.wait([running], timeout=0.1)
            await csc.kill()
        async with peer("csc", index) as csc:
            await next_after(remote.evt_summaryState, csc.ready["origin"])
            await next_after(remote.evt_heartbeat, csc.ready["origin"])
            # The dead one must not hide the answers of its successor.
            await remote.cmd_setScalars.set_start(int0=2, timeout=TIMEOUT)
            assert (await next_after(remote.evt_scalars, csc.ready["origin"])).int0 == 2
            # The history of the dead one went with it.
            async with make_remote(index, evt_max_history=10) as late:
                data = [late.evt_scalars.get_oldest() for _ in range(late.evt_scalars.nqueued)]
                assert [d.int0 for d in data if d.private_origin == csc.ready["origin"]] == [2]
        running.cancel()


async def test_csc_does_not_care_about_a_killed_remote(peer):
    index = next(_indices)
    async with make_remote(index) as remote, peer("csc", index):
        async with peer("remote", index, 1) as victim:
            await victim.read()
            await victim.kill()
        await remote.evt_heartbeat.next(flush=True, timeout=TIMEOUT)
        for number in range(3):
            await remote.cmd_setScalars.set_start(int0=number, timeout=TIMEOUT)
            await remote.evt_heartbeat.next(flush=False, timeout=TIMEOUT)


async def test_bursts_of_events_arrive_whole_and_in_order():
    index = next(_indices)
    async with (
        salobj.Controller("Test", index) as controller,
        make_remote(index, include=["scalars"]) as remote,
    ):
        for burst in range(5):
            for value in range(80):
                controller.evt_scalars.set_put(int0=100 * burst + value)
            for value in range(80):
                data = await remote.evt_scalars.next(flush=False, timeout=TIMEOUT)
                assert data.int0 == 100 * burst + value


def integers(bits, signed):
    """Return a strategy for the values of an integer field."""
    return st.integers(-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if signed else st.integers(0, 2**bits - 1)


SCALARS = {
    "boolean0": st.booleans(),
    "byte0": integers(8, False),
    "short0": integers(16, True),
    "long0": integers(32, True),
    "longLong0": integers(64, True),
    "unsignedShort0": integers(16, False),
    "unsignedInt0": integers(32, False),
    "unsignedLong0": integers(32, False),
    "float0": st.floats(width=32),
    "double0": st.floats(),
}
ARRAYS = {name: st.lists(values, min_size=5, max_size=5) for name, values in SCALARS.items()}
# A NUL ends a string in DDS.
TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=20)


def same(one, two):
    """Return whether two values are equal, with NaN equal to NaN."""
    if isinstance(one, list):
        return len(one) == len(two) and all(map(same, one, two))
    return one == two or (one != one and two != two)


async def test_every_type_comes_back_as_it_was_sent(peer):
    index = next(_indices)
    async with make_remote(index) as remote, peer("csc", index):
        await remote.evt_heartbeat.next(flush=False, timeout=TIMEOUT)
        loop = asyncio.get_running_loop()

        async def echo(command, topics, values):
            await command.set_start(**values, timeout=TIMEOUT)
            for topic in topics:
                data = await topic.next(flush=False, timeout=TIMEOUT)
                for name, value in values.items():
                    assert same(getattr(data, name), value), name

        def check(command, topics, values):
            asyncio.run_coroutine_threadsafe(echo(command, topics, values), loop).result(TIMEOUT)

        relaxed = settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))

        @relaxed
        @given(st.fixed_dictionaries(SCALARS), TEXT)
        def check_scalars(values, text):
            check(remote.cmd_setScalars, (remote.evt_scalars, remote.tel_scalars), values | {"string0": text})

        @relaxed
        @given(st.fixed_dictionaries(ARRAYS))
        def check_arrays(values):
            check(remote.cmd_setArrays, (remote.evt_arrays, remote.tel_arrays), values)

        await asyncio.to_thread(check_scalars)
        await asyncio.to_thread(check_arrays)
