"""Replay and tail on the mock cluster: to the ends noted at the start, in order, bounded when the broker is away."""

from __future__ import annotations

import threading
import time
from collections import defaultdict
from collections.abc import Iterator
from typing import Any

import pytest
from confluent_kafka import Producer

from streams.core.names import Site
from streams.errors import NotFound, Temporary
from streams.kafka import replay as replaying
from streams.kafka.reader import LogReader
from streams.kafka.replay import end_offsets, replay
from streams.settings import Settings
from tests.kafka.tailing import tail

A = Site("T1_A")


@pytest.fixture
def written(mock: Any, settings: Settings) -> Iterator[Producer]:
    """100 records over the four partitions of `transfers`, ten in `manifests` [2], each with its number as value."""
    producer = Producer({"bootstrap.servers": mock.bootstrap, "log_level": 0})
    for no in range(100):
        producer.produce("transfers", f"{no}", f"k{no}", partition=no % 4, headers=[("h", b"x"), ("n", None)])
    for no in range(10):
        producer.produce("manifests", f"{no}", b"k", partition=2)
    assert producer.flush(10) == 0
    yield producer
    producer.flush(10)


def test_everything_once_in_the_order_of_each_partition(written: Producer, settings: Settings) -> None:
    found: dict[tuple[str, int], list[int]] = defaultdict(list)
    for record in replay(settings, A, ["transfers", "manifests", "replicas"]):
        assert record.offset == len(found[record.topic, record.partition])
        found[record.topic, record.partition].append(int(record.value or b"-1"))
    assert found == {
        **{("transfers", p): list(range(p, 100, 4)) for p in range(4)},
        ("manifests", 2): list(range(10)),
    }


def test_a_record_is_whole(written: Producer, settings: Settings) -> None:
    before_ms = time.time() * 1000
    record = next(iter(replay(settings, A, ["transfers"], partitions=[3])))
    assert (record.topic, record.partition, record.offset, record.key, record.value) == ("transfers", 3, 0, b"k3", b"3")
    assert record.headers == [("h", b"x"), ("n", None)]
    assert before_ms - 60_000 < record.timestamp_ms <= before_ms + 1000


@pytest.mark.parametrize("large_records", [False, True])
def test_partitions_and_starts_narrow_what_is_read(written: Producer, settings: Settings, large_records: bool) -> None:
    def values(**how: Any) -> list[bytes | None]:
        return [r.value for r in replay(settings, A, ["transfers"], large_records=large_records, **how)]

    assert values(partitions=[1]) == [f"{no}".encode() for no in range(1, 100, 4)]
    assert values(partitions=[1], start={("transfers", 1): 24}) == [b"97"]
    assert values(partitions=[1], start={("transfers", 1): 25}) == []
    assert values(start="end") == []
    assert len(values(start={("transfers", 0): 20})) == 5 + 75, "places not named start at the beginning"


def test_what_comes_after_the_start_is_not_waited_for(written: Producer, settings: Settings) -> None:
    records = replay(settings, A, ["transfers"])
    assert next(records).topic == "transfers"
    for no in range(1000):
        written.produce("transfers", b"late", partition=no % 4)
    assert written.flush(10) == 0
    rest = [record.value for record in records]
    assert b"late" not in rest
    assert 1 + len(rest) == 100


def test_tombstones_and_empty_values_are_records(written: Producer, settings: Settings) -> None:
    written.produce("replicas", None, b"k", partition=0)
    written.produce("replicas", b"", b"k", partition=0)
    assert written.flush(10) == 0
    assert [r.value for r in replay(settings, A, ["replicas"])] == [None, b""]


def test_nothing_to_read_ends_at_once(settings: Settings) -> None:
    started = time.monotonic()
    assert list(replay(settings, A, ["transfers", "manifests"])) == []
    assert list(replay(settings, A, [])) == []
    assert time.monotonic() - started < 5


def test_ends_and_times(written: Producer, settings: Settings) -> None:
    assert end_offsets(settings, A, ["transfers"]) == {("transfers", p): 25 for p in range(4)}
    with LogReader(settings, A) as reader:
        places = reader.partitions_of(["manifests"])
        assert places == [("manifests", p) for p in range(4)]
        assert reader.begin_offsets(places) == dict.fromkeys(places, 0)
        assert reader.end_offsets([]) == {}


def test_a_topic_that_is_not_there_is_named(settings: Settings) -> None:
    with pytest.raises(NotFound, match=r"no topic none, nix.*T1_A.*topic create"):
        list(replay(settings, A, ["transfers", "none", "nix"]))
    with pytest.raises(NotFound, match="no topic none"):
        list(tail(settings, A, ["none"], stop=lambda: True))


def test_tail_follows_until_told_to_stop(written: Producer, settings: Settings) -> None:
    seen: list[bytes | None] = []
    done = threading.Event()

    def follow() -> None:
        for record in tail(settings, A, ["transfers"], stop=done.is_set, start={("transfers", 0): 24}):
            seen.append(record.value)
            if record.value == b"new":
                done.set()

    follower = threading.Thread(target=follow)
    follower.start()
    written.produce("transfers", b"new", partition=0)
    assert written.flush(10) == 0
    follower.join(20)
    assert not follower.is_alive()
    assert seen.count(b"96") == 1
    assert b"new" in seen


def test_tail_from_the_end_sees_only_what_is_new(written: Producer, settings: Settings) -> None:
    stop_at = time.monotonic() + 0.5
    assert list(tail(settings, A, ["transfers"], stop=lambda: time.monotonic() > stop_at)) == []


def test_a_broker_that_is_away_is_said_in_bounded_time(mock: Any, settings: Settings) -> None:
    mock.stop()
    started = time.monotonic()
    with pytest.raises(Temporary, match=r"T1_A, 127\.0\.0\.1:.*transfer2go status"):
        list(replay(settings, A, ["transfers"]))
    assert time.monotonic() - started < 8


def test_a_broker_that_goes_away_while_reading_is_said(
    mock: Any, written: Producer, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(replaying, "STALL_S", 1.0)
    with LogReader(settings, A, away_s=0.5) as reader:
        places = reader.partitions_of(["transfers"])
        reader.assign(dict.fromkeys(places, 0))
        assert reader.batch(5)
        reading = replaying._to_ends(reader, dict.fromkeys(places, 25), dict.fromkeys(places, 50))
        mock.stop()
        with pytest.raises(Temporary, match=r"nothing heard|no broker has answered"):
            list(reading)


def test_places_are_added_and_dropped_while_reading(written: Producer, settings: Settings) -> None:
    with LogReader(settings, A) as reader:
        reader.assign({("transfers", 0): 0})
        first = _read(reader, 25)
        reader.add({("manifests", 2): 8})
        assert _read(reader, 2) == [("manifests", 2, 8), ("manifests", 2, 9)]
        reader.drop([("transfers", 0)])
        written.produce("transfers", b"unseen", partition=0)
        written.produce("manifests", b"seen", partition=2)
        assert written.flush(10) == 0
        assert _read(reader, 1) == [("manifests", 2, 10)]
    assert first == [("transfers", 0, offset) for offset in range(25)]


def _read(reader: LogReader, count: int) -> list[tuple[Any, Any, Any]]:
    found: list[tuple[Any, Any, Any]] = []
    deadline = time.monotonic() + 10
    while len(found) < count and time.monotonic() < deadline:
        found += [(m.topic(), m.partition(), m.offset()) for m in reader.batch(0.1)]
    return found
