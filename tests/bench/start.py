"""A worker that starts with much open and more that has ended: how soon it asks, and whether its loop stands still.

The rows are written straight into the changelogs of B's tables. The first start, on an empty directory, has Faust read
them into RocksDB; the second is on the worker's own directory, as after any restart.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from typing import Any

import psutil
from confluent_kafka import Producer

from streams import wire
from streams.auditing.replaying import worker_group
from streams.core import intent as intents
from streams.core import records as m
from streams.core import topics
from streams.core import transfer as transfers
from streams.core.chain import Chain
from streams.core.manifest import Manifest
from streams.core.names import Adler32, Block, IntentId, Lfn, ManifestId, Text
from streams.core.ranges import Ranges
from streams.core.selectors import Kind, Selector
from streams.errors import Temporary
from streams.federation import local
from streams.worker import rows
from streams.worker.turn import waiting_key
from tests.bench.rig import A, B, Rig
from tests.kafka.tailing import tail

OPEN, ENDED = 1_000, 1_000_000
PER_INTENT = 50
"""Open transfers of one intent: fewer than it may have open."""
PATIENCE_S = 600.0
ASKED_S = 60.0
MB = 1e6
BLOCK = Block("/Bench/Start/RAW#1")

BARE_LOOP = """
import asyncio, sys, time

async def main():
    longest = 0.0
    reader = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    ended = asyncio.create_task(reader.read())
    while not ended.done():
        due = time.monotonic() + 0.05
        await asyncio.sleep(0.05)
        longest = max(longest, time.monotonic() - due)
    print(longest)

asyncio.run(main())
"""
"""A loop that does nothing but look as the guard of a worker's does: what it is kept waiting is the machine's."""

Row = Callable[..., None]


@contextmanager
def bare_loop(found: list[float]) -> Iterator[None]:
    """Runs one beside what is measured; its longest stall, in seconds, comes into `found`."""
    with subprocess.Popen([sys.executable, "-c", BARE_LOOP], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        try:
            yield
        finally:
            said, _ = process.communicate(timeout=10)
            found.append(float(said))


def items() -> tuple[m.Item, ...]:
    """A full manifest of files of 1 kB."""
    names = (Lfn(f"/store/bench/start/of/a/worker/{n:08}.root") for n in range(1000))
    return tuple(
        m.Item(lfn, BLOCK.dataset, BLOCK, lfn, "", 1000, 1000, Adler32(f"{n:08x}"), "1000,17,1", A)
        for n, lfn in enumerate(names)
    )


def intent_id(number: int) -> IntentId:
    return IntentId(f"{A}.00000000-0000-4000-8000-{number:012x}")


class Start:
    def __init__(self, rig: Rig, row: Row, scale: float = 1.0) -> None:
        self.rig, self.row = rig, row
        self.settings = rig.settings(B)
        self.open, self.ended = int(OPEN * scale), int(ENDED * scale)
        self.partitions = self.settings.registry.partitions

    def run(self) -> None:
        local.set_workers(self.rig.state, B, 0)
        self._fill()
        empty = self._start("on an empty directory", wanted=False)
        local.set_workers(self.rig.state, B, 0)
        self._start("on its own directory", wanted=True, empty_s=round(empty, 1))

    def _fill(self) -> None:
        producer = Producer({"bootstrap.servers": self.settings.entry(B).bootstrap, "linger.ms": 20})
        group = worker_group(self.settings, B)

        def put(table: str, owner: str, key: str, value: bytes) -> None:
            place = topics.partition_of(owner, self.partitions)
            while True:
                try:
                    producer.produce(f"{group}-{table}-changelog", value, key.encode(), place)
                except BufferError:
                    producer.poll(0.1)
                else:
                    return

        for table, owner, key, value in (*self._open_rows(), *self._ended_rows()):
            put(table, owner, key, value)
        left = producer.flush(120)
        assert not left, f"{left} rows were not written"

    def _open_rows(self) -> Iterator[tuple[str, str, str, bytes]]:
        for number in range(max(1, self.open // PER_INTENT)):
            intent = intent_id(number)
            body = m.TransferIntent(intent, Text("bench"), (Selector(Kind.BLOCK, BLOCK),), (B,), A)
            row = intents.fold(None, m.IntentDecided(intent, 1, m.Verdict.ACCEPTED, body, A, 0, 5), B)
            first = m.ManifestWritten(intent, A, 0, 0, "", "", m.Unit.BYTES, items(), False)
            index = Manifest(first).index
            told = (intents.ToldTransfers(0, 1, Ranges([(0, PER_INTENT)])),)
            chain = Chain(0, PER_INTENT, index.sha256, "", last=True)
            yield "intents", intent, rows.open_key(intent), b""
            yield "intents", intent, intent, rows.encode(replace(row, chain=chain, told=told))
            for no in range(PER_INTENT):
                written = replace(first, no=no, prev_sha256=index.sha256 if no else "")
                manifest, framed = written.manifest, wire.encode(written)
                transfer = transfers.fold(None, m.TransferPlanned(manifest, B, 1, 5, None, (), False, written), index)
                yield "waiting", intent, waiting_key(manifest, A), framed
                yield "manifests", manifest, manifest, framed
                yield "manifests", manifest, rows.index_key(manifest), rows.encode_index(index)
                yield "transfers", manifest, rows.open_key(manifest), b""
                yield "transfers", manifest, manifest, rows.encode(transfer)

    def _ended_rows(self) -> Iterator[tuple[str, str, str, bytes]]:
        """Half of them intents, each with its one transfer: the bytes of one, with other names in them."""
        intent = intent_id(1 << 40)
        body = m.TransferIntent(intent, Text("bench"), (Selector(Kind.BLOCK, BLOCK),), (B,), A)
        written = m.ManifestWritten(intent, A, 0, 0, "", "", m.Unit.BYTES, items()[:1], True)
        manifest = written.manifest
        done = m.CompletionRecord(
            intent, manifest, B, m.Ended.DONE, 1, Ranges.of(0), (), Ranges(), 1000, Manifest(written).sha256
        )
        row: intents.IntentRow | None = None
        for fact in (m.IntentDecided(intent, 1, m.Verdict.ACCEPTED, body, A, 0, 5), written, done):
            row = intents.fold(row, fact, B)
        assert row is not None
        transfer = transfers.fold(None, m.TransferClosed(manifest, done), None)
        shapes = rows.encode(row), rows.encode(transfer)
        for number in range(self.ended // 2):
            other = intent_id((1 << 40) + 1 + number)
            old, new = intent.encode(), other.encode()
            yield "intents", other, other, shapes[0].replace(old, new)
            closed = ManifestId.of(other, 0, 0)
            yield "transfers", closed, closed, shapes[1].replace(old, new)

    def _start(self, how: str, *, wanted: bool, **more: Any) -> float:
        """Seconds until B's worker is awake."""
        bare: list[float] = []
        with bare_loop(bare):
            awake_s, asked_s, health, memory = self._started(wanted)
        stall = float(health["longest_stall_s"])
        name = f"start {how}: {self.open:,} open full manifests, {self.ended:,} ended rows"
        more |= {"recovered s": round(awake_s - health["waking_s"], 1)} if "waking_s" in health else {}
        self.row(f"{name}: awake", awake_s, "s", "<= 60" if wanted else "printed", not wanted or awake_s <= 60, **more)
        if wanted:
            self.row(f"{name}: first request", asked_s, "s", "<= 15", asked_s <= 15)
            beside = {"of a loop that does nothing, ms": round(1000 * bare[0])}
            self.row(f"{name}: longest stall", 1000 * stall, "ms", "<= 100", stall <= 0.1, **beside)
            self.row(f"{name}: worker without plane", memory, "MB", "<= 500", memory <= 500)
        return awake_s

    def _started(self, wanted: bool) -> tuple[float, float, dict[str, Any], float]:
        """Seconds until B's worker is awake and until it asks, its health then or a while later, its MB."""
        began, began_ms = time.monotonic(), time.time_ns() // 1_000_000
        with suppress(Temporary):  # of `set_workers`, which waits 90 s: reading a million rows takes longer
            local.set_workers(self.rig.state, B, 1)
        health = self._awake()
        awake_s = time.monotonic() - began
        asked_s = self._first_request(began_ms)
        worker = next(p for p in local.status(self.rig.state) if p.name == f"{B}-worker-0")
        memory = psutil.Process(worker.pid).memory_info().rss / MB
        if wanted:  # rows are asked after it is awake, and again; the first start must leave them open
            time.sleep(ASKED_S)
            later = self.rig.health(B)
            health["longest_stall_s"] = max(health["longest_stall_s"], later["longest_stall_s"])
        return awake_s, asked_s, health, memory

    def _awake(self) -> dict[str, Any]:
        deadline = time.monotonic() + PATIENCE_S
        while time.monotonic() < deadline:
            try:
                health: dict[str, Any] = self.rig.health(B)
            except (OSError, ValueError, StopIteration):
                health = {}
            if health.get("ready"):
                return health
            time.sleep(0.25)
        raise TimeoutError(f"not ready: {json.dumps(health)}")

    def _first_request(self, since_ms: int) -> float:
        """Seconds from `since_ms` to the first request written at B."""
        stop, deadline = [False], time.monotonic() + 60
        names = [topics.requests_to(A)]
        for record in tail(
            self.settings, B, names, stop=lambda: stop[0] or time.monotonic() > deadline, start=since_ms
        ):
            heard = wire.decode(record.topic, record.key, record.value, record.headers, B)
            if heard.origin.at_ms >= since_ms:
                return (heard.origin.at_ms - since_ms) / 1000
        return float("inf")
