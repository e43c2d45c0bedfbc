"""The publish gate on the mock cluster: numbers without gaps, incarnations that end with a failure, announcements."""

from __future__ import annotations

import threading
import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import Producer

from streams import wire
from streams.core import topics
from streams.core.names import Dataset, IntentId, Lfn, ManifestId, Site, Text
from streams.core.records import (
    Asked,
    ChunkHeader,
    FailureClass,
    FilesLost,
    IntentAsked,
    Origin,
    Reason,
    Scope,
    Segment,
    SiteAnnounced,
)
from streams.errors import NeverWorks, NotFound, Temporary, WireError
from streams.kafka import sequenced_producer as lane_module
from streams.kafka.publish import Publisher
from streams.kafka.replay import replay
from streams.settings import Settings, SiteEntry

A, B = Site("T1_A"), Site("T2_B")
Numbers = dict[tuple[str, str, int], list[int]]


def intent(no: int) -> IntentId:
    return IntentId(f"T1_A.{no:08d}-0000-0000-0000-000000000000")


def asked(no: int) -> IntentAsked:
    return IntentAsked(intent(no), Asked.CANCEL, Text("tester"))


def lost(dataset: Dataset) -> FilesLost:
    reason = Reason(Scope.SOURCE, FailureClass.PERMANENT, "check", Text("gone"))
    return FilesLost(dataset, A, (Lfn("/store/a"),), reason)


def chunk(no: int, size: int) -> ChunkHeader:
    return ChunkHeader(ManifestId.of(intent(no), 0, 0), B, 1, 0, size, (Segment(0, 0, size, size, 7),), False)


def numbers(settings: Settings, *names: str) -> Numbers:
    """Sequence numbers in log order, by (incarnation, topic, partition)."""
    found: Numbers = defaultdict(list)
    for record in replay(settings, A, names or (topics.INTENTS, topics.ANNOUNCEMENTS)):
        origin = wire.decode(record.topic, record.key, record.value, record.headers, A).origin
        found[(origin.incarnation, record.topic, record.partition)].append(origin.seq)
    return found


def announced(settings: Settings) -> list[tuple[SiteAnnounced, Origin]]:
    heard = (wire.decode(*r[:1], r.key, r.value, r.headers, A) for r in replay(settings, A, [topics.ANNOUNCEMENTS]))
    return [(h.message, h.origin) for h in heard if isinstance(h.message, SiteAnnounced)]


def until(true: Callable[[], Any], within_s: float = 10.0) -> None:
    deadline = time.monotonic() + within_s
    while not true():
        assert time.monotonic() < deadline, "did not come true"
        time.sleep(0.01)


def test_numbers_are_contiguous_per_topic_and_partition_from_several_threads(settings: Settings) -> None:
    acks: list[Exception | None] = []
    with Publisher(settings, A, "w0", "worker", now_ms=lambda: 77) as publisher:
        threads = [
            threading.Thread(target=lambda k=k: [publisher.send(asked(i), acks.append) for i in range(k, 400, 4)])
            for k in range(4)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert publisher.flush(10) == 0
        assert acks == [None] * 400
        last = publisher._control.acknowledged()
    found = numbers(settings, topics.INTENTS)
    assert {i for i, _, _ in found} == {publisher.incarnation}
    assert sum(map(len, found.values())) == 400
    for (_, topic, partition), seqs in found.items():
        assert seqs == list(range(len(seqs)))
        assert last[topic, partition] == seqs[-1]


def test_a_record_is_keyed_and_placed_as_the_contract_says(settings: Settings) -> None:
    with Publisher(settings, A, "w0", "worker", now_ms=lambda: 77) as publisher:
        publisher.send(asked(5))
    (record,) = replay(settings, A, [topics.INTENTS])
    assert record.key == intent(5).encode()
    assert record.partition == topics.partition_of(intent(5), settings.registry.partitions)
    heard = wire.decode(record.topic, record.key, record.value, record.headers, A)
    assert heard.message == asked(5)
    assert heard.origin == Origin(A, "w0", publisher.incarnation, 0, 77)


def test_close_says_the_last_numbers_only_if_something_was_sent(settings: Settings) -> None:
    assert Publisher(settings, A, "idle", "cli").close() == 0
    publisher = Publisher(settings, A, "w0", "cli")
    for no in range(20):
        publisher.send(asked(no))
    assert publisher.close() == 0
    ((message, origin),) = announced(settings)
    assert (message.writer, message.role, message.closing, message.incarnation) == (
        "w0",
        "cli",
        True,
        origin.incarnation,
    )
    assert message.registry_digest == settings.registry.digest
    assert sum(last.seq + 1 for last in message.sequences) == 20
    with pytest.raises(Temporary, match="closed"):
        publisher.send(asked(1))


def test_announce_says_what_is_in_the_log_so_far(settings: Settings) -> None:
    with Publisher(settings, A, "w0", "worker") as publisher:
        publisher.send(asked(1))
        publisher.send_chunk(chunk(1, 10), b"0123456789")
        assert publisher.flush(10) == 0
        publisher.announce(api="http://127.0.0.1:1", endpoints=("default",), every_s=9)
        assert publisher.flush(10) == 0
        control, chunks = [message for message, _ in announced(settings)]
    assert [(s.topic, s.seq) for s in control.sequences] == [(topics.INTENTS, 0)]
    assert [(s.topic, s.seq) for s in chunks.sequences] == [(topics.chunks_to(B), 0)]
    assert control.incarnation != chunks.incarnation
    assert (control.api, control.endpoints, control.every_s, control.closing) == (
        "http://127.0.0.1:1",
        ("default",),
        9,
        False,
    )
    assert control.peers == (B,)


def test_a_failed_delivery_starts_a_new_incarnation_and_leaves_no_gap(settings: Settings) -> None:
    """The registry says 8 partitions where the cluster has 4: the first record of a topic, if it is for the upper half,
    is taken and cannot be delivered. One whose topic becomes known meanwhile is refused at once, and numbers nothing.
    """
    settings = replace(settings, registry=replace(settings.registry, partitions=8))
    low = [no for no in range(200) if topics.partition_of(intent(no), 8) < 4]
    names = (Dataset(f"/P/{no}/T") for no in range(200))
    high = lost(next(name for name in names if topics.partition_of(name, 8) >= 4))
    failed: list[Exception | None] = []
    acks: dict[int, list[Exception | None]] = defaultdict(list)
    refused: set[str] = set()
    for _ in range(5):
        publisher = Publisher(settings, A, "w0", "worker")
        first = publisher.incarnation
        acks.clear()
        for no in low[:20]:
            publisher.send(asked(no), acks[no].append)
        assert publisher.flush(10) == 0
        try:
            publisher.send(high, failed.append)
            break
        except NotFound:
            refused.add(first)
            assert publisher.incarnation == first
            publisher.close()
    for no in low[20:60]:
        publisher.send(asked(no), acks[no].append)
    until(lambda: publisher.incarnation != first)
    assert publisher.flush(10) == 0
    for no in low[60:]:
        publisher.send(asked(no), acks[no].append)
    assert publisher.close() == 0
    assert all(len(said) == 1 for said in acks.values()), "each record is answered once"
    assert [type(error) for error in failed] == [NotFound]
    assert all(acks[no] == [None] for no in (*low[:20], *low[60:]))
    found = numbers(settings)
    assert {i for i, _, _ in found} - refused == {first, publisher.incarnation}
    for seqs in found.values():
        assert seqs == list(range(len(seqs)))
    there = {r.key for r in replay(settings, A, [topics.INTENTS])}
    missing = {no for no in low if intent(no).encode() not in there}
    assert all(acks[no][0] is not None for no in missing), "what is not in the log was said to have failed"
    closing = {message.incarnation: message for message, _ in announced(settings) if message.closing}
    assert closing.keys() - refused == {first, publisher.incarnation}
    for last in closing[first].sequences:
        assert last.seq < len(found[first, last.topic, last.partition]), "the last numbers are in the log"


def test_a_broker_that_went_away_is_said_in_bounded_time(mock: Any, settings: Settings) -> None:
    entries = tuple(replace(e, kafka={"delivery.timeout.ms": "1000"}) for e in settings.registry.sites)
    settings = replace(settings, registry=replace(settings.registry, sites=entries))
    publisher = Publisher(settings, A, "w0", "worker")
    publisher.send(asked(1))
    assert publisher.flush(10) == 0
    first, said = publisher.incarnation, []
    mock.stop()
    started = time.monotonic()
    for no in range(10):
        publisher.send(asked(no), said.append)
    assert time.monotonic() - started < 0.2, "sending never waits"
    assert publisher.flush(10) == 0
    assert len(said) == 10
    assert all(isinstance(error, Temporary) and "transfer2go status" in str(error) for error in said)
    until(lambda: publisher.incarnation != first)  # the next producer is made by the lane's own thread
    publisher.send(asked(1), said.append)
    assert publisher.close(0.1) >= 1
    assert len(said) == 11, "what is given up at the end is said too"
    assert time.monotonic() - started < 8


def test_a_full_buffer_is_said_at_once_and_numbers_nothing(settings: Settings) -> None:
    with Publisher(settings, A, "p0", "plane") as publisher:
        payload = bytes(1 << 20)
        taken = 0

        def fill() -> None:
            nonlocal taken
            while taken < 100:
                publisher.send_chunk(chunk(1, len(payload)), payload)
                taken += 1

        with pytest.raises(Temporary, match="acknowledgement"):
            fill()
        publisher.send_chunk(chunk(1, len(payload)), memoryview(payload), wait_s=10)
    seqs = [
        wire.decode_chunk(r.topic, r.key, r.value, r.headers, A).origin.seq
        for r in replay(settings, A, [topics.chunks_to(B)], large_records=True)
    ]
    assert taken >= 1
    assert seqs == list(range(seqs[0], taken + 1)), "the mock keeps the last few MB only"


def test_the_largest_payload_passes(settings: Settings) -> None:
    settings = replace(settings, chunk_queue_bytes=16 << 20)
    payload = bytes(range(256)) * (8 << 12)
    with Publisher(settings, A, "p0", "plane") as publisher:
        publisher.send_chunk(chunk(1, len(payload)), payload)
    (record,) = replay(settings, A, [topics.chunks_to(B)], large_records=True)
    assert record.value == payload
    assert record.headers is not None
    assert wire.decode_chunk(record.topic, record.key, record.value, record.headers, A).header == chunk(1, len(payload))


def test_what_the_wire_refuses_is_raised_to_the_sender_and_takes_no_number(settings: Settings) -> None:
    with Publisher(settings, A, "w0", "worker") as publisher:
        with pytest.raises(WireError):
            publisher.send(replace(asked(1), priority=11))
        publisher.send(asked(1))
    assert sorted(map(tuple, numbers(settings, topics.INTENTS).values())) == [(0,)]


def test_an_acknowledgement_that_raises_harms_nobody(settings: Settings, caplog: pytest.LogCaptureFixture) -> None:
    def raises(error: Exception | None) -> None:
        raise ValueError("not my day")

    said: list[Exception | None] = []
    with Publisher(settings, A, "w0", "worker") as publisher:
        publisher.send(asked(1), raises)
        publisher.send(asked(1), said.append)
        assert publisher.flush(10) == 0
    assert said == [None]
    assert "not my day" in caplog.text


def test_a_machine_short_of_threads_gets_its_producer_later(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is lost, nobody's thread ends, and what cannot be sent meanwhile is said."""
    with Publisher(settings, A, "w0", "worker") as publisher:
        publisher.send(asked(1))
        assert publisher.flush(10) == 0
        lane = publisher._lane
        assert lane is not None
        real, refused = lane_module.client.make_producer, list[int]()

        def short(config: Any) -> Any:
            refused.append(1)
            if len(refused) < 3:
                raise Temporary("no Kafka client can be made: no threads")
            return real(config)

        monkeypatch.setattr(lane_module.client, "make_producer", short)
        with lane._lock:
            lane._end(lane._now)
        with pytest.raises(Temporary, match="no producer works"):
            publisher.send(asked(2))
        until(lambda: len(refused) >= 3)
        publisher.send(asked(3))
        assert publisher.flush(10) == 0
    there = [r.key for r in replay(settings, A, [topics.INTENTS])]
    assert sorted(there) == sorted([intent(1).encode(), intent(3).encode()])


def test_settings_librdkafka_refuses_are_named_without_their_values(settings: Settings) -> None:
    entry = SiteEntry(A, "127.0.0.1:1", kafka={"sasl.passwort": "hush"})
    with pytest.raises(NeverWorks, match=r"sasl\.passwort") as caught:
        Publisher(replace(settings, registry=replace(settings.registry, sites=(entry,))), A, "w", "cli")
    assert "hush" not in str(caught.value)


def test_nothing_is_printed_when_no_broker_is_there(settings: Settings, tmp_path: Path, capfd: Any) -> None:
    nobody = replace(settings.registry, sites=(SiteEntry(A, "127.0.0.1:9"), SiteEntry(B, "127.0.0.1:9")))
    publisher = Publisher(replace(settings, registry=nobody), A, "w0", "cli")
    publisher.send(asked(1))
    assert publisher.close(0.3) == 1
    assert capfd.readouterr() == ("", "")


def test_partitions_are_those_of_librdkafka(mock: Any, settings: Settings) -> None:
    keys = [f"T1_A.{no}".encode() * (no % 5 + 1) for no in range(300)]
    chosen: dict[bytes, int] = {}
    producer = Producer({"bootstrap.servers": mock.bootstrap, "partitioner": "murmur2_random", "log_level": 0})
    for key in keys:
        producer.produce("transfers", b"", key, on_delivery=lambda _, m: chosen.update({m.key(): m.partition()}))
    producer.flush(10)
    assert chosen == {key: topics.partition_of(key, 4) for key in keys}
