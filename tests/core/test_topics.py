"""Topics: names and back, who mirrors what, keys, and Java's partitioner."""

from __future__ import annotations

from typing import Any, get_args

import pytest

from streams.core import records as m
from streams.core import topics
from streams.core.names import Site
from streams.core.ranges import Ranges
from tests.core import example as x

SITES = (x.A, x.B, x.C)


@pytest.mark.parametrize(
    ("key", "hashed"),
    [
        (b"21", -973932308),
        (b"foobar", -790332482),
        (b"a-little-bit-long-string", -985981536),
        (b"a-little-bit-longer-string", -1486304829),
        (b"lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58897971),
        (b"abc", 479470107),
    ],
)
def test_murmur2_is_javas(key: bytes, hashed: int) -> None:
    assert topics.murmur2(key) == hashed & 0xFFFFFFFF
    assert topics.partition_of(key, 8) == (hashed & 0x7FFFFFFF) % 8


def test_a_key_as_text_or_bytes_goes_to_one_partition() -> None:
    keys = [f"{x.INTENT}.0.{n}" for n in range(200)]
    found = {topics.partition_of(key, 8) for key in keys}
    assert found == set(range(8)), "manifests of one intent spread"
    assert all(topics.partition_of(key, 8) == topics.partition_of(key.encode(), 8) for key in keys)


@pytest.mark.parametrize("auditor", [None, x.B])
def test_every_mirrored_copy_is_wanted(auditor: Site | None) -> None:
    """What any mirror writes, and what it reads, exists before it starts: Faust and MM2 create none as we want them."""
    for target in SITES:
        there = {t.name: t for t in topics.wanted(target, SITES, auditor=target == auditor)}
        for origin in SITES:
            if origin == target:
                continue
            here = {t.name: t for t in topics.wanted(origin, SITES, auditor=origin == auditor)}
            for name in topics.mirrored(target, target_is_auditor=target == auditor):
                assert name in here, "the mirror's source topic exists"
                copy = there[topics.remote(origin, name)]
                assert copy.retention is here[name].retention, "a copy lives as long as its original"
        copies = {name for name in there if "." in name}
        assert copies == {
            topics.remote(origin, name)
            for origin in SITES
            if origin != target
            for name in topics.mirrored(target, target_is_auditor=target == auditor)
        }, "and no other copy"


def test_only_payload_is_ever_forgotten() -> None:
    for topic in topics.wanted(x.A, SITES):
        forgets = topic.retention is topics.Retention.PAYLOAD
        assert forgets == ("chunks-to-" in topic.name)


def test_what_a_mirror_copies() -> None:
    """What every peer keeps of a site, and what goes to one."""
    to_all = {
        *("transfer-intents", "manifests", "transfer-reports", "completion-records", "replicas"),
        *("site-announcements", "intent-decisions", "journal-seals", "keeping"),
    }
    assert set(topics.mirrored(x.B)) == {*to_all, "chunk-requests-to-S_B", "chunks-to-S_B"}
    assert set(topics.mirrored(x.B, target_is_auditor=True)) == {*topics.mirrored(x.B), "chunk-events"}


def test_what_is_local_is_mirrored_nowhere() -> None:
    for target in SITES:
        assert not set(topics.mirrored(target)) & set(topics.LOCAL)
        others = {f(s) for s in SITES if s != target for f in (topics.requests_to, topics.chunks_to)}
        assert not set(topics.mirrored(target)) & others, "a payload topic goes to its own site only"


def test_a_site_among_its_peers_is_no_peer_of_itself() -> None:
    assert topics.wanted(x.A, SITES) == topics.wanted(x.A, (x.B, x.C))
    names = [t.name for t in topics.wanted(x.A, SITES)]
    assert len(names) == len(set(names))


def test_remote_names_and_back() -> None:
    for name in (*topics.TO_EVERY_PEER, *topics.LOCAL, topics.requests_to(x.B), topics.chunks_to(x.B)):
        assert "." not in name, "a dot means: comes from elsewhere"
        assert topics.split(name) == (None, name)
        assert topics.split(topics.remote(x.A, name)) == (x.A, name)


TEXT = x.body().requester
STEPS: tuple[tuple[Any, ...], ...] = (
    (m.ClaimDecided,),
    (m.LeaveAsked, x.BLOCK, "", (), ()),
    (m.KeepPromised, x.A, 1, x.SHA256, ()),
    (m.RemovalDecided, 1),
    (m.ChainSettled,),
)
MESSAGES: tuple[m.Message, ...] = (
    x.body(),
    x.cancel(),
    x.decided(),
    x.written(),
    x.planned(x.written()),
    x.told(1),
    x.opened(),
    x.lost(),
    x.expired(1),
    x.source_failed(1),
    x.closed(),
    x.requested(1, Ranges([(0, 5)])),
    x.progress(),
    m.ChunksServed(x.MANIFEST, x.C, x.B, 1, Ranges(), 0),
    m.ChunksOffered(x.MANIFEST, x.B, x.C, 1, Ranges.of(0), 0, (), x.reason()),
    m.UrlsOffered(x.MANIFEST, x.B, x.C, 1, Ranges.of(0), 0, (m.ItemUrl(0, "http://h/f"),)),
    x.reported(),
    x.completed(),
    x.removed(),
    x.answered(),
    m.FilesHeld(x.DATASET, x.B, ()),
    m.FilesLost(x.DATASET, x.B, (), x.reason()),
    m.SiteAnnounced(x.A, "w", "i", "worker", "", "", (), (), 5, False, ()),
    *(step(x.B, x.DATASET, 1, "", "p", 0, TEXT, None, TEXT, *more) for step, *more in STEPS),
    m.ReplicasChecked(x.B, x.DATASET, x.A, 1, x.SHA256, 0, ()),
    m.JournalsSealed(x.A, 0, "", 0, (m.SealedJournal(x.A, "manifests", 0, 1, bytes(32)),), None, b""),
    m.DeadLetter(x.body().requester, "manifests", 0, 0, b"k", b"", ""),
)


def test_every_message_has_one_topic_and_one_key() -> None:
    assert {type(msg) for msg in MESSAGES} == set(get_args(m.Message))
    own = {topic.name for topic in topics.wanted(x.A, SITES)}
    for msg in MESSAGES:
        assert m.topic_of(msg) in own
        assert m.key_of(msg)
        allowed = {name for name in own if "." not in name and m.allowed_in(type(msg), name)}
        chunks = topics.chunks_to
        of_site = {
            m.ChunksRequested: topics.requests_to,
            m.ChunksOffered: chunks,
            m.UrlsOffered: chunks,
        }.get(type(msg))
        expected = {m.topic_of(msg)} if of_site is None else {of_site(s) for s in SITES}
        if isinstance(msg, m.IntentDecided):
            expected.add(topics.INTENTS)  # of earlier releases
        assert allowed == expected


def test_a_row_and_all_its_facts_have_one_key() -> None:
    """So that one worker owns them, and no lock exists."""
    intent = [x.body(), x.cancel(), x.decided(), x.written(), x.reported(), x.completed()]
    assert {m.key_of(msg) for msg in intent} == {x.INTENT}
    transfer = [
        x.planned(x.written()),
        x.told(1),
        x.opened(),
        x.lost(),
        x.expired(1),
        x.source_failed(1),
        x.closed(),
        x.progress(),
        x.requested(1, Ranges([(0, 5)])),
    ]
    assert {m.key_of(msg) for msg in transfer} == {x.MANIFEST}
