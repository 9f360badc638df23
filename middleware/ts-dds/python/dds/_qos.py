# SPDX-License-Identifier: GPL-3.0-or-later

"""Quality of service: read from a file of profiles, handed to Cyclone as policies."""

import enum
import typing
import urllib.parse
import urllib.request
import xml.etree.ElementTree as ET
from collections.abc import Iterable
from dataclasses import dataclass, field

import cyclonedds.qos
from cyclonedds.qos import Policy
from cyclonedds.util import duration

__all__ = ["DDSDurabilityKind", "DDSHistoryKind", "PartitionQosPolicy", "Qos", "QosProvider"]


class DDSDurabilityKind(enum.IntEnum):
    """What a reader that comes late is given."""

    VOLATILE = 0
    TRANSIENT_LOCAL = 1
    TRANSIENT = 2
    PERSISTENT = 3


class DDSHistoryKind(enum.IntEnum):
    """Which samples of an instance are kept."""

    KEEP_LAST = 0
    KEEP_ALL = 1


class PartitionQosPolicy(typing.NamedTuple):
    """The partitions that a publisher writes to or a subscriber reads from."""

    name: Iterable[str]


@dataclass
class DurabilityQosPolicy:
    """Durability of a topic, a reader or a writer."""

    kind: DDSDurabilityKind = DDSDurabilityKind.VOLATILE


@dataclass
class HistoryQosPolicy:
    """How many samples per instance a reader or a writer keeps; the depth counts for KEEP_LAST only."""

    kind: DDSHistoryKind = DDSHistoryKind.KEEP_LAST
    depth: int = 1

    def to_cyclone(self) -> typing.Any:
        """Return the same as a policy of Cyclone."""
        if self.kind is DDSHistoryKind.KEEP_ALL:
            return Policy.History.KeepAll
        return Policy.History.KeepLast(self.depth)


@dataclass
class DurabilityServiceQosPolicy:
    """How many samples per instance are kept for readers that come late."""

    history_kind: DDSHistoryKind = DDSHistoryKind.KEEP_LAST
    history_depth: int = 1


@dataclass
class ReliabilityQosPolicy:
    """Reliable delivery, and how long (seconds) a write may block for it."""

    max_blocking_time: float = 0.1


@dataclass
class Qos:
    """The policies of one entity.

    Only what SAL needs is here. Ownership in particular is always shared: with exclusive ownership the
    acknowledgements of a CSC that died would hide those of its successor until the lease ends.
    """

    durability: DurabilityQosPolicy = field(default_factory=DurabilityQosPolicy)
    durability_service: DurabilityServiceQosPolicy = field(default_factory=DurabilityServiceQosPolicy)
    history: HistoryQosPolicy = field(default_factory=HistoryQosPolicy)
    reliability: ReliabilityQosPolicy = field(default_factory=ReliabilityQosPolicy)
    partition: PartitionQosPolicy = field(default_factory=lambda: PartitionQosPolicy(()))

    def set_policies(self, policies: Iterable[PartitionQosPolicy]) -> None:
        """Replace policies.

        Parameters
        ----------
        policies
            The new policies; only the partition can be replaced.

        Raises
        ------
        TypeError
            If a policy is of another kind.
        """
        for policy in policies:
            if not isinstance(policy, PartitionQosPolicy):
                raise TypeError(f"Only the partition can be set, not {policy!r}")
            self.partition = policy

    def for_group(self) -> cyclonedds.qos.Qos:
        """Return the policies of a publisher or a subscriber."""
        return cyclonedds.qos.Qos(Policy.Partition(tuple(self.partition.name)))

    def for_reader(self) -> cyclonedds.qos.Qos:
        """Return the policies of a reader."""
        # Nothing but TRANSIENT_LOCAL exists without a durability service, and Cyclone has none. The history
        # then lives in the writer, and is gone with it.
        if self.durability.kind is DDSDurabilityKind.VOLATILE:
            durability = Policy.Durability.Volatile
        else:
            durability = Policy.Durability.TransientLocal
        blocking_time = duration(seconds=self.reliability.max_blocking_time)
        return cyclonedds.qos.Qos(
            durability,
            Policy.Reliability.Reliable(blocking_time),
            Policy.Ownership.Shared,
            self.history.to_cyclone(),
        )

    def for_topic(self) -> cyclonedds.qos.Qos:
        """Return the policies of a topic."""
        service = self.durability_service
        history = HistoryQosPolicy(service.history_kind, service.history_depth).to_cyclone()
        return cyclonedds.qos.Qos(Policy.DurabilityService(0, history, -1, -1, -1), base=self.for_reader())

    def for_writer(self) -> cyclonedds.qos.Qos:
        """Return the policies of a writer."""
        # A writer that goes away must not dispose what readers have not taken yet.
        return cyclonedds.qos.Qos(Policy.WriterDataLifecycle(autodispose=False), base=self.for_topic())


class QosProvider:
    """Reader of a file of QoS profiles in the DDS XML format.

    Parameters
    ----------
    uri
        Address of the file (``file://…``).
    profile
        Name of the profile in it.

    Raises
    ------
    ValueError
        If there is no such profile.

    Notes
    -----
    Understood are durability, durability_service (history_kind, history_depth), history (kind, depth) and
    reliability (max_blocking_time); everything else is ignored.
    """

    def __init__(self, uri: str, profile: str) -> None:
        path = urllib.request.url2pathname(urllib.parse.urlparse(uri).path)
        for element in ET.parse(path).iter("qos_profile"):
            if element.get("name") == profile:
                self._profile = element
                return
        raise ValueError(f"No QoS profile {profile!r} in {path}")

    def _read(self, entity: str) -> Qos:
        """Return the QoS in the profile's element for one kind of entity."""

        def text(path: str, default: str) -> str:
            return (self._profile.findtext(f"{entity}/{path}") or default).strip()

        def kind(path: str, enumeration: typing.Any, default: str) -> typing.Any:
            # In the file the kinds carry the policy's name: TRANSIENT_DURABILITY_QOS, KEEP_LAST_HISTORY_QOS.
            word = text(path, default).removesuffix("_QOS")
            return enumeration[word.removesuffix("_DURABILITY").removesuffix("_HISTORY")]

        return Qos(
            durability=DurabilityQosPolicy(kind("durability/kind", DDSDurabilityKind, "VOLATILE")),
            durability_service=DurabilityServiceQosPolicy(
                kind("durability_service/history_kind", DDSHistoryKind, "KEEP_LAST"),
                int(text("durability_service/history_depth", "1")),
            ),
            history=HistoryQosPolicy(
                kind("history/kind", DDSHistoryKind, "KEEP_LAST"), int(text("history/depth", "1"))
            ),
            reliability=ReliabilityQosPolicy(
                int(text("reliability/max_blocking_time/sec", "0"))
                + int(text("reliability/max_blocking_time/nanosec", "100000000")) * 1e-9
            ),
        )

    def get_participant_qos(self) -> Qos:
        """Return the QoS of a participant."""
        return self._read("domain_participant_qos")

    def get_publisher_qos(self) -> Qos:
        """Return the QoS of a publisher."""
        return self._read("publisher_qos")

    def get_reader_qos(self) -> Qos:
        """Return the QoS of a reader."""
        return self._read("datareader_qos")

    def get_subscriber_qos(self) -> Qos:
        """Return the QoS of a subscriber."""
        return self._read("subscriber_qos")

    def get_topic_qos(self) -> Qos:
        """Return the QoS of a topic."""
        return self._read("topic_qos")

    def get_writer_qos(self) -> Qos:
        """Return the QoS of a writer."""
        return self._read("datawriter_qos")
