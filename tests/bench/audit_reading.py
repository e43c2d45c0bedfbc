"""The audit's reading: records of a small federation through gate and ledger, beside fastavro's decoding of the same.

As the audit reads them: originals first, and of copies, which it knows, the origin alone; facts go into an index, which
is then judged, and gone on with though nothing is new. The same in two shares, as two processes read them; and an
account out of the index.

No federation is needed: what brokers take is the same for both. Seconds are those of the processor.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path

import fastavro

import schemas
from streams.auditing.accounting import account_of
from streams.auditing.entering import enter
from streams.auditing.index import AuditIndex, open_index
from streams.core.ledger import Ledger
from streams.core.ledger.accounts import ALWAYS, By
from streams.core.ledger.findings import LogPosition
from streams.core.ledger.shares import Share
from streams.core.names import Site
from streams.kafka.reader import Record
from tests.audit.history import LATER_MS, PARTITIONS, A, B, Federation, Rec, item

INTENTS = 2_000
_FILES = 5
_FRAME_BYTES = 5


def make_history(intents: int) -> list[tuple[LogPosition, Rec]]:
    """Healthy intents of five files each from A to B; the originals of all journals, then the mirrors' copies."""
    world = Federation()
    for number in range(1, intents + 1):
        body = world.ask(number, B)
        world.decide(body)
        items = tuple(item(f"{number}-{n}", 100 + n) for n in range(_FILES))
        for manifest in world.write(body, items):
            world.transfer(manifest, B)
    world.close()
    world.mirror()
    return sorted(world.facts(), key=lambda fact: "." in fact[0].topic)


def audit_reading(intents: int, rounds: int, row: Callable[..., None]) -> None:
    """Rounds of both in turn; the median of the rounds' ratios is what counts."""
    facts = make_history(intents)
    parsed = {number: schemas.load(*_named(number)) for number in {_id(rec) for _, rec in facts}}
    read = [(place, Record(*place[1:], rec.at_ms, rec.key, rec.value, list(rec.headers))) for place, rec in facts]
    ours, judging, theirs, again, on_disk, accounts, shares = [], [], [], [], [], [], []
    for _ in range(max(3, rounds)):
        begun = time.process_time()
        for _, rec in facts:
            body = BytesIO(rec.value or b"")
            body.seek(_FRAME_BYTES)
            fastavro.schemaless_reader(body, parsed[_id(rec)], None)
        theirs.append(time.process_time() - begun)
        with tempfile.TemporaryDirectory() as made:
            path = Path(made) / "audit"
            begun = time.process_time()
            with _opened(path) as (index, ledger):
                for place, record in read:
                    enter(ledger, place, record)
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
    row(f"audit of {len(facts):,} records: of bare decoding", ratio, "ratio", "printed", True, **more)


def _id(rec: Rec) -> int:
    return int.from_bytes((rec.value or b"")[1:_FRAME_BYTES], "big")


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
        for place, record in read:
            if place.partition in share:
                enter(ledger, place, record)
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
