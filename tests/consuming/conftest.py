"""A consumer's cluster in the test process, and a source at another site that answers what is asked of it."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

import pyarrow as pa
import pytest
from confluent_kafka import Producer

from streams import wire
from streams.consuming import session as line
from streams.core import records as m
from streams.core import topics
from streams.core.manifest import Manifest
from streams.core.names import Block, Dataset, Destination, IntentId, Lfn, ManifestId, Site, Text
from streams.core.policy import Policy
from streams.core.selectors import Kind, Selector
from streams.errors import Temporary
from streams.events.batches import fingerprint, pack
from streams.kafka.publish import Publisher
from streams.kafka.reader import LogReader, record_of
from streams.kafka.replay import replay
from streams.kafka.sequenced_producer import OnAck
from streams.settings import Registry, Settings, SiteEntry
from streams.storage.checksums import crc32c

A, B = Site("T1_A"), Site("T2_B")
ZPEAK = Destination(f"{B}/zpeak")
INTENT = IntentId("T1_A.0b5f6d6e-5a4e-4a55-8f10-0123456789ab")
MOCK_PARTITIONS = 4
CUT = 10
"""Entries of a payload record."""


def settings_of(bootstrap: str, state: Path) -> Settings:
    registry = Registry(MOCK_PARTITIONS, sites=tuple(SiteEntry(site, bootstrap) for site in (A, B)))
    found = Settings(registry, B, state, state / "cache", state / "sites.toml", state / "data")
    return replace(found, policy=Policy(lease_s=8, source_retry_s=0.5, report_s=0.2))


class SourceSite:
    """What the cluster of B gets from A: facts, and payload for what is asked. A context manager; one manifest.

    `away` holds items that cannot be read for now; `gate` is closed to hold all answers back.
    """

    def __init__(self, settings: Settings, lengths: list[int]) -> None:
        self.settings = settings
        self.away: set[int] = set()
        self.gate = threading.Event()
        self.gate.set()
        self.asked: list[m.ChunksRequested] = []
        items = tuple(_item(n, length) for n, length in enumerate(lengths))
        self.manifest = Manifest(m.ManifestWritten(INTENT, A, 0, 0, "", "", m.Unit.ENTRIES, items, True))
        self._mirror = Producer(
            {"bootstrap.servers": settings.entry(B).bootstrap, "partitioner": "murmur2_random", "log_level": 0}
        )
        self._seq = 0
        self._stop = threading.Event()

    @property
    def id(self) -> ManifestId:
        return self.manifest.body.manifest

    def publish(self, *, list_items: bool = True) -> None:
        asked = Selector(Kind.FILE, "/store/0.root")
        body = m.TransferIntent(INTENT, Text("tests"), (asked,), (ZPEAK,), selection="entries:E")
        for fact in (body, m.IntentDecided(INTENT, 1, m.Verdict.ACCEPTED, body, A, 0, 5)):
            self.say(fact)
        if list_items:
            self.say(self.manifest.body)

    def say(self, fact: m.Message) -> None:
        self._send(topics.remote(A, m.topic_of(fact)), INTENT, wire.encode(fact), wire.headers(fact, self._origin()))

    def __enter__(self) -> SourceSite:
        self._reader = LogReader(self.settings, B, away_s=1e9)
        names = [topics.requests_to(A)]
        self._reader.assign(self._reader.end_offsets(self._reader.partitions_of(names)))
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
        self._reader.close()

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                records = [record_of(message) for message in self._reader.batch(0.02)]
            except Temporary:
                continue
            for record in records:
                request = wire.decode(record.topic, record.key, record.value, record.headers, B).message
                assert isinstance(request, m.ChunksRequested)
                self.asked.append(request)
                while not self.gate.wait(0.1):
                    if self._stop.is_set():
                        return
                self._answer(request)

    def _answer(self, request: m.ChunksRequested) -> None:
        line = self.manifest.line
        pieces = [
            (piece.item, at, min(at + CUT, piece.position + piece.length))
            for start, stop in request.ranges
            for piece in line.pieces(start, stop)
            for at in range(piece.position, piece.position + piece.length, CUT)
        ]
        for n, (item, start, stop) in enumerate(pieces):
            payload, why = b"", None
            if item in self.away:
                why = m.Reason(m.Scope.SOURCE, m.FailureClass.TRANSIENT, "read", Text("the store is away"))
            else:
                batch = pa.record_batch({"n": pa.array(range(start, stop), pa.int64())})
                payload = pack(batch)
            mark = "" if why else fingerprint(batch.schema)
            crc = None if why else crc32c(payload)
            segment = m.Segment(item, start - line.starts[item], stop - start, len(payload), crc, why, mark)
            header = m.ChunkHeader(
                request.manifest, ZPEAK, request.request_no, start, stop, (segment,), n + 1 == len(pieces)
            )
            headers = wire.chunk_headers(header, self._origin())
            self._send(topics.remote(A, topics.chunks_to(B)), request.manifest, payload, headers)

    def _origin(self) -> m.Origin:
        self._seq += 1
        return m.Origin(A, "w", "i", self._seq, 1_000 + self._seq)

    def _send(self, topic: str, key: str, value: bytes, headers: list[tuple[str, bytes]]) -> None:
        partition = topics.partition_of(key, MOCK_PARTITIONS)
        self._mirror.produce(topic, value, key.encode(), partition=partition, headers=headers)
        self._mirror.flush(10)

    def said(self, topic: str) -> list[tuple[m.Origin, m.Message]]:
        """What consumers wrote, in the order of each partition."""
        records = replay(self.settings, B, [topic])
        heard = [wire.decode(r.topic, r.key, r.value, r.headers, B) for r in records]
        return [(one.origin, one.message) for one in heard]

    def progress(self) -> list[tuple[m.Origin, m.TransferProgress]]:
        return [(o, said) for o, said in self.said(topics.CHUNK_EVENTS) if isinstance(said, m.TransferProgress)]

    def completions(self) -> list[m.CompletionRecord]:
        return [said for _, said in self.said(topics.COMPLETIONS) if isinstance(said, m.CompletionRecord)]


def _item(n: int, length: int) -> m.Item:
    dataset = Dataset("/P/Q/TIER-PART")
    lfn, part = Lfn(f"/store/{n}.root"), f"entries:E[0:{length}]{{n}}"
    target = Lfn(f"{lfn}.x.parquet")
    return m.Item(lfn, dataset, Block(f"{dataset}#b"), target, part, length, 10 * length, None, "v", A)


class Forgetful(Publisher):
    """Of the records of a class, takes the first ones as `losses` say: `refused` (a full buffer), `lost` (given up, not
    in the log), `unheard` (in the log, and the acknowledgement is lost)."""

    kinds: ClassVar[tuple[type, ...]] = (m.TransferProgress,)
    losses: ClassVar[list[str]] = []

    def send(self, message: m.Message, on_ack: OnAck | None = None) -> None:
        how = self.losses.pop(0) if isinstance(message, self.kinds) and self.losses else ""
        given_up = Temporary("given up after 30 s")
        if how == "refused":
            raise Temporary("too many records wait for the broker's acknowledgement")
        if how == "lost":
            assert on_ack is not None
            on_ack(given_up)
        elif how == "unheard":
            super().send(message, lambda error: on_ack(given_up) if on_ack is not None else None)
        else:
            super().send(message, on_ack)


@pytest.fixture
def forgetful(monkeypatch: pytest.MonkeyPatch) -> type[Forgetful]:
    """What consumers of the test publish with."""
    monkeypatch.setattr(Forgetful, "losses", [])
    monkeypatch.setattr(Forgetful, "kinds", (m.TransferProgress,))
    monkeypatch.setattr(line, "Publisher", Forgetful)
    return Forgetful


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Settings]:
    """A mock cluster that holds the topics of B."""
    owner = Producer({"bootstrap.servers": "m", "test.mock.num.brokers": 1, "log_level": 0})
    brokers = owner.list_topics(timeout=10).brokers.values()
    for topic in topics.wanted(B, [A]):
        owner.list_topics(topic.name, timeout=10)
    yield settings_of(",".join(f"{b.host}:{b.port}" for b in brokers), tmp_path)
    del owner
