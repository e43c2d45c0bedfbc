"""The audit's reading: records of a small federation through gate and ledger, beside fastavro's decoding of the same.

Two mixes of the product's own records: small intents, of 1 to 10 files, and manifests of 1,000. The bare loop decodes
value and origin of each record. The audit reads as it does: manifests, all other originals, and of copies, which it
knows, the origin alone; facts go into an index, which is then judged, and gone on with though nothing is new. The same
in two shares, as two processes read them; and an account out of the index.

No federation is needed: what brokers take is the same for both. Seconds are those of the processor.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from zlib import crc32

import fastavro

import schemas
from streams import wire
from streams.auditing.accounting import account_of
from streams.auditing.entering import Entrance, few_collections
from streams.auditing.index import AuditIndex, open_index
from streams.core import records as m
from streams.core.ledger import Ledger
from streams.core.ledger.accounts import ALWAYS, By
from streams.core.ledger.findings import LogPosition
from streams.core.ledger.shares import Share
from streams.core.names import Site
from streams.core.topics import MANIFESTS as MANIFESTS_TOPIC
from streams.kafka.reader import Record
from tests.audit.history import LATER_MS, PARTITIONS, A, B, Federation, Rec, item

INTENTS, MANIFESTS = 2_000, 40
_FILES, _CHAIN = 1_000, 10
_FRAME_BYTES = 5


History = list[tuple[LogPosition, Rec]]


def small_intents(count: int) -> History:
    """Healthy intents of 1 to 10 files each, from A to B."""
    return _history([_files(number, 1 + number % 10)] for number in range(1, count + 1))


def large_manifests(count: int) -> History:
    """The same, of manifests of 1,000 files in chains of ten."""
    return _history(
        [_files(number, _FILES) for number in range(at, min(at + _CHAIN, count))] for at in range(0, count, _CHAIN)
    )


def _history(intents: Iterable[list[tuple[m.Item, ...]]]) -> History:
    """Of each intent its manifests. Manifests, the other originals of all journals, then the mirrors' copies."""
    world = Federation()
    for number, lists in enumerate(intents, 1):
        body = world.ask(number, B)
        world.decide(body)
        for items in lists:
            world.register(items)
        for manifest in world.write(body, *lists):
            world.transfer(manifest, B)
    world.close()
    world.mirror()
    return sorted(world.facts(), key=lambda fact: ("." in fact[0].topic, fact[0].topic != MANIFESTS_TOPIC))


def _files(number: int, count: int) -> tuple[m.Item, ...]:
    """Names, sizes, checksums and versions as long, and as different, as those of real files."""
    found = []
    for file in range(count):
        no = number * _FILES + file
        one = item(
            f"data/Run2026A/Muon/NANOAOD/v1/{number:06}/{file:04}.root", 1_000_000_000 + no, f"{crc32(b'%d' % no):08x}"
        )
        found.append(replace(one, version=f"{one.bytes},{17 * 10**17 + no},{no}"))
    return tuple(found)


def audit_reading(intents: int, manifests: int, rounds: int, row: Callable[..., None]) -> None:
    _read(f"{intents:,} intents of 1 to 10 files", small_intents(intents), 0.4, rounds, row)
    _read(f"{manifests:,} manifests of 1,000 files", large_manifests(manifests), 0.8, rounds, row)


def _read(what: str, facts: History, asked: float, rounds: int, row: Callable[..., None]) -> None:
    """Rounds of both in turn; the median of the rounds' ratios is what counts."""
    parsed = {number: schemas.load(*_named(number)) for number in {_id(rec.value) for _, rec in facts}}
    origin = schemas.load("Origin")
    read = [(place, Record(*place[1:], rec.at_ms, rec.key, rec.value, list(rec.headers))) for place, rec in facts]
    ours, judging, theirs, again, on_disk, accounts, shares = [], [], [], [], [], [], []
    for _ in range(max(3, rounds)):
        begun = time.process_time()
        for _, record in read:
            _decoded(record.value, parsed[_id(record.value)])
            for name, held in record.headers or ():
                if name == wire.ORIGIN:
                    _decoded(held, origin)
        theirs.append(time.process_time() - begun)
        with tempfile.TemporaryDirectory() as made:
            path = Path(made) / "audit"
            begun = time.process_time()
            with _opened(path) as (index, ledger):
                enter = Entrance(ledger).enter
                with few_collections():
                    for place, record in read:
                        enter(place, record)
                index.flush()
                ours.append(time.process_time() - begun)
                begun = time.process_time()
                _judge(ledger)
                index.save(ledger)
                judging.append(time.process_time() - begun)
            on_disk.append(sum(file.stat().st_size for file in path.rglob("*") if file.is_file()) / len(facts))
            begun = time.process_time()
            with _opened(path) as (_, ledger):
                _judge(ledger)
            again.append(time.process_time() - begun)
            begun = time.process_time()
            account_of(path, By.DATASET, ALWAYS)
            accounts.append(time.process_time() - begun)
            shares.append(_in_shares(read, Path(made)))
    ratio = statistics.median(peer / own for own, peer in zip(ours, theirs, strict=True))
    name = f"audit, {what}, {len(facts):,} records: of bare decoding"
    more = {
        "records/s": round(len(facts) / statistics.median(ours)),
        "rounds s": [round(x, 2) for x in ours],
        "judging s": [round(x, 2) for x in judging],
        "gone on with nothing new s": [round(x, 2) for x in again],
        "index, bytes a record": round(statistics.median(on_disk)),
        "account s": [round(x, 2) for x in accounts],
        "two shares, each s": [[round(x, 2) for x in each] for each, _ in shares],
        "brought together s": [round(x, 2) for _, x in shares],
        "decoding s": [round(x, 2) for x in theirs],
    }
    row(name, ratio, "ratio", f">= {asked}", ratio >= asked, **more)


def _decoded(framed: bytes | None, parsed: schemas.Schema) -> object:
    body = BytesIO(framed or b"")
    body.seek(_FRAME_BYTES)
    return fastavro.schemaless_reader(body, parsed, None)


def _id(value: bytes | None) -> int:
    return int.from_bytes((value or b"")[1:_FRAME_BYTES], "big")


def _named(number: int) -> tuple[str, int]:
    return next((name, number) for name, numbers in schemas.versions().items() if number in numbers)


@contextmanager
def _opened(path: Path) -> Iterator[tuple[AuditIndex, Ledger]]:
    sites: tuple[Site, ...] = (A, B)
    with open_index(path, {}) as index:
        ledger = Ledger(sites, partitions=PARTITIONS, rows=index, salt=index.salt)
        index.go_on(ledger)
        yield index, ledger


def _in_shares(read: list[tuple[LogPosition, Record]], made: Path) -> tuple[list[float], float]:
    """Seconds of each of two shares, and of bringing them together."""
    parts, seconds, salt = [], [], bytes(32)
    for share in (Share(0, 2), Share(1, 2)):
        path = made / f"share-{share.no}"
        path.mkdir()
        rows = AuditIndex(path, salt)
        ledger = Ledger((A, B), partitions=PARTITIONS, rows=rows, salt=salt)
        begun = time.process_time()
        enter = Entrance(ledger).enter
        with few_collections():
            for place, record in read:
                if place.partition in share:
                    enter(place, record)
        parts.append((ledger.kept(), rows, share))
        rows.flush()
        seconds.append(time.process_time() - begun)
    with open_index(made / "whole", {}) as index:
        whole = Ledger((A, B), partitions=PARTITIONS, rows=index, salt=salt)
        begun = time.process_time()
        for kept, rows, share in parts:
            whole.absorb(kept, rows, share)
            rows.close()
        return seconds, time.process_time() - begun


def _judge(ledger: Ledger) -> None:
    assert not ledger.wanted()
    assert not ledger.judge(LATER_MS).broken
