"""Two sites on librdkafka's mock cluster: the log of T1_A, with records of T1_B as a mirror would copy them."""

from __future__ import annotations

import itertools
from pathlib import Path

from confluent_kafka import Producer

from streams import wire
from streams.core import records as m
from streams.core import topics
from streams.core.names import Adler32, Block, Dataset, Lfn, Site, Text
from streams.settings import Registry, Settings, SiteEntry

A, B, C = Site("T1_A"), Site("T1_B"), Site("T1_C")
DATASET = Dataset("/Primary/Processed/TIER")
PARTITIONS = 4


def held(lfn: str, block: str = "b1", size: int = 10, adler: str = "00000001", version: str = "v1") -> m.HeldFile:
    return m.HeldFile(Lfn(lfn), Block(f"{DATASET}#{block}"), size, Adler32(adler), version)


def holds(site: Site, *files: m.HeldFile) -> m.FilesHeld:
    return m.FilesHeld(files[0].block.dataset, site, files)


def lost(site: Site, *lfns: str, dataset: Dataset = DATASET) -> m.FilesLost:
    why = m.Reason(m.Scope.SOURCE, m.FailureClass.PERMANENT, "read", Text("gone"))
    return m.FilesLost(dataset, site, tuple(Lfn(lfn) for lfn in lfns), why)


class Journal:
    """A log at T1_A to which any site's records can be put, as Kafka and its mirror would."""

    def __init__(self) -> None:
        self._producer = Producer(
            {"bootstrap.servers": "mock", "test.mock.num.brokers": 1, "log_level": 0, "linger.ms": 0}
        )
        brokers = self._producer.list_topics(timeout=10).brokers.values()
        self.bootstrap = ",".join(f"{b.host}:{b.port}" for b in brokers)
        self._seq = itertools.count()

    def touch(self, *names: str) -> None:
        for name in names:
            self._producer.list_topics(name, timeout=10)

    def say(
        self,
        message: m.Message,
        *,
        site: Site = A,
        at_ms: int = 1_000,
        incarnation: str = "i1",
        more: tuple[tuple[str, bytes], ...] = (),
    ) -> None:
        origin = m.Origin(site, "w0", incarnation, next(self._seq), at_ms)
        base = m.topic_of(message)
        key = m.key_of(message)
        self.put(
            base if site == A else topics.remote(site, base),
            key if isinstance(key, bytes) else key.encode(),
            wire.encode(message),
            [*wire.headers(message, origin), *more],
        )

    def put(self, topic: str, key: bytes, value: bytes | None, headers: list[tuple[str, bytes]]) -> None:
        self._producer.produce(
            topic, value=value, key=key, headers=headers, partition=topics.partition_of(key, PARTITIONS)
        )

    def flush(self) -> None:
        assert self._producer.flush(10) == 0


def settings_for(bootstrap: str, directory: Path, *, table_version: int = 1) -> Settings:
    registry = Registry(
        partitions=PARTITIONS,
        table_version=table_version,
        sites=(SiteEntry(A, bootstrap), SiteEntry(B, "127.0.0.1:1")),
    )
    return Settings(
        registry=registry,
        site=A,
        state=directory,
        cache=directory,
        sites_path=directory / "sites.toml",
        datadir=directory / "worker-0",
    )
