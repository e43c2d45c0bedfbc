"""Topic names, MM2's remote names and back, partition of a key, retention class. Records name their topic; no client.

Local names use hyphens, never dots: MirrorMaker's default policy reads a dot as "comes from elsewhere".
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache

from streams.core.names import Site

INTENTS = "transfer-intents"
DECISIONS = "intent-decisions"
"""Apart from what is asked: whoever may ask at a site must not be able to write its decisions."""
MANIFESTS = "manifests"
TRANSFERS = "transfers"
CHUNK_EVENTS = "chunk-events"
REPORTS = "transfer-reports"
COMPLETIONS = "completion-records"
REPLICAS = "replicas"
KEEPING = "keeping"
"""Chains of what sites keep, promise and remove: their last step must not be lost with a broker's cache."""
ANNOUNCEMENTS = "site-announcements"
SEALS = "journal-seals"
REPLICA_CHECKS = "replica-checks"
"""What a plane found of files that another site would remove."""
DEAD_LETTERS = "dead-letters"

TO_EVERY_PEER = (INTENTS, DECISIONS, MANIFESTS, REPORTS, COMPLETIONS, REPLICAS, KEEPING, ANNOUNCEMENTS, SEALS)
LOCAL = (TRANSFERS, CHUNK_EVENTS, REPLICA_CHECKS, DEAD_LETTERS)
OF_INTENTS = (INTENTS, DECISIONS, MANIFESTS, REPORTS, COMPLETIONS)
"""Every topic of facts that are keyed by intent."""


LogPartition = tuple[str, int]
"""(topic, partition) of a cluster."""


class Retention(StrEnum):
    JOURNAL = "journal"
    """Kept for ever, never compacted: the truth."""
    PAYLOAD = "payload"
    """Bounded by bytes: what was verified need not be kept."""


@dataclass(frozen=True, slots=True)
class Topic:
    name: str
    retention: Retention

    @property
    def is_copy(self) -> bool:
        """A peer's topic, as a mirror writes it here."""
        return "." in self.name

    @property
    def survives_its_broker(self) -> bool:
        """Whether what is acknowledged must be on a disk, or on two brokers: a promise that is lost is not kept.

        Of REPLICAS that holds once removals say there what they took: until then it would cost a sync a completion.
        """
        return self.name == KEEPING

    @property
    def broker_dated(self) -> bool:
        """Whether its records carry the time at which this site's broker took them, not what their writer says.

        A copy keeps the time of its original; of payload it is how old the bytes are that counts, and by whose clock.
        """
        return self.retention is Retention.JOURNAL and not self.is_copy


def requests_to(site: Site) -> str:
    return f"chunk-requests-to-{site}"


def is_requests(base: str) -> bool:
    """Whether a topic's base name is one that `requests_to` gives."""
    return base.startswith("chunk-requests-to-")


def chunks_to(site: Site) -> str:
    return f"chunks-to-{site}"


def is_chunks(base: str) -> bool:
    """Whether a topic's base name is one that `chunks_to` gives."""
    return base.startswith("chunks-to-")


def remote(origin: Site, topic: str) -> str:
    """Name of `origin`'s topic at any other site."""
    return f"{origin}.{topic}"


def with_copies(bases: Iterable[str], peers: Iterable[Site]) -> list[str]:
    """These topics of a site, and its copies of its peers'."""
    bases = list(bases)
    return [*bases, *(remote(peer, base) for peer in peers for base in bases)]


def of_transfers(here: Site, peers: Iterable[Site]) -> list[str]:
    """Every topic of facts that are keyed by manifest, of this site's own transfers, progress and requests."""
    return [TRANSFERS, CHUNK_EVENTS, *(requests_to(site) for site in (here, *peers))]


def split(topic: str) -> tuple[Site | None, str]:
    """(origin, base name): origin is None for a local topic."""
    origin, dot, base = topic.partition(".")
    return (Site(origin), base) if dot else (None, topic)


def mirrored(target: Site, *, target_is_auditor: bool = False) -> tuple[str, ...]:
    """What a mirror copies from any peer to `target`."""
    extra = (CHUNK_EVENTS,) if target_is_auditor else ()
    return (*TO_EVERY_PEER, requests_to(target), chunks_to(target), *extra)


def wanted(site: Site, peers: Iterable[Site], *, auditor: bool = False) -> list[Topic]:
    """Every topic that must exist at `site`: its own and the copies of its peers'."""
    peers = [p for p in peers if p != site]
    own = [Topic(name, Retention.JOURNAL) for name in (*TO_EVERY_PEER, *LOCAL)]
    own += [Topic(requests_to(p), Retention.JOURNAL) for p in (*peers, site)]
    own += [Topic(chunks_to(p), Retention.PAYLOAD) for p in (*peers, site)]
    copies = [
        Topic(remote(p, name), Retention.PAYLOAD if name == chunks_to(site) else Retention.JOURNAL)
        for p in peers
        for name in mirrored(site, target_is_auditor=auditor)
    ]
    return own + copies


def murmur2(key: bytes) -> int:
    """Java Kafka's murmur2 (32-bit, seed 0x9747b28c), unsigned: public-domain algorithm by Austin Appleby."""
    mask, mul = 0xFFFFFFFF, 0x5BD1E995
    length = len(key)
    h = (0x9747B28C ^ length) & mask
    whole = length & ~3
    for word in struct.unpack_from(f"<{whole >> 2}I", key):
        k = word * mul & mask
        k = (k ^ (k >> 24)) * mul & mask
        h = (h * mul & mask) ^ k
    tail = key[whole:]
    if tail:
        h = ((h ^ int.from_bytes(tail, "little")) * mul) & mask
    h = ((h ^ (h >> 13)) * mul) & mask
    return h ^ (h >> 15)


@lru_cache(8192)
def partition_of(key: str | bytes, partitions: int) -> int:
    """Partition of a key, as Java's default partitioner and librdkafka's `murmur2_random` choose it."""
    return (murmur2(key.encode() if isinstance(key, str) else key) & 0x7FFFFFFF) % partitions
