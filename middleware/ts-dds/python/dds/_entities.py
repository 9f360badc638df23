# SPDX-License-Identifier: GPL-3.0-or-later

"""The DDS entities: participants, publishers, subscribers, writers and readers."""

from __future__ import annotations

import ctypes
import dataclasses
import os
import struct
import threading
import time
import typing
from collections.abc import Iterable
from xml.sax.saxutils import quoteattr

import cyclonedds.core
import cyclonedds.domain
import cyclonedds.pub
import cyclonedds.sub
import cyclonedds.topic
from cyclonedds._clayer import ddspy_take
from cyclonedds.internal import DDS

from ._conditions import DDSDuration, DDSStateKind, ReadCondition
from ._decoding import DroppedSamples, decode
from ._qos import DDSDurabilityKind, Qos

__all__ = ["DataReader", "DataWriter", "DomainParticipant", "Publisher", "SampleInfo", "Subscriber"]

Topic: typing.TypeAlias = cyclonedds.topic.Topic[typing.Any]

# The default: the loopback interface only. It has no multicast, so participants discover each other by trying
# the first ports of this host.
_LOOPBACK = """
<General>
  <Interfaces><NetworkInterface address="127.0.0.1"/></Interfaces>
  <AllowMulticast>false</AllowMulticast>
</General>
<Discovery>
  <ParticipantIndex>auto</ParticipantIndex>
  <MaxAutoParticipantIndex>60</MaxAutoParticipantIndex>
  <Peers><Peer address="127.0.0.1"/></Peers>
</Discovery>
"""

# Cyclone prints a warning for each malformed packet, and a reliable writer repeats its packets for ever: any
# program on the network could fill the disk. So only fatal errors and errors are printed.
_LOG_ERRORS = 0x1 | 0x2  # DDS_LC_FATAL | DDS_LC_ERROR
ctypes.CFUNCTYPE(None, ctypes.c_uint32)(("dds_set_log_mask", DDS._dll_handle))(_LOG_ERRORS)

# Age of a participant, and time without a newly discovered writer (seconds), after which historical data is
# considered complete. The second value of each is for a host whose load exceeds its number of processors.
_MIN_AGE = (0.4, 1.0)
_QUIET_TIME = (0.15, 0.3)
_POLL_INTERVAL = 0.02

# Cyclone's domains that were created with a configuration of ours, by id; they are never deleted.
_domains: dict[int, cyclonedds.domain.Domain] = {}


def _domain_id() -> int:
    """Return the number of the DDS domain, and configure that domain unless the environment does.

    If ``CYCLONEDDS_URI`` is set, it is the whole configuration. Otherwise ``LSST_DDS_INTERFACE`` names the
    network interface to use, with multicast; without that variable only programs on this host are reached.
    The environment is not changed, because child processes inherit it.

    Raises
    ------
    ValueError
        If ``LSST_DDS_DOMAIN_ID`` is not a number from 0 to 230.
    """
    word = os.environ.get("LSST_DDS_DOMAIN_ID") or "0"
    if not word.isdecimal() or int(word) > 230:
        raise ValueError(f"LSST_DDS_DOMAIN_ID must be a number from 0 to 230, not {word!r}")
    identifier = int(word)
    if os.environ.get("CYCLONEDDS_URI") is None and identifier not in _domains:
        interface = os.environ.get("LSST_DDS_INTERFACE")
        settings = _LOOPBACK
        if interface:
            settings = (
                f"<General><Interfaces><NetworkInterface name={quoteattr(interface)}/></Interfaces></General>"
            )
        config = f'<CycloneDDS><Domain Id="any">{settings}</Domain></CycloneDDS>'
        _domains[identifier] = cyclonedds.domain.Domain(identifier, config)
    return identifier


def _delete(entity: cyclonedds.core.Entity) -> None:
    """Delete an entity of Cyclone and all that it contains; may be called again."""
    entity.__del__()


@dataclasses.dataclass
class SampleInfo:
    """Information about a sample.

    Cyclone does not record when a sample arrived; the reception time is when it was taken.
    """

    reception_timestamp: int
    """Unix time in nanoseconds."""
    source_timestamp: int
    """Unix time in nanoseconds, by the writer's clock."""
    valid_data: bool = True


class DomainParticipant:
    """A member of a DDS domain.

    Parameters
    ----------
    qos
        Ignored: SAL uses no policy of a participant.
    """

    def __init__(self, qos: Qos | None = None) -> None:
        self.cyclone = cyclonedds.domain.DomainParticipant(_domain_id())
        self._topics: dict[str, Topic] = {}
        self._created = time.monotonic()
        self._history_lock = threading.Lock()
        self._readers_without_history: set[DataReader] = set()

    def create_topic(self, name: str, data_class: type, qos: Qos) -> Topic:
        """Return the topic with this name; the first call creates it."""
        if name not in self._topics:
            self._topics[name] = cyclonedds.topic.Topic(self.cyclone, name, data_class, qos.for_topic())
        return self._topics[name]

    def create_publisher(self, qos: Qos) -> Publisher:
        """Return a new publisher for the partitions in ``qos``."""
        return Publisher(self, qos)

    def create_subscriber(self, qos: Qos) -> Subscriber:
        """Return a new subscriber for the partitions in ``qos``."""
        return Subscriber(self, qos)

    def close(self) -> None:
        """Leave the domain; may be called again."""
        _delete(self.cyclone)

    def wait_for_history(self, reader: DataReader, timeout: float) -> bool:
        """Wait until a reader has the historical data: what was written before the reader was created.

        Cyclone cannot wait for historical data. A reader receives it when it has discovered the writer. So
        wait until the participant is old enough to have discovered all others, and until no reader has
        discovered another writer for some time. All readers of the participant wait together, because each
        wait by itself would take as long.

        Parameters
        ----------
        reader
            The reader.
        timeout
            How long to wait at most (seconds).

        Returns
        -------
        complete
            False after the timeout.
        """
        deadline = time.monotonic() + timeout
        with self._history_lock:
            if reader not in self._readers_without_history:
                return True
            waiting = list(self._readers_without_history)
            matches: list[int] = []
            quiet_since = now = time.monotonic()
            while True:
                previous, matches = matches, [reader.count_writers() for reader in waiting]
                slept, now = now, time.monotonic()
                # After an oversleep other programs may not have had the processor either: start again.
                if matches != previous or now - slept > 5 * _POLL_INTERVAL:
                    quiet_since = now
                loaded = os.getloadavg()[0] > (os.cpu_count() or 1)
                if now - self._created > _MIN_AGE[loaded] and now - quiet_since > _QUIET_TIME[loaded]:
                    self._readers_without_history.difference_update(waiting)
                    return True
                if now > deadline:
                    return False
                time.sleep(_POLL_INTERVAL)


class Publisher:
    """Creates writers for the same partitions."""

    def __init__(self, participant: DomainParticipant, qos: Qos) -> None:
        self.cyclone = cyclonedds.pub.Publisher(participant.cyclone, qos.for_group())

    def create_datawriter(self, topic: Topic, qos: Qos) -> DataWriter:
        """Return a new writer of a topic."""
        return DataWriter(self, topic, qos)


class Subscriber:
    """Creates readers for the same partitions."""

    def __init__(self, participant: DomainParticipant, qos: Qos) -> None:
        self.participant = participant
        self.cyclone = cyclonedds.sub.Subscriber(participant.cyclone, qos.for_group())

    def create_datareader(self, topic: Topic, qos: Qos) -> DataReader:
        """Return a new reader of a topic."""
        return DataReader(self, topic, qos)


class DataWriter:
    """A writer of one topic."""

    def __init__(self, publisher: Publisher, topic: Topic, qos: Qos) -> None:
        self.cyclone = cyclonedds.pub.DataWriter(publisher.cyclone, topic, qos.for_writer())

    def write(self, sample: typing.Any) -> None:
        """Write a sample.

        Raises
        ------
        struct.error
            If a value does not fit its field.
        IndexError
            If an array is too short.
        TypeError
            If a value is of a wrong type.
        DDSException
            If the writer is closed, or readers did not keep up for longer than the blocking time.
        """
        wire = sample.to_wire()
        try:
            self.cyclone.write(wire)
        except cyclonedds.core.DDSException:
            raise
        except Exception as e:  # Cyclone uses the struct module, and wraps its errors
            raise struct.error(str(e)) from e

    def close(self) -> None:
        """Close the writer; may be called again."""
        _delete(self.cyclone)


class DataReader:
    """A reader of one topic."""

    def __init__(self, subscriber: Subscriber, topic: Topic, qos: Qos) -> None:
        self._participant = subscriber.participant
        self._isopen = True
        self._data_class = topic.data_type
        self.dropped = DroppedSamples(topic.name)
        self.cyclone = cyclonedds.sub.DataReader(subscriber.cyclone, topic, qos.for_reader())
        # Keep references: Cyclone deletes conditions together with their reader.
        self.conditions: list[ReadCondition] = []
        if qos.durability.kind is not DDSDurabilityKind.VOLATILE:
            self._participant._readers_without_history.add(self)

    def create_readcondition(self, mask: Iterable[DDSStateKind]) -> ReadCondition:
        """Return a new condition for this reader's samples."""
        return ReadCondition(self, mask)

    def take_cond(self, condition: ReadCondition, max_samples: int) -> list[tuple[typing.Any, SampleInfo]]:
        """Take the samples that satisfy a condition.

        Parameters
        ----------
        condition
            The condition. Samples that do not satisfy it are dropped.
        max_samples
            Largest number of samples to return.

        Returns
        -------
        samples
            Data and information of each, the oldest first. Notices that carry no data, such as that an
            instance lost its writer, are left out. So are samples that cannot be decoded: they are counted in
            `dropped` and logged.

        Raises
        ------
        DDSException
            If Cyclone cannot read.
        """
        taken: list[tuple[typing.Any, SampleInfo]] = []
        while len(taken) < max_samples:
            samples = self._take_serialized(max_samples - len(taken), condition)
            if not samples:
                break
            now = time.time_ns()
            for data, info in samples:
                if info.valid_data:
                    try:
                        sample = decode(self._data_class, data)
                        wanted = condition.accepts(sample)
                    except Exception as e:
                        self.dropped.add(e)
                        continue
                    if wanted:
                        taken.append((sample, SampleInfo(now, info.source_timestamp)))
        return taken

    def _take_serialized(self, max_samples: int, condition: ReadCondition) -> list[tuple[bytes, typing.Any]]:
        """Take samples as they came over the wire, with Cyclone's information about each.

        Cyclone's own `take` decodes them all in one go: a single sample that cannot be decoded would lose
        the others.

        Raises
        ------
        DDSException
            If Cyclone cannot read.
        """
        result = ddspy_take(self.cyclone._ref, condition.cyclone.mask, max_samples)
        if isinstance(result, int):
            if not self._isopen:
                return []  # closed by another thread in the meantime
            raise cyclonedds.core.DDSException(result, f"Cannot take samples of {self._data_class.__name__}")
        return result

    def wait_for_historical_data(self, timeout: DDSDuration) -> bool:
        """Wait until the historical data is here; return False after the timeout."""
        return self._participant.wait_for_history(self, timeout.nanoseconds * 1e-9)

    def count_writers(self) -> int:
        """Return the number of writers that this reader has discovered; 0 if it is closed."""
        try:
            return len(self.cyclone.get_matched_publications())
        except cyclonedds.core.DDSException:
            if self._isopen:
                raise
            return 0

    def close(self) -> None:
        """Close the reader and its conditions; may be called again."""
        self._isopen = False
        self._participant._readers_without_history.discard(self)
        _delete(self.cyclone)
