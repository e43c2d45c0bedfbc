"""Poison among good records, in every journal that agents and views read: a dead letter each, nothing else.

The good records behind it are applied, no worker is started again, and the audit finds every refused record answered.
"""

from __future__ import annotations

import uuid
from dataclasses import dataclass, field
from functools import partial
from typing import NamedTuple

import pytest

from streams import wire
from streams.core import records as m
from streams.core import topics
from streams.core.names import IntentId, ManifestId, Site, Text
from streams.core.policy import RECORD_BYTES_MAX
from streams.core.selectors import parse
from streams.kafka.reader import Record
from tests.sites.rig import A, B, Ear, Rig, Spot, noise, until

pytestmark = [pytest.mark.sites, pytest.mark.timeout(300)]

FORGED_MS = 1_700_000_000_000
REASONS = {
    "garbage": "not a frame",
    "unknown id": "unknown schema id",
    "fingerprint": "header avro-fp: not that of schema id",
    "wrong site": "header t2g-origin: site",
    "oversize": "over the cap",
    "tombstone": "no value",
}


class Forged(NamedTuple):
    """A record no gate let out, and where it was written."""

    site: Site
    topic: str
    partition: int
    offset: int
    kind: str
    value: bytes | None

    def is_buried_at(self, ear: Ear) -> bool:
        """Whether the ear's site has a dead letter for it, as it stands there, with the reason of its kind."""
        copied = ear.site != self.site
        topic = topics.remote(self.site, self.topic) if copied else self.topic
        return any(
            (letter.topic, letter.partition) == (topic, self.partition)
            and (copied or letter.offset == self.offset)
            and letter.value == (self.value or b"")[: 64 * 1024]
            and REASONS[self.kind] in letter.reason
            for letter in ear.messages(m.DeadLetter)
        )


@dataclass
class Forger:
    """Writes records no gate of ours would: under its own incarnation, so that it stains no other's numbers."""

    rig: Rig
    incarnations: dict[Site, str] = field(default_factory=dict)
    numbers: dict[tuple[Site, str, int], int] = field(default_factory=dict)
    forged: list[Forged] = field(default_factory=list)

    def origin(self, site: Site, topic: str, partition: int, claims: Site | None = None) -> m.Origin:
        """The next number; what claims to be another site's has none of this site's."""
        if claims is not None:
            return m.Origin(claims, "forger", uuid.uuid4().hex, 0, FORGED_MS)
        seq = self.numbers[site, topic, partition] = self.numbers.get((site, topic, partition), -1) + 1
        return m.Origin(site, "forger", self.incarnations.setdefault(site, uuid.uuid4().hex), seq, FORGED_MS)

    def poison(self, site: Site, topic: str, partition: int, like: Record) -> None:
        """One record of every kind, made from a good one of the same topic."""
        assert like.value is not None
        good = type(wire.decode(like.topic, like.key, like.value, like.headers, site).message)
        other = B if site == A else A
        made: dict[str, tuple[bytes | None, list[tuple[str, bytes]]]] = {
            "garbage": (b"\x07 not Avro at all \xff\xfe", []),
            "unknown id": (
                b"\x00\x7f\xff\xff\xff" + like.value[5:],
                wire.headers(good, self.origin(site, topic, partition)),
            ),
            "fingerprint": (like.value, wire.headers(m.DeadLetter, self.origin(site, topic, partition))),
            "wrong site": (like.value, wire.headers(good, self.origin(site, topic, partition, other))),
            "oversize": (
                like.value + bytes(RECORD_BYTES_MAX),
                wire.headers(good, self.origin(site, topic, partition)),
            ),
            "tombstone": (None, wire.headers(good, self.origin(site, topic, partition))),
        }
        for kind, (value, headers) in made.items():
            key = None if kind == "garbage" else like.key
            at = self.rig.produce(site, topic, key, value, headers, partition)
            self.forged.append(Forged(site, topic, *at, kind, value))


def _first(rig: Rig, site: Site, topic: str, key: str | None = None) -> Record:
    for record in rig.records(site, topic, key=key):
        try:
            wire.decode(record.topic, record.key, record.value, record.headers, site)
        except wire.WireError:
            continue
        return record
    raise AssertionError(f"no good record in {topic} at {site}")


def _new_intent(spot: Spot) -> m.TransferIntent:
    return m.TransferIntent(IntentId(f"{A}.{uuid.uuid4()}"), Text("tests"), (parse(spot.block()),), (B,))


def test_every_journal_survives_poison(rig: Rig, spot: Spot) -> None:
    """Six kinds in every journal of A and B around a good intent: dead letters where they were written and mirrored."""
    files = {spot.lfn("one.dat"): noise(200_000, spot), spot.lfn("empty.dat"): b""}
    rig.register(files, spot.block())
    first = rig.publish([spot.block()], source=A)
    rig.wait_done(first)
    before = rig.restarts()
    good = _new_intent(spot)
    manifest = ManifestId.of(good.intent, 0, 0)
    first_manifest = ManifestId.of(first.id, 0, 0)
    partitions = rig.settings().registry.partitions
    by_intent, by_manifest = (topics.partition_of(key, partitions) for key in (good.intent, manifest))
    spots = [
        (A, topics.INTENTS, by_intent, first.id),
        (A, topics.MANIFESTS, by_intent, first.id),
        (B, topics.REPORTS, by_intent, first.id),
        (B, topics.COMPLETIONS, by_intent, first.id),
        (B, topics.TRANSFERS, by_manifest, first_manifest),
        (B, topics.CHUNK_EVENTS, by_manifest, first_manifest),
        (B, topics.requests_to(A), by_manifest, first_manifest),
        (A, topics.REPLICAS, 0, None),
        (A, topics.ANNOUNCEMENTS, 0, None),
    ]
    forger = Forger(rig)
    samples = [_first(rig, site, topic, key) for site, topic, _, key in spots]
    with rig.ear(A, topics.DEAD_LETTERS) as at_a, rig.ear(B, topics.DEAD_LETTERS) as at_b:
        for (site, topic, partition, _), sample in zip(spots, samples, strict=True):
            forger.poison(site, topic, partition, sample)
        rig.publisher(A).send(good)
        rig.publisher(A).flush(30)
        rig.wait_done(rig.client().intent(good.intent))
        for one in forger.forged:
            for ear in (at_a, at_b):
                if ear.site == one.site or one.topic in topics.mirrored(ear.site):
                    until(partial(one.is_buried_at, ear), f"{one[:5]} is a dead letter at {ear.site}")
    rig.assert_arrived(files)
    assert rig.restarts() == before
    rig.audit()


def test_poisoned_payload_is_a_dead_letter_and_the_file_arrives(rig: Rig, spot: Spot) -> None:
    """Forged payload in front of the real one, under the very key: refused or asked for again, never written."""
    files = {spot.lfn("one.dat"): noise(600_000, spot)}
    rig.register(files, spot.block())
    good = _new_intent(spot)
    manifest = ManifestId.of(good.intent, 0, 0)
    topic, copy = topics.chunks_to(B), topics.remote(A, topics.chunks_to(B))
    payload = noise(1000, "forged")
    segment = m.Segment(0, 0, len(payload), len(payload), 12345)
    header = m.ChunkHeader(manifest, B, 1, 0, len(payload), (segment,), last=True)
    partition = topics.partition_of(manifest, rig.settings().registry.partitions)
    origin = m.Origin(A, "forger", uuid.uuid4().hex, 0, FORGED_MS)
    key = manifest.encode()
    with rig.ear(B, topics.DEAD_LETTERS) as ear:
        rig.produce(A, topic, None, b"no key", [], partition)
        rig.produce(A, topic, key, b"no header", [], partition)
        rig.produce(A, topic, key, payload[:10], wire.chunk_headers(header, origin), partition)
        rig.produce(A, topic, key, payload, wire.chunk_headers(header, origin), partition)  # a wrong crc32c
        rig.produce(A, topic, key, None, [], partition)
        until(lambda: sum(1 for _ in rig.records(B, copy, key=manifest)) == 4, "the mirror brought the forged payload")
        rig.publisher(A).send(good)
        rig.publisher(A).flush(30)
        rig.wait_done(rig.client().intent(good.intent))
        ear.until(lambda w: isinstance(w, m.DeadLetter) and w.topic == copy and w.reason == "key: missing", "no key")
    rig.assert_arrived(files)
    rig.audit()


def test_a_sender_chooses_no_topic_to_answer_to(rig: Rig, spot: Spot) -> None:
    """Faust's reply headers on a good record, also mirrored: applied as any, and nothing is written where they say."""
    files = {spot.lfn("one.dat"): noise(1000, spot)}
    rig.register(files, spot.block())
    good = _new_intent(spot)
    partition = topics.partition_of(good.intent, rig.settings().registry.partitions)
    forger = Forger(rig)
    trap = topics.requests_to(A)  # at A nobody writes it
    headers = [
        *wire.headers(good, forger.origin(A, topics.INTENTS, partition)),
        ("Faust-Ag-ReplyTo", trap.encode()),
        ("Faust-Ag-CorrelationId", b"1"),
    ]
    before = {site: rig.ends(site, trap) for site in (A,)} | {B: rig.ends(B, topics.requests_to(B))}
    rig.produce(A, topics.INTENTS, good.intent.encode(), wire.encode(good), headers, partition)
    rig.wait_done(rig.client().intent(good.intent))
    rig.assert_arrived(files)
    assert {A: rig.ends(A, trap), B: rig.ends(B, topics.requests_to(B))} == before
    rig.audit()
