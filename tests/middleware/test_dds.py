# SPDX-License-Identifier: GPL-3.0-or-later

"""The DDS layer by itself: OpenSplice's interface on Cyclone DDS."""

import copy
import importlib.metadata
import os
import pathlib
import pickle
import struct
import subprocess
import sys
import threading

import dds
import ddsutil
import numpy as np
import pytest
from lsst.ts import ddsconfig, idl

TIMEOUT = dds.DDSDuration(sec=60)
MASK = [dds.DDSStateKind.NOT_READ_SAMPLE_STATE, dds.DDSStateKind.ANY_INSTANCE_STATE]


@pytest.fixture(scope="module")
def parsed_idl():
    return ddsutil.parse_idl_file(idl.get_idl_dir() / "sal_revCoded_Test.idl")


def make_class(parsed_idl, topic):
    (revname,) = (name for name in parsed_idl if name.startswith(f"Test::{topic}_"))
    return ddsutil.make_dds_topic_class(parsed_idl, revname)


class Link:
    """A writer and a reader of one topic."""

    def __init__(self, topic_class, profile="EventProfile", participant=None):
        provider = dds.QosProvider(ddsconfig.get_qos_path().as_uri(), profile)
        self.participant = participant or dds.DomainParticipant()
        qos = provider.get_publisher_qos()
        qos.set_policies([dds.PartitionQosPolicy([os.environ["LSST_DDS_PARTITION_PREFIX"]])])
        self.data_class = topic_class.topic_data_class
        self.topic = topic_class.register_topic(
            self.participant, self.data_class.__name__, provider.get_topic_qos()
        )
        subscriber = self.participant.create_subscriber(qos)
        self.reader = subscriber.create_datareader(self.topic, provider.get_reader_qos())
        publisher = self.participant.create_publisher(qos)
        self.writer = publisher.create_datawriter(self.topic, provider.get_writer_qos())
        self.condition = self.reader.create_readcondition(MASK)

    def send(self, **fields):
        """Write a sample and return what arrives."""
        self.writer.write(self.data_class(**fields))
        return self.receive(self.condition)[0]

    def receive(self, condition):
        """Wait for a condition and return the data that it wants."""
        waitset = dds.WaitSet()
        waitset.attach(condition)
        assert waitset.wait(TIMEOUT) == [condition]
        waitset.detach(condition)
        return [data for data, info in self.reader.take_cond(condition, 10000)]


@pytest.fixture
def scalars(parsed_idl):
    link = Link(make_class(parsed_idl, "logevent_scalars"))
    yield link
    link.participant.close()


@pytest.fixture
def arrays(parsed_idl):
    link = Link(make_class(parsed_idl, "logevent_arrays"))
    yield link
    link.participant.close()


def test_every_field_has_a_default(parsed_idl):
    data = make_class(parsed_idl, "arrays").topic_data_class()
    assert data.get_vars()["boolean0"] == [False] * 5
    assert data.get_vars()["double0"] == [0.0] * 5
    assert data.private_revCode == ""
    assert next(iter(data.get_vars())) == "TestID"


def test_samples_can_be_printed_as_those_of_opensplice(parsed_idl, capsys):
    """As calibration scripts do: ``ack.print_vars()``, ``f"{ack}"``."""
    ack = make_class(parsed_idl, "ackcmd").topic_data_class(TestID=2, result="Done", timeout=1.5)
    ack.print_vars()
    printed = capsys.readouterr().out
    assert printed == f"{ack}\n"
    assert printed.startswith("TestID: 2, private_revCode: , private_sndStamp: 0.0, ")
    assert "result: Done, " in printed
    arrays = make_class(parsed_idl, "arrays").topic_data_class()
    assert "int0: [0, 0, 0, 0, 0]" in str(arrays)
    ack.result = "\x1b[2J\nforged line"
    assert str(ack).isprintable()
    assert "result: \\x1b[2J\\nforged line" in str(ack)
    assert list(ack.get_vars()) == [word.split(": ")[0] for word in printed.split(", ")]


@pytest.mark.parametrize(
    "duplicate", [copy.copy, copy.deepcopy, lambda sample: pickle.loads(pickle.dumps(sample))]
)
def test_samples_can_be_copied_and_pickled(parsed_idl, duplicate):
    sample = make_class(parsed_idl, "logevent_arrays").topic_data_class(int0=[1, 2, 3, 4, 5], TestID=3)
    sample.of_a_script = "kept"
    twin = duplicate(sample)
    assert type(twin) is type(sample)
    assert twin.get_vars() == sample.get_vars()
    assert twin.of_a_script == "kept"
    twin.TestID = 4
    assert sample.TestID == 3


def test_samples_are_equal_only_to_themselves_and_can_be_in_sets(parsed_idl):
    data_class = make_class(parsed_idl, "scalars").topic_data_class
    one, two = data_class(), data_class()
    assert one == one
    assert one != two
    assert one != "text"
    assert one in {one}
    assert len({one, two}) == 2
    # Comparing arrays of numpy would raise.
    one.int0, two.int0 = np.arange(5), np.arange(5)
    assert one not in [two]


def test_unknown_field_is_refused(parsed_idl):
    with pytest.raises(TypeError, match="nosuch"):
        make_class(parsed_idl, "arrays").topic_data_class(nosuch=1)


def test_same_struct_gives_same_class(parsed_idl):
    again = ddsutil.parse_idl_file(idl.get_idl_dir() / "sal_revCoded_Test.idl")
    assert make_class(parsed_idl, "ackcmd").topic_data_class is make_class(again, "ackcmd").topic_data_class


@pytest.mark.parametrize(
    ("field", "value", "received"),
    [
        ("string0", b"bytes", "bytes"),
        ("string0", "é" * 20, "é" * 20),
        ("int0", True, 1),
        ("int0", np.int32(-5), -5),
        ("double0", 3, 3.0),
        ("float0", np.float32(1.5), 1.5),
        ("float0", float("inf"), float("inf")),
        ("boolean0", 2, True),
    ],
)
def test_scalar_is_converted(scalars, field, value, received):
    assert getattr(scalars.send(**{field: value}), field) == received


@pytest.mark.parametrize(
    ("field", "value", "received"),
    [
        ("byte0", (0, 1, 2, 3, 255), [0, 1, 2, 3, 255]),
        ("byte0", b"abcde", [97, 98, 99, 100, 101]),
        ("int0", np.arange(5), [0, 1, 2, 3, 4]),
        ("double0", range(7), [0, 1, 2, 3, 4]),
        ("boolean0", np.array([1, 0, 1, 0, 1, 1], dtype=bool), [True, False, True, False, True]),
    ],
)
def test_array_is_converted_and_cut(arrays, field, value, received):
    assert getattr(arrays.send(**{field: value}), field) == received


@pytest.mark.parametrize(
    ("field", "value", "error"),
    [
        ("short0", 2**15, struct.error),
        ("byte0", -1, struct.error),
        ("int0", 1.5, struct.error),
        ("int0", "1", struct.error),
        ("float0", 1e300, struct.error),
        ("string0", "x" * 21, struct.error),
        ("string0", 5, TypeError),
    ],
)
def test_bad_scalar_is_refused(scalars, field, value, error):
    with pytest.raises(error, match=field):
        scalars.writer.write(scalars.data_class(**{field: value}))


@pytest.mark.parametrize(
    ("field", "value", "error"),
    [
        ("int0", [1, 2, 3, 4], IndexError),
        ("int0", 5, TypeError),
        ("byte0", [0, 1, 2, 3, 256], struct.error),
        ("long0", [0, 1, 2, 3, 2**31], struct.error),
    ],
)
def test_bad_array_is_refused(arrays, field, value, error):
    with pytest.raises(error):
        arrays.writer.write(arrays.data_class(**{field: value}))


def test_query_takes_what_it_asks_for_and_drops_the_rest(scalars):
    query = dds.QueryCondition(scalars.reader, MASK, "TestID = 2 AND string0 = 'its'")
    for index, text in [(1, "its"), (2, "other"), (2, "its"), (3, "its")]:
        scalars.writer.write(scalars.data_class(TestID=index, string0=text, int0=index))
    assert [data.TestID for data in scalars.receive(query)] == [2]
    assert scalars.reader.take_cond(scalars.condition, 100) == []


@pytest.mark.parametrize(
    "query", ["", "TestID > 2", "TestID = 1 OR TestID = 2", "TestID = 'x", "TestID = 1 AND "]
)
def test_other_queries_are_refused(scalars, query):
    with pytest.raises(ValueError, match="query"):
        dds.QueryCondition(scalars.reader, MASK, query)


def test_no_more_samples_are_taken_than_asked_for(scalars):
    for value in range(5):
        scalars.writer.write(scalars.data_class(int0=value))
    taken = scalars.reader.take_cond(scalars.condition, 3)
    assert [data.int0 for data, info in taken] == [0, 1, 2]
    assert all(info.valid_data and info.reception_timestamp >= info.source_timestamp for data, info in taken)
    assert [data.int0 for data, info in scalars.reader.take_cond(scalars.condition, 3)] == [3, 4]
    assert not scalars.condition.triggered()


def test_reader_keeps_the_last_hundred_of_each_index(scalars):
    for value in range(150):
        for index in (1, 2):
            scalars.writer.write(scalars.data_class(TestID=index, int0=value))
    values = {1: [], 2: []}
    for data in scalars.receive(scalars.condition):
        values[data.TestID].append(data.int0)
    assert values == {1: list(range(50, 150)), 2: list(range(50, 150))}


def test_wait_set_tells_which_condition_fired(parsed_idl):
    participant = dds.DomainParticipant()
    links = [Link(make_class(parsed_idl, topic), participant=participant) for topic in ("arrays", "scalars")]
    guard = dds.GuardCondition()
    waitset = dds.WaitSet()
    for condition in [guard, *(link.condition for link in links)]:
        waitset.attach(condition)
    assert waitset.wait(dds.DDSDuration(sec=0.01)) == []
    links[1].writer.write(links[1].data_class())
    assert waitset.wait(TIMEOUT) == [links[1].condition]
    threading.Timer(0.01, guard.trigger).start()
    links[1].reader.take_cond(links[1].condition, 1)
    assert waitset.wait(TIMEOUT) == [guard]
    waitset.detach(guard)
    waitset.detach(guard)
    assert waitset.wait(dds.DDSDuration(nanosec=1000)) == []
    participant.close()


def test_closing_twice_is_no_error(parsed_idl):
    link = Link(make_class(parsed_idl, "scalars"))
    for entity in (link.reader, link.writer, link.participant, link.reader, link.participant):
        entity.close()
    assert link.reader.take_cond(link.condition, 1) == []
    with pytest.raises(dds.DDSException):
        link.writer.write(link.data_class())


def test_topic_is_made_once(parsed_idl):
    topic_class = make_class(parsed_idl, "scalars")
    link = Link(topic_class)
    assert Link(topic_class, participant=link.participant).topic is link.topic
    link.participant.close()


def test_history_is_waited_for_once_and_not_for_volatile_topics(parsed_idl):
    link = Link(make_class(parsed_idl, "logevent_scalars"))
    other = Link(make_class(parsed_idl, "logevent_arrays"), participant=link.participant)
    volatile = Link(make_class(parsed_idl, "arrays"), "TelemetryProfile", participant=link.participant)
    assert not link.reader.wait_for_historical_data(dds.DDSDuration(sec=0.01))
    assert volatile.reader.wait_for_historical_data(dds.DDSDuration(sec=0))
    assert link.reader.wait_for_historical_data(TIMEOUT)
    # Without time to wait: it is known already.
    assert other.reader.wait_for_historical_data(dds.DDSDuration(sec=0))
    link.participant.close()


def test_unknown_profile_is_refused():
    with pytest.raises(ValueError, match="NoSuchProfile"):
        dds.QosProvider(ddsconfig.get_qos_path().as_uri(), "NoSuchProfile")


@pytest.mark.parametrize("word", ["x", "-1", "231"])
def test_bad_domain_id_is_refused(monkeypatch, word):
    monkeypatch.setenv("LSST_DDS_DOMAIN_ID", word)
    with pytest.raises(ValueError, match="LSST_DDS_DOMAIN_ID"):
        dds.DomainParticipant()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("struct a { long b; };", "no module"),
        ("module m {\nstruct a {\n wchar b;\n };\n};", "cannot understand 'wchar b'"),
        ("module m {\nstruct a {\n long b[2][3];\n };\n};", "cannot understand"),
    ],
)
def test_idl_that_is_not_understood_is_refused(tmp_path, text, message):
    path = tmp_path / "bad.idl"
    path.write_text(text)
    with pytest.raises(ValueError, match=message):
        ddsutil.parse_idl_file(path)


def test_idlpp_tells_the_version():
    command = pathlib.Path(sys.executable).with_name("idlpp")
    result = subprocess.run([command, "-v"], capture_output=True, text=True, check=True)
    assert result.stdout.strip().endswith(f": {importlib.metadata.version('cyclonedds')}")
    assert subprocess.run([command, "x.idl"], capture_output=True).returncode != 0


def test_distributions_leave_the_namespace_to_others():
    for name in ("ts-dds", "ts-ddsconfig", "ts-utils", "ts-idl"):
        distribution = importlib.metadata.distribution(name)
        assert distribution.version.endswith("+cyclone")
        files = {str(file) for file in distribution.files or ()}
        assert not files & {"lsst/__init__.py", "lsst/ts/__init__.py"}
