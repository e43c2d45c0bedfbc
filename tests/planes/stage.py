"""What the plane tests share: settings of two sites on one cluster, manifests of real files, a listener, a mirror.

Nothing of the planes is replaced; the mirror thread plays MirrorMaker from A to B, which the mock cluster lacks.
"""

from __future__ import annotations

import os
import threading
import time
import zlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TypeVar
from uuid import uuid4

from confluent_kafka import Consumer, Producer, TopicPartition

from streams import wire
from streams.core.channel import LOG
from streams.core.manifest import Manifest
from streams.core.names import Adler32, Block, Dataset, IntentId, Lfn, Site
from streams.core.policy import Policy
from streams.core.ranges import EMPTY, Ranges
from streams.core.records import ChunksRequested, Item, ManifestWritten, Message, Unit
from streams.core.store_names import Store
from streams.core.topics import CHUNK_EVENTS, MANIFESTS, TRANSFERS, chunks_to, partition_of, remote
from streams.planes.host.child import Child
from streams.planes.orders import Assign, Open, Order, pack
from streams.settings import Registry, Settings, SiteEntry
from streams.storage import open_endpoint

A, B = Site("T1_A"), Site("T2_B")
Clusters = Mapping[Site, str]
"""Bootstrap address of each site."""
PARTITIONS = 4
"""What the mock cluster gives every topic."""
DATASET = Dataset("/Plane/Test/RAW")
BLOCK = Block(f"{DATASET}#one")
TOLD = (TRANSFERS, CHUNK_EVENTS, MANIFESTS)
ALL = Assign(dict.fromkeys(range(PARTITIONS)))


def settings_of(site: Site, clusters: Clusters, root: Path, *, partitions: int = PARTITIONS, **shared: int) -> Settings:
    registry = Registry(partitions=partitions, sites=tuple(SiteEntry(one, clusters[one]) for one in (A, B)), **shared)
    storage = root / site / "storage"
    storage.mkdir(parents=True, exist_ok=True)
    return Settings(
        registry=registry,
        site=site,
        state=root,
        cache=root / "cache",
        sites_path=root / "sites.toml",
        datadir=root / site,
        endpoint_url=f"file://{storage}",
        policy=Policy(),
    )


def adler(content: bytes) -> Adler32:
    return Adler32(f"{zlib.adler32(content):08x}")


def put(root: Path, files: Mapping[str, bytes]) -> None:
    for lfn, content in files.items():
        path = root / lfn[1:]
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


def manifest_of(
    root: Path, files: Mapping[str, bytes], intent: IntentId | None = None, stores: Sequence[Store] = ()
) -> ManifestWritten:
    """The manifest site A writes of files that lie under its storage `root`, or are keys of `stores`."""
    with open_endpoint(f"file://{root}", stores=stores) as endpoint:
        items = tuple(
            Item(
                lfn=Lfn(lfn),
                dataset=DATASET,
                block=BLOCK,
                target=Lfn(lfn),
                selection="",
                length=len(content),
                bytes=len(content),
                adler32=adler(content),
                version=endpoint.stat(lfn).version,
                holder=A,
            )
            for lfn, content in files.items()
        )
    return ManifestWritten(intent or IntentId(f"T1_A.{uuid4()}"), A, 0, 0, "", "", Unit.BYTES, items, last=True)


def open_order(
    body: ManifestWritten,
    attempt: int = 1,
    *,
    verified: Ranges = EMPTY,
    sealed: Ranges = EMPTY,
    failed: Ranges = EMPTY,
    repair: bool = False,
) -> Open:
    return Open(body.manifest, wire.encode(body), attempt, verified, sealed, failed, repair)


def request_of(
    body: ManifestWritten, request_no: int = 1, ranges: Ranges | None = None, *, lease_s: float = 30.0
) -> ChunksRequested:
    manifest = Manifest(body)
    wanted = Ranges([(0, manifest.line.total)]) if ranges is None else ranges
    until_ms = int((time.time() + lease_s) * 1000)
    return ChunksRequested(body.manifest, B, A, request_no, 1, LOG, manifest.requested(wanted, A), wanted, until_ms)


M = TypeVar("M")


class Listener:
    """Everything that is told in the planes' journals of both sites, from now on."""

    def __init__(self, clusters: Clusters, partitions: int = PARTITIONS) -> None:
        self.heard: list[Message] = []
        self._changed = threading.Condition()
        self._running = True
        self._threads = [
            threading.Thread(target=self._run, args=(site, _reader(bootstrap, TOLD, partitions)), daemon=True)
            for site, bootstrap in clusters.items()
        ]
        for thread in self._threads:
            thread.start()

    def _run(self, here: Site, consumer: Consumer) -> None:
        while self._running:
            record = consumer.poll(0.1)
            if record is None or record.error() is not None:
                continue
            heard = wire.decode(record.topic(), record.key(), record.value(), record.headers(), here)
            with self._changed:
                self.heard.append(heard.message)
                self._changed.notify_all()
        consumer.close()

    def wait(self, kind: type[M], match: Callable[[M], bool] = lambda _: True, timeout_s: float = 20.0) -> M:
        def found() -> M | None:
            return next((one for one in self.heard if isinstance(one, kind) and match(one)), None)

        with self._changed:
            assert self._changed.wait_for(lambda: found() is not None, timeout_s), (kind, self.heard[-5:])
            one = found()
            assert one is not None
            return one

    def close(self) -> None:
        self._running = False
        for thread in self._threads:
            thread.join()


def _reader(bootstrap: str, topics: Sequence[str], partitions: int) -> Consumer:
    """Reads these topics from their present ends on."""
    consumer = Consumer(
        {
            "bootstrap.servers": bootstrap,
            "group.id": "test",
            "enable.auto.commit": False,
            "fetch.wait.max.ms": 10,
            "fetch.queue.backoff.ms": 2,
            "fetch.message.max.bytes": 4 << 20,
            "log_level": 2,
        }
    )
    places = [TopicPartition(topic, p, -1) for topic in topics for p in range(partitions)]
    consumer.assign(consumer.offsets_for_times(places, timeout=10))
    return consumer


class Mirror:
    """Copies A's payload for B into B's copy; `spoil` may change a value or drop the record (None)."""

    def __init__(
        self,
        clusters: Clusters,
        partitions: int = PARTITIONS,
        spoil: Callable[[bytes], bytes | None] | None = None,
    ) -> None:
        self.spoil = spoil
        self.copied = 0
        self._running = True
        self._consumer = _reader(clusters[A], [chunks_to(B)], partitions)
        self._producer = Producer({"bootstrap.servers": clusters[B], "log_level": 2, "linger.ms": 0})
        self._thread = threading.Thread(target=self._run, args=(remote(A, chunks_to(B)),), daemon=True)
        self._thread.start()

    def _run(self, copy: str) -> None:
        while self._running:
            record = self._consumer.poll(0.1)
            if record is None or record.error() is not None:
                continue
            value = record.value()
            if self.spoil is not None:
                value = self.spoil(value)
                if value is None:
                    continue
            while True:
                try:
                    self._producer.produce(
                        copy, value, record.key(), partition=record.partition(), headers=record.headers()
                    )
                    break
                except BufferError:
                    self._producer.poll(0.1)
            self._producer.poll(0)
            self.copied += 1

    def close(self) -> None:
        self._running = False
        self._thread.join()
        self._consumer.close()
        self._producer.flush(5)


class PlaneHere:
    """A child's insides in this process, with a real pipe."""

    def __init__(self, child: Child) -> None:
        self.child = child
        reading, self._writing = os.pipe()
        self._pipe = os.fdopen(reading, "rb")
        self._thread = threading.Thread(target=child.run, args=(self._pipe,), daemon=True)
        self._thread.start()

    def tell(self, order: Order) -> None:
        """Fails if the reader is held up."""
        os.set_blocking(self._writing, False)
        left, until_s = pack(order), time.monotonic() + 20
        while left:
            assert time.monotonic() < until_s, "the pipe is not read"
            try:
                left = left[os.write(self._writing, left) :]
            except BlockingIOError:
                time.sleep(0.01)

    def close(self) -> None:
        os.close(self._writing)
        self._thread.join(10)
        assert not self._thread.is_alive()
        self._pipe.close()
        self.child.close()


def partition(body: ManifestWritten) -> int:
    return partition_of(body.manifest, PARTITIONS)
