"""A home's cluster in the test process, and a hand that writes what its agent and the other sites would say."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from confluent_kafka import Producer

from streams import wire
from streams.core import records as m
from streams.core import topics
from streams.core.manifest import digest
from streams.core.names import Adler32, Block, Dataset, IntentId, Lfn, Site, Text
from streams.core.ranges import EMPTY, Ranges
from streams.kafka.publish import Publisher
from streams.settings import Registry, Settings, SiteEntry
from streams.views.view import View
from streams.worker.api import Api, Vitals

A, B, C = Site("T1_A"), Site("T2_B"), Site("T3_C")
MOCK_PARTITIONS = 4
_QUIET = {"bootstrap.servers": "mock", "log_level": 0}
DATASET = Dataset("/Primary/Run-v1/NANOAOD")
BLOCK = Block(f"{DATASET}#1")


class Hand:
    """Writes facts into the mock cluster of A: A's own through the gate, others' as a mirror would bring them."""

    def __init__(self, state: Path) -> None:
        self._cluster: Producer | None = Producer(
            {"bootstrap.servers": "m", "test.mock.num.brokers": 1, "log_level": 0}
        )
        brokers = self._cluster.list_topics(timeout=10).brokers.values()
        bootstrap = ",".join(f"{b.host}:{b.port}" for b in brokers)
        for topic in topics.wanted(A, [B, C]):
            self._cluster.list_topics(topic.name, timeout=10)
        registry = Registry(MOCK_PARTITIONS, sites=tuple(SiteEntry(s, bootstrap) for s in (A, B, C)))
        self.settings = Settings(registry, A, state, state / "cache", state / "sites.toml", state / "data")
        self._mirror = Producer({**_QUIET, "bootstrap.servers": bootstrap, "partitioner": "murmur2_random"})
        self._publisher = Publisher(self.settings, A, "agent", "worker")
        self._seq = 0

    def say(self, site: Site, message: m.Message) -> None:
        if site == A:
            self._publisher.send(message)
            assert self._publisher.flush(10) == 0
            return
        key, self._seq = m.key_of(message), self._seq + 1
        self._mirror.produce(
            topics.remote(site, m.topic_of(message)),
            wire.encode(message),
            key if isinstance(key, bytes) else key.encode(),
            partition=topics.partition_of(key, MOCK_PARTITIONS),
            headers=wire.headers(message, m.Origin(site, "w", "i", self._seq, 1_000 + self._seq)),
        )
        assert self._mirror.flush(10) == 0

    def chunk(self, site: Site, header: m.ChunkHeader, payload: bytes) -> None:
        """A payload record of `site`, as a mirror would bring it."""
        self._mirror.produce(
            topics.remote(site, topics.chunks_to(header.destination)),
            payload,
            header.manifest.encode(),
            partition=topics.partition_of(header.manifest, MOCK_PARTITIONS),
            headers=wire.chunk_headers(header, m.Origin(site, "w", "c", 0, 1_000)),
        )
        assert self._mirror.flush(10) == 0

    def accept(self, body: m.TransferIntent, source: Site = B) -> None:
        self.say(A, m.IntentDecided(body.intent, 1, m.Verdict.ACCEPTED, body, source, 0, body.priority))

    def refuse(self, body: m.TransferIntent, why: str) -> None:
        reason = m.Reason(m.Scope.POLICY, m.FailureClass.PERMANENT, "decide", _text(why))
        self.say(A, m.IntentDecided(body.intent, 1, m.Verdict.REFUSED, body, None, 0, body.priority, reason))

    def close(self) -> None:
        self._publisher.close()
        self._cluster = None


def _text(words: str) -> Text:
    return Text(words)


def written(intent: IntentId, sizes: list[int], *, no: int = 0, prev: str = "", last: bool = True) -> m.ManifestWritten:
    items = tuple(
        m.Item(lfn, DATASET, BLOCK, lfn, "", size, size, Adler32("00000001"), "v", B)
        for n, size in enumerate(sizes)
        for lfn in [Lfn(f"/store/t/{no}/f{n}.root")]
    )
    return m.ManifestWritten(intent, B, 0, no, prev, "", m.Unit.BYTES, items, last)


def completed(
    body: m.ManifestWritten, where: Site, *, failed: Ranges = EMPTY, cancelled: Ranges = EMPTY
) -> m.CompletionRecord:
    sealed = Ranges([(0, len(body.items))]) - failed - cancelled
    reason = m.Reason(m.Scope.SOURCE, m.FailureClass.DATA_BAD, "read", _text("checksum differs"))
    groups = (m.FailedItems(failed, reason),) if failed else ()
    ended = m.Ended.CANCELLED if cancelled else m.Ended.DONE if not failed else m.Ended.PARTLY
    size = sum(body.items[n].bytes for n in sealed.numbers())
    return m.CompletionRecord(
        body.intent, body.manifest, where, ended, len(body.items), sealed, groups, cancelled, size, digest(body)
    )


@pytest.fixture
def hand(tmp_path: Path) -> Iterator[Hand]:
    found = Hand(tmp_path)
    yield found
    found.close()


@contextmanager
def working(hand: Hand, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[View]:
    """A view and an API of the client's site, announced; the mock cluster knows no offsets by time."""
    view = View(hand.settings, tmp_path / "worker", print)
    view.start()
    api = Api(hand.settings, view, Vitals(set, lambda: True, lambda: True, lambda: 0, dict, lambda: 0, lambda: 0.0))
    api.start()
    monkeypatch.setattr("streams.client.worker_api.apis", lambda *_: [api.address])
    try:
        yield view
    finally:
        api.stop()
        view.stop()
