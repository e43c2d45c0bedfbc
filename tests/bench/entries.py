"""Entries: source file → verified Parquet at the other site, beside a process that reads and writes them, and the log.

The peer is uproot reading the same columns and pyarrow writing them, fsynced, in a process of its own whose imports are
not counted; the limit is that of the log for the payload bytes the product sent.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import uproot

from streams import EventStream
from streams.core import records as m
from streams.core.names import Block
from streams.core.selections.entries import EventSelection
from streams.core.topics import CHUNK_EVENTS, MANIFESTS
from streams.events.reading import open_entries
from streams.kafka.publish import Publisher
from streams.kafka.replay import replay
from streams.registration.registering import register
from streams.wire import decode
from tests.bench import limit
from tests.bench.rig import A, B, Rig, Weight

EVENTS = 5_000_000
_STEP = 250_000
_PEER = """
import os, sys, time
import pyarrow as pa, pyarrow.parquet as pq, uproot
source, target = sys.argv[1:]
with uproot.open(source) as warm:
    warm["events"].num_entries
start = time.monotonic()
with uproot.open(source) as file, open(target, "wb") as out:
    writer = None
    for arrays in file["events"].iterate(step_size="32 MB", library="np"):
        batch = pa.RecordBatch.from_pydict(arrays)
        writer = writer or pq.ParquetWriter(out, batch.schema, compression="zstd", compression_level=1)
        writer.write_batch(batch)
    writer.close()
    out.flush()
    os.fsync(out.fileno())
print(time.monotonic() - start)
"""


def make_tree(path: Path, events: int) -> None:
    """Eleven flat columns, 52 bytes an event, lz4."""
    chance = np.random.default_rng(1)
    floats = {f"x{n}": np.float32 for n in range(8)}
    with uproot.recreate(path, compression=uproot.LZ4(1)) as out:
        tree = out.mktree("events", {**floats, "run": np.int32, "event": np.int64, "mass": np.float64})
        for start in range(0, events, _STEP):
            count = min(_STEP, events - start)
            columns = {name: chance.normal(size=count).astype(np.float32) for name in floats}
            numbers = {"run": np.full(count, start, np.int32), "event": np.arange(start, start + count)}
            tree.extend({**columns, **numbers, "mass": chance.normal(91, 5, size=count)})


class Entries:
    def __init__(self, rig: Rig, rounds: int, events: int, row: Callable[..., None]) -> None:
        self.rig, self.rounds, self.events, self.row = rig, rounds, events, row
        self.path = rig.state / "bench" / "events.root"
        self.path.parent.mkdir(parents=True, exist_ok=True)
        make_tree(self.path, events)

    def _registered(self, number: int) -> str:
        block = f"/Bench/Run/NANO#entries-{number}"
        with Publisher(self.rig.settings(A), A, "bench", "cli") as publisher:
            done = register(
                self.rig.settings(A), publisher, [self.path], Block(block), lfn_prefix=f"/store/bench/entries-{number}"
            )
        assert done.files == 1, done
        return block

    def landing(self) -> None:
        """Rounds of product, peer and limit in turn; the median of the rounds' ratios is what counts."""
        product, peer, bare, payload, self.rig.weight = [], [], [], 0, Weight()
        for number in range(self.rounds):
            block = self._registered(number)
            assert self.rig.client is not None
            with self.rig.weighed():
                start = time.monotonic()
                handle = self.rig.client.publish([block], to=[B], entries="events")
                assert handle.wait(timeout_s=300).done
                product.append(time.monotonic() - start)
            payload = self._check(handle.id)
            words = [sys.executable, "-c", _PEER, str(self.path), str(self.path.with_suffix(f".{number}.parquet"))]
            peer.append(self.rig.without_workers(lambda words=words: float(subprocess.check_output(words))))
            line = [(f"{handle.id}.0.0", payload)]
            bare.append(self.rig.without_workers(lambda line=line: limit.seconds(self.rig.settings(A), A, B, line)))
        slower = [max(p, b) for p, b in zip(peer, bare, strict=True)]
        ratio = statistics.median(s / p for s, p in zip(slower, product, strict=True))
        took = statistics.median(product)
        more = {
            "M events/s": round(self.events / took / 1e6, 2),
            "MB/s of columns": round(self.events * 52 / took / 1e6, 1),
            "payload MB": round(payload / 1e6, 1),
            "rounds s": [round(x, 2) for x in product],
            "uproot+pyarrow s": [round(x, 2) for x in peer],
            "log s": [round(x, 2) for x in bare],
        }
        name = f"{self.events / 1e6:g} M entries to verified Parquet: of the smaller of peer and log"
        self.row(name, ratio, "ratio", ">= 0.6", ratio >= 0.6, **more)
        worker = self.rig.weight.worker / 1e6
        self.row("resident: a worker whose plane moves entries, at most", worker, "MB", "<= 500", worker <= 500)

    def _check(self, intent: str) -> int:
        """Whether the landed file has every entry; the payload bytes that were sent."""
        (manifest,) = [w for w in self._facts(A, MANIFESTS, intent) if isinstance(w, m.ManifestWritten)]
        landed = self.rig.state / B / "storage" / manifest.items[0].target[1:]
        assert pq.read_metadata(landed).num_rows == self.events
        numbers = pq.read_table(landed, columns=["event"])["event"].to_numpy()
        assert np.array_equal(numbers, np.arange(self.events))
        return sum(w.bytes for w in self._facts(A, CHUNK_EVENTS, f"{intent}.0.0") if isinstance(w, m.ChunksServed))

    def _facts(self, site: Any, topic: str, key: str) -> list[Any]:
        settings = self.rig.settings(site)
        records = (r for r in replay(settings, site, [topic]) if r.key == key.encode())
        return [decode(r.topic, r.key, r.value, r.headers, site).message for r in records]

    def first_batch(self, tries: int) -> None:
        """From the intent's publication to the first batch in the hands of a consumer at the other site."""
        assert self.rig.client is not None
        times = []
        for number in range(tries):
            block = self._registered(1000 + number)
            time.sleep(0.5)
            start = time.monotonic()
            handle = self.rig.client.publish([block], to=[f"{B}/bench"], entries="events[0:100000]")
            with EventStream(handle.id, settings=self.rig.settings(B), timeout_s=60) as stream:
                next(stream)
                times.append(time.monotonic() - start)
                for _ in stream:
                    pass
        first, rest = times[0], sorted(times[1:])
        p95 = rest[max(0, int(len(rest) * 0.95) - 1)]
        median = statistics.median(rest)
        self.row("first batch at a consumer: p50", median, "s", "<= 1", median <= 1, first=round(first, 3))
        self.row("first batch at a consumer: p95", p95, "s", "<= 1", p95 <= 1)

    def columns(self) -> None:
        """Twenty of 947 columns: bytes that the source's reader takes off the disk."""
        path = self.path.with_name("wide.root")
        names = [f"c{n:03}" for n in range(947)]
        chance = np.random.default_rng(2)
        with uproot.recreate(path, compression=None) as out:
            tree = out.mktree("events", dict.fromkeys(names, np.float32))
            for _ in range(4):
                tree.extend({name: chance.normal(size=5000).astype(np.float32) for name in names})
        chosen = EventSelection("events", columns=tuple(names[:20]))
        with open_entries(str(path), chosen) as entries:
            opened = entries.bytes_read
            for start, stop in entries.cuts(1 << 18):
                entries.read(start, stop)
            read = entries.bytes_read - opened
        wanted, size = 20 * 20_000 * 4, path.stat().st_size
        ratio = read / wanted
        told = {"file MB": round(size / 1e6, 1), "read MB": round(read / 1e6, 2), "head MB": round(opened / 1e6, 2)}
        self.row("20 of 947 columns: bytes read of those columns' own", ratio, "ratio", "<= 1.1", ratio <= 1.1, **told)
