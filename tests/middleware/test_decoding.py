# SPDX-License-Identifier: GPL-3.0-or-later

"""Decoding of samples: everything that is not a sample of the topic is refused, and nothing else."""

import logging

import ddsutil
import pytest
from dds import _decoding
from hypothesis import given, settings
from hypothesis import strategies as st
from lsst.ts import idl

TOPICS = ddsutil.parse_idl_file(idl.get_idl_dir() / "sal_revCoded_Test.idl")
CLASSES = {
    name: ddsutil.make_dds_topic_class(TOPICS, name).topic_data_class
    for name in TOPICS
    if name.startswith(("Test::command_setScalars", "Test::logevent_arrays", "Test::ackcmd"))
}
SCALARS, *_ = (cls for name, cls in CLASSES.items() if "Scalars" in name)

classes = st.sampled_from(list(CLASSES.values()))


def check(cls, data):
    """Decode data; what is accepted must be writeable, and mean the same when read again."""
    try:
        sample = _decoding.decode(cls, data)
    except ValueError:
        return False
    again = _decoding.decode(cls, sample.to_wire().serialize())
    assert repr(again) == repr(sample)
    return True


@given(classes, st.binary(max_size=300), st.booleans())
def test_any_bytes_are_decoded_or_refused(cls, data, with_header):
    check(cls, b"\0\1\0\0" + data if with_header else data)


@settings(max_examples=500)
@given(classes, st.data())
def test_mutated_samples_are_decoded_or_refused(cls, data):
    sample = bytearray(
        cls(private_identity=data.draw(st.text(st.characters(codec="utf-8"), max_size=20)))
        .to_wire()
        .serialize()
    )
    for _ in range(data.draw(st.integers(0, 6))):
        sample[data.draw(st.integers(0, len(sample) - 1))] = data.draw(st.integers(0, 255))
    check(
        cls,
        bytes(sample[: data.draw(st.integers(0, len(sample)))])
        if data.draw(st.booleans())
        else bytes(sample),
    )


@pytest.mark.parametrize("cls", CLASSES.values(), ids=lambda cls: cls.__name__)
def test_honest_samples_are_decoded_and_each_truncation_is_refused(cls):
    data = cls(private_identity="someone@somewhere").to_wire().serialize()
    assert check(cls, data)
    for padding in (b"\0", b"\0\0", b"\0\0\0"):
        assert check(cls, data + padding)
    assert not check(cls, data + b"\0" * 4)
    for length in range(len(data)):
        assert not check(cls, data[:length])


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        (b"text", b"te\xfft", "not UTF-8"),
        (b"text", b"te\0t", "NUL"),
        (b"\5\0\0\0text", b"\xff\xff\xff\xfftext", "layout"),
        (b"\5\0\0\0text", b"\x06\0\0\0text", "layout|bytes"),
    ],
)
def test_the_reason_is_said(old, new, reason):
    data = SCALARS(string0="text").to_wire().serialize()
    assert old in data
    with pytest.raises(ValueError, match=reason):
        _decoding.decode(SCALARS, data.replace(old, new))


def test_a_string_longer_than_its_field_is_refused():
    with pytest.raises(ValueError, match="private_identity has 129 characters; at most 128"):
        _decoding.decode(SCALARS, SCALARS(private_identity="x" * 129).serialize())


def test_dropped_samples_are_counted_and_logged_once_a_minute(caplog, monkeypatch):
    now = 1000.0
    monkeypatch.setattr(_decoding.time, "monotonic", lambda: now)
    dropped = _decoding.DroppedSamples("a_topic")
    with caplog.at_level(logging.WARNING, logger="dds"):
        for _ in range(3):
            dropped.add(ValueError("bad\x1b[2J\nERROR forged " + "x" * 1000))
        now += _decoding.LOG_INTERVAL + 1
        dropped.add(ValueError("other"))
    assert dropped.count == 4
    first, second = (record.getMessage() for record in caplog.records)
    assert first.startswith("a_topic: dropped a sample that cannot be decoded: bad\\x1b[2J\\x0aERROR forged")
    assert first.isprintable()
    assert len(first) < 400
    assert second.endswith("other (4 so far)")
