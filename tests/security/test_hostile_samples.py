# SPDX-License-Identifier: GPL-3.0-or-later
"""Samples on DDS that no honest program writes: OCPS drops them, says so, and keeps obeying others."""

from __future__ import annotations

import asyncio
import contextlib
import os
from typing import Any

import pytest
import pytest_asyncio
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from lsst.dm.OCPS.testing import CscProcess, Script, private_bus
from lsst.ts import salobj

from tests.generations import ON_KAFKA
from tests.waiting import until

if ON_KAFKA:
    pytest.skip("salobj 8 has no DDS", allow_module_level=True)
clayer = pytest.importorskip("cyclonedds._clayer", reason="these samples exist on Cyclone DDS only")
dds = pytest.importorskip("dds")
ddsutil = pytest.importorskip("ddsutil")
ddsconfig = pytest.importorskip("lsst.ts.ddsconfig")

pytestmark = pytest.mark.asyncio(loop_scope="module")

MARK = "honest"
"""Text in a field of the honest sample from which hostile ones are made."""


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def victim(tmp_path_factory):
    """A script connected to a simulating OCPS in a process of its own, which is ENABLED."""
    private_bus()
    log = tmp_path_factory.mktemp("hostile") / "csc.log"
    arguments = ("1", "--simulate", "--simulation-duration", "0.1")
    async with CscProcess(*arguments, log=log), Script.connect() as script:
        script.log, script.messages = log, asyncio.Queue()
        script.remote.evt_logMessage.callback = script.messages.put
        await script.set_state(salobj.State.ENABLED)
        yield script


class Attacker:
    """A program of its own on DDS that writes bytes as commands to OCPS.

    Parameters
    ----------
    command : `lsst.ts.salobj.topics.RemoteCommand`
        The command, as an honest remote has it.
    """

    def __init__(self, command: Any) -> None:
        salinfo = command.salinfo
        self.data_class = command.DataType
        self.participant = dds.DomainParticipant()
        provider = dds.QosProvider(ddsconfig.get_qos_path().as_uri(), "CommandProfile")
        qos = provider.get_publisher_qos()
        qos.set_policies([dds.PartitionQosPolicy([salinfo.cmd_partition_name])])
        topic = ddsutil.TopicClass(self.data_class).register_topic(
            self.participant, command._topic.name, provider.get_topic_qos()
        )
        publisher = self.participant.create_publisher(qos)
        self.writer = publisher.create_datawriter(topic, provider.get_writer_qos()).cyclone

    async def __aenter__(self) -> Attacker:
        await until(self.writer.get_matched_subscriptions)
        return self

    async def __aexit__(self, *_: object) -> None:
        self.participant.close()

    def sample(self, **fields: Any) -> bytes:
        """Return an honest sample as it goes over the wire, with MARK as its pipeline."""
        values = {
            "OCPSID": 1,
            "private_seqNum": 1_000_000,
            "private_origin": os.getpid(),
            "private_identity": "attacker@host",
        }
        if hasattr(self.data_class, "pipeline"):
            values["pipeline"] = MARK
        return self.data_class(**(values | fields)).serialize()

    def write(self, sample: bytes) -> int:
        """Write bytes past everything that checks them but Cyclone; return its error code, 0 if written."""
        return clayer.ddspy_write(self.writer._ref, sample)

    async def arrived(self, timeout: float = 60) -> bool:
        """Wait until OCPS has received everything that was written; return False after ``timeout`` (s)."""
        # Its public method fails after a time-out in cyclonedds 11.0.1.
        wait = self.writer._wait_for_acks
        return await asyncio.to_thread(wait, self.writer._ref, int(timeout * 1e9)) == 0


@pytest_asyncio.fixture(loop_scope="module")
async def attacker(victim):
    """An attacker that sends execute."""
    async with Attacker(victim.remote.cmd_execute) as attacker:
        yield attacker


async def assert_obeys(script: Script) -> None:
    """Check that the OCPS still runs jobs for an honest script."""
    execution = await script.execute("true.yaml", timeout=60)
    assert (await execution.done()).ack == salobj.SalRetCode.CMD_COMPLETE
    assert (await execution.result())["exit_code"] == 0


async def test_a_string_that_is_not_utf8_does_not_make_ocps_deaf(victim, attacker):
    assert attacker.write(not_utf8(attacker.sample())) == 0
    assert await attacker.arrived()
    await assert_obeys(victim)
    # It is said where observers look.
    async with asyncio.timeout(60):
        while "cannot be decoded" not in (message := await victim.messages.get()).message:
            pass
    assert "command_execute" in message.message
    assert "not UTF-8 (byte 0xff)" in message.message


def not_utf8(sample: bytes) -> bytes:
    return sample.replace(MARK.encode(), b"\xff" * len(MARK))


HOSTILE = {
    "not UTF-8 later in the string": lambda sample: sample.replace(MARK.encode(), b"hones\xe9"),
    "half of a character": lambda sample: sample.replace(MARK.encode(), b"hones\xc3"),
    "a surrogate": lambda sample: sample.replace(MARK.encode(), b"\xed\xa0\x80est"),
    "a NUL in a string": lambda sample: sample.replace(MARK.encode(), b"ho\0est"),
    "bytes after the end": lambda sample: sample + b"x" * 1000,
    "unknown encapsulation": lambda sample: b"\xff\xff" + sample[2:],
    "parameter list": lambda sample: b"\0\3" + sample[2:],
    "big endian label on little endian data": lambda sample: b"\0\0" + sample[2:],
    "XCDR2": lambda sample: b"\0\7" + sample[2:],
    "truncated": lambda sample: sample[: len(sample) // 2],
    "header alone": lambda sample: sample[:4],
    "nothing": lambda sample: b"",
    "string length of 4 GB": lambda sample: _with_length(sample, 0xFFFFFFFF),
    "string length of 0": lambda sample: _with_length(sample, 0),
    "string length one too large": lambda sample: _with_length(sample, len(MARK) + 2),
}


def _with_length(sample: bytes, length: int) -> bytes:
    """Return a sample with another length before the string MARK."""
    start = sample.index(MARK.encode()) - 4
    return sample[:start] + length.to_bytes(4, "little") + sample[start + 4 :]


@pytest.mark.parametrize("name", HOSTILE)
async def test_a_sample_of_wrong_layout_is_dropped(victim, attacker, name):
    # Cyclone refuses some of them already when they are written.
    if attacker.write(HOSTILE[name](attacker.sample())) == 0:
        # Others are refused by the Cyclone that receives them, again and again, and never acknowledged.
        await attacker.arrived(timeout=1)
    await assert_obeys(victim)


@pytest.mark.parametrize(
    "fields",
    [
        {"private_seqNum": 0},
        {"private_seqNum": -5},
        # Longer than its field: it could not be written into the acknowledgement.
        {"private_identity": "x" * 129},
        {"private_origin": -(2**31)},
        {"private_sndStamp": float("nan")},
        {"private_sndStamp": float("inf")},
        {"pipeline": "x" * 2_000_000},
        {"pipeline": "\x1b]0;title\x07\x1b[2J\r\nERROR forged"},
        {"version": "\u2028\u202e\ufeff"},
    ],
    ids=lambda fields: next(iter(fields)),
)
async def test_odd_values_in_a_command_do_no_harm(victim, attacker, fields):
    assert attacker.write(attacker.sample(**fields)) == 0
    assert await attacker.arrived()
    await assert_obeys(victim)


async def test_every_command_survives_a_string_that_is_not_utf8(victim):
    for name in victim.remote.salinfo.command_names:
        async with Attacker(getattr(victim.remote, f"cmd_{name}")) as attacker:
            assert attacker.write(not_utf8(attacker.sample(private_identity=MARK))) == 0
            assert await attacker.arrived()
    await assert_obeys(victim)


async def test_mutated_samples_do_no_harm(victim, attacker):
    written = 0

    @settings(max_examples=300, deadline=None, suppress_health_check=list(HealthCheck))
    @given(data=st.data())
    def mutate(data: st.DataObject) -> None:
        nonlocal written
        sample = bytearray(attacker.sample(pipeline=data.draw(st.text(max_size=30))))
        for _ in range(data.draw(st.integers(1, 5))):
            # Another encapsulation would make Cyclone refuse this and all that follow.
            sample[data.draw(st.integers(4, len(sample) - 1))] = data.draw(st.integers(0, 255))
        # Cyclone refuses to write most of the truncated ones.
        end = data.draw(st.one_of(st.just(len(sample)), st.integers(4, len(sample))))
        written += attacker.write(bytes(sample[:end])) == 0

    await asyncio.to_thread(mutate)
    assert written > 20
    assert await attacker.arrived()
    await assert_obeys(victim)


async def test_a_flood_of_hostile_samples_does_not_fill_the_log(victim, attacker):
    def complaints() -> int:
        """Return how many lines are not about jobs."""
        return sum(": Job " not in line for line in victim.log.read_text().splitlines())

    before = complaints()
    hostile = not_utf8(attacker.sample())
    for _ in range(1000):
        attacker.write(hostile)
    assert await attacker.arrived()
    await assert_obeys(victim)
    # At most one message a minute, for this one topic.
    assert complaints() - before < 20


async def test_no_control_character_reached_the_log(victim):
    """After all that the other tests of this module have sent."""
    await victim.remote.cmd_setLogLevel.set_start(level=10, subsystem="", timeout=60)
    forged = "\x1b]0;title\x07\x1b[2J\x9b2K\r\nERROR forged\u2028line"
    for name, fields in STRINGS.items():
        with contextlib.suppress(salobj.AckError):
            command = getattr(victim.remote, f"cmd_{name}")
            await command.set_start(**dict.fromkeys(fields, forged), timeout=60)
    await assert_obeys(victim)
    texts = victim.log.read_bytes().decode().splitlines()
    while not victim.messages.empty():
        message = victim.messages.get_nowait()
        texts += [message.message, message.name, message.filePath, message.functionName]
    for text in texts:
        assert text.isprintable(), text
        assert not text.startswith("ERROR forged")


STRINGS = {
    "execute": ["pipeline", "version", "config", "data_query", "prereq_jobs", "output_dataset_types"],
    "abort_job": ["job_id"],
    "start": ["settingsToApply"],
    "setLogLevel": ["subsystem"],
    "setAuthList": ["authorizedUsers", "nonAuthorizedCSCs"],
}
"""String fields of the commands, for a test of what is logged of them."""
