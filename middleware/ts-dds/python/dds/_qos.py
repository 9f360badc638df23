# SPDX-License-Identifier: GPL-3.0-or-later

"""Quality of service: profiles from an XML file, and their translation to Cyclone's policies."""

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
    """Which historical data a late-joining reader receives."""

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
        """Return this policy as one of Cyclone."""
        if self.kind is DDSHistoryKind.KEEP_ALL:
            return Policy.History.KeepAll
        return Policy.History.KeepLast(self.depth)


@dataclass
class DurabilityServiceQosPolicy:
    """How many samples per instance are kept for late-joining readers."""

    history_kind: DDSHistoryKind = DDSHistoryKind.KEEP_LAST
    history_depth: int = 1


@dataclass
class ReliabilityQosPolicy:
    """Reliable delivery, and how long (seconds) a write may block for it."""

    max_blocking_time: float = 0.1


@dataclass
class Qos:
    """The policies of one entity.

    Only the policies that SAL needs. Ownership is always shared: with exclusive ownership, acknowledgements
    of a CSC that has died would mask those of its successor until the lease ends.
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
            If a policy is not a partition.
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
        # Cyclone has no durability service, so TRANSIENT becomes TRANSIENT_LOCAL: the history is kept by the
        # writer and lost with it.
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
        # Closing a writer must not dispose samples that readers have not taken yet.
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
    These policies are read: durability, durability_service (history_kind, history_depth), history (kind,
    depth) and reliability (max_blocking_time). All others are ignored.
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
            # In the file the name of a kind contains that of the policy: TRANSIENT_DURABILITY_QOS.
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
