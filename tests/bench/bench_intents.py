"""What a million intents cost a view: folding, listing one state, showing one; prints one JSON object.

    python tests/bench/bench_intents.py [--intents N] [--folded N] [--directory DIR]

The last 20,000 intents are folded from their facts into a RocksDB as the view's thread does it, gate and write batches
included, without a broker; the rows of those before, which have all ended, are written as that leaves them. Then the
answers of a worker's API are timed from the database opened anew. A benchmark, never a test.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
from rocksdict import WriteBatch

from streams import wire
from streams.client.intent_snapshot import Failed, Head, Side, transfer_key
from streams.client.snapshot_json import to_plain
from streams.core import records as m
from streams.core import topics
from streams.core.intent import Chain
from streams.core.manifest import digest
from streams.core.names import Adler32, Block, Dataset, IntentId, Lfn, Site, Text
from streams.core.ranges import EMPTY, Ranges
from streams.core.selectors import Selector, parse
from streams.views import intent_rows, rows
from streams.views.folding import Changes
from streams.views.intents import IntentChanges, Intents, index_rows

HERE, OTHER = Site("T1_A"), Site("T1_B")
RECORDS = 32
"""Of one write batch, as in views/view.py."""
REACH_S = 0.5
NEWEST = "50 newest"
"""The lists of one state that the reach is asked of; the others are printed beside them."""
REQUESTERS, DATASETS = 50, 2000
OPEN = 1000
"""The last of them are still at work."""

Record = tuple[str, bytes, bytes, list[tuple[str, bytes]]]


def main() -> None:
    options = argparse.ArgumentParser()
    options.add_argument("--intents", type=int, default=1_000_000)
    options.add_argument("--folded", type=int, default=20_000)
    options.add_argument("--directory", default="")
    given = options.parse_args()
    with tempfile.TemporaryDirectory(prefix="t2g-bench-", dir=given.directory or None) as scratch:
        path = str(Path(scratch) / "view")
        figures: dict[str, Any] = {"intents": given.intents, "one_record": one_record()}
        figures |= folded(path, given.intents, min(given.folded, given.intents))
        figures |= asked(path, given.intents)
    print(json.dumps(figures, indent=2))


def name_of(number: int) -> IntentId:
    return IntentId(f"{HERE}.{uuid.UUID(int=number * 0x9E3779B97F4A7C15F39CC0605CEDC835 % 2**128, version=4)}")


def body_of(number: int) -> m.TransferIntent:
    dataset = Dataset(f"/Bench/Run{number % DATASETS:04}-v1/NANOAOD")
    chosen: tuple[Selector, ...] = (parse(f"{dataset}#{number:08x}"),)
    return m.TransferIntent(name_of(number), Text(f"user{number % REQUESTERS}@bench"), chosen, (OTHER,))


def manifest(intent: IntentId, files: int, number: int) -> m.ManifestWritten:
    dataset = Dataset(f"/Bench/Run{number % DATASETS:04}-v1/NANOAOD")
    items = tuple(
        m.Item(lfn, dataset, Block(f"{dataset}#{number:08x}"), lfn, "", size, size, Adler32("0000000a"), version, HERE)
        for n in range(files)
        for lfn in [Lfn(f"/store/data/Run2024A/Bench/NANOAOD/v1/{number:06}/{n * 2654435761 % 2**32:08X}-{n:08}.root")]
        for size, version in [(1_000_000 + n, f"{1_000_000 + n}-1712345678901234567-{n:06}")]
    )
    return m.ManifestWritten(intent, HERE, 0, 0, "", "", m.Unit.BYTES, items, True)


def facts(number: int, end: bool) -> list[m.Message]:
    """All that is said of an intent of one file: asked, decided, written, twice reported, completed."""
    body = body_of(number)
    of = manifest(body.intent, 1, number)
    waits = Text(f"{HERE} to answer request 1")
    said: list[m.Message] = [
        body,
        m.IntentDecided(body.intent, 1, m.Verdict.ACCEPTED, body, HERE, 0, 5),
        of,
        m.TransferReported(body.intent, of.manifest, OTHER, 1, "active", 0, 1_000_000, 0, 0, 1, waits),
        m.TransferReported(body.intent, of.manifest, OTHER, 1, "active", 500_000, 1_000_000, 0, 0, 1, waits),
    ]
    if end:
        why = m.Reason(m.Scope.SOURCE, m.FailureClass.PERMANENT, "read", Text("no such file"))
        failed = (m.FailedItems(Ranges.of(0), why),) if number % 50 == 0 else ()
        sealed, ended = (EMPTY, m.Ended.FAILED) if failed else (Ranges.of(0), m.Ended.DONE)
        size = 0 if failed else 1_000_000
        said.append(
            m.CompletionRecord(body.intent, of.manifest, OTHER, ended, 1, sealed, failed, EMPTY, size, digest(of))
        )
    return said


def record_of(fact: m.Message, at_ms: int) -> Record:
    site = OTHER if isinstance(fact, m.TransferReported | m.CompletionRecord) else HERE
    base = m.topic_of(fact)
    key = m.key_of(fact)
    return (
        base if site == HERE else topics.remote(site, base),
        key if isinstance(key, bytes) else key.encode(),
        wire.encode(fact),
        wire.headers(fact, m.Origin(site, "w", "i", 1, at_ms)),
    )


def fold(db: Any, changes: IntentChanges, records: list[Record]) -> None:
    """As the view's thread does it."""
    batch = Changes(db)
    for offset, (topic, key, value, headers) in enumerate(records):
        changes.hear_record((topic, 0, offset), (key, value, headers), HERE)
        batch.extra[rows.offset_key(topic, 0)] = b"%d" % offset
    batch.extra |= changes.take()
    batch.write()


def one_record() -> dict[str, float]:
    """CPU of the thread, medians: µs a small intent with all its facts, ms a full manifest."""
    with tempfile.TemporaryDirectory(prefix="t2g-bench-") as scratch:
        db = rows.open_primary(f"{scratch}/view")
        changes = IntentChanges(db)
        small, full, gate = list[float](), list[float](), list[float]()
        for number in range(300):
            records = [record_of(fact, 1_000 + number) for fact in facts(number, end=True)]
            small.append(timed(lambda records=records: fold(db, changes, records), time.thread_time))
        for number in range(300, 330):
            big = record_of(manifest(name_of(number), 1000, number), 1_000)
            full.append(timed(lambda big=big: fold(db, changes, [big]), time.thread_time))
            gate.append(timed(lambda big=big: wire.decode(*big, HERE), time.thread_time))
        db.close()
    return {
        "small_intent_us": round(statistics.median(small) * 1e6),
        "full_manifest_ms": round(statistics.median(full) * 1e3, 2),
        "full_manifest_at_the_gate_ms": round(statistics.median(gate) * 1e3, 2),
    }


def folded(path: str, intents: int, last: int) -> dict[str, Any]:
    db = rows.open_primary(path)
    changes, process = IntentChanges(db), psutil.Process()
    spent_s, waiting = 0.0, list[Record]()
    begun = time.monotonic()
    for number in range(intents - last):
        write(db, number)
    written_s = time.monotonic() - begun
    before = process.memory_info().rss
    peak = 0
    for number in range(intents - last, intents):
        waiting += [record_of(fact, 1_000_000 + number) for fact in facts(number, number < intents - OPEN)]
        if len(waiting) >= RECORDS:
            spent_s += timed(lambda records=waiting: fold(db, changes, records), time.thread_time)
            waiting = []
        if number % 1000 == 0:
            peak = max(peak, process.memory_info().rss)
    fold(db, changes, waiting)
    check_written(db, changes, intents)
    db.flush()
    db.close()
    disk = sum(file.stat().st_size for file in Path(path).rglob("*") if file.is_file())
    return {
        "folded": last,
        "writing_the_others_s": round(written_s, 1),
        "folding_cpu_us_an_intent": round(spent_s / last * 1e6),
        "rss_before_and_while_folding_mb": [before >> 20, peak >> 20],
        "disk_mb": disk >> 20,
    }


def rows_of(number: int, sha256: str = "0" * 64) -> intent_rows.Rows:
    """The rows of an ended intent, as folding its facts leaves them, but for its manifest's digest."""
    body = body_of(number)
    failed = number % 50 == 0
    side = Side(OTHER, 0, Ranges.of(0), 0 if failed else 1, int(failed), 0, 0 if failed else 1_000_000)
    head = Head(
        body.intent,
        body,
        m.IntentDecided(body.intent, 1, m.Verdict.ACCEPTED, body, HERE, 0, 5),
        Chain(0, 1, sha256, "", True),
        False,
        1_000_000 + number,
        1_000_000 + number,
        1,
        1_000_000,
        (side,),
        0,
        0,
        (body.selectors[0].name.partition("#")[0],),
    )
    found = index_rows(head)
    found[intent_rows.head_key(head.intent)] = intent_rows.pack_head(head)
    found[intent_rows.body_key(head.intent)] = intent_rows.pack_body(body)
    if failed:
        why = m.Reason(m.Scope.SOURCE, m.FailureClass.PERMANENT, "read", Text("no such file"))
        pending = intent_rows.Pending(found)
        cell = Failed((m.FailedItems(Ranges.of(0), why),), f"{topics.MANIFESTS} 0 2")
        intent_rows.cells(None, head.intent, pending).failed.put(transfer_key(OTHER, 0, 0), cell)
        found |= pending.new
    return found


def write(db: Any, number: int) -> None:
    batch = WriteBatch(raw_mode=True)
    for key, row in rows_of(number).items():
        batch.put(key, row or b"")
    db.write(batch)


def check_written(db: Any, changes: IntentChanges, intents: int) -> None:
    """What is written straight is what folding leaves."""
    for number in (intents + 50, intents + 51):
        for offset, fact in enumerate(facts(number, end=True)):
            topic, key, value, headers = record_of(fact, 1_000_000 + number)
            batch = Changes(db)
            changes.hear_record((topic, 0, offset), (key, value, headers), HERE)
            batch.extra |= changes.take()
            batch.write()
        sha256 = digest(manifest(name_of(number), 1, number))
        for name, row in rows_of(number, sha256).items():
            found = db.get(name)
            assert found == row, (name, found, row)


def asked(path: str, intents: int) -> dict[str, Any]:
    before = psutil.Process().memory_info().rss
    db = rows.open_primary(path)
    known = Intents(db)
    chosen = random.Random(7)
    lists: dict[str, dict[str, float]] = {}
    for label, query in questions(intents):
        took = max(timed(lambda query=query: page(known, query)) for _ in range(5))
        cpu = timed(lambda query=query: page(known, query), time.thread_time)
        lists[label] = {"worst_of_5_ms": round(took * 1e3, 1), "cpu_ms": round(cpu * 1e3, 1)}
    shows = sorted(timed(lambda: to_plain_of(known, name_of(chosen.randrange(intents)))) for _ in range(1000))
    worst = max(shows[-1] * 1e3, *(row["worst_of_5_ms"] for label, row in lists.items() if NEWEST in label))
    after = psutil.Process().memory_info().rss
    db.close()
    return {
        "list": lists,
        "show_p50_ms": round(statistics.median(shows) * 1e3, 2),
        "show_worst_of_1000_ms": round(shows[-1] * 1e3, 2),
        "reach_s": REACH_S,
        "ok": worst <= REACH_S * 1e3,
        "reading_rss_mb": {"before": before >> 20, "after": after >> 20},
    }


def questions(intents: int) -> Iterator[tuple[str, dict[str, Any]]]:
    for state in ("open", "active", "done", "failed", "cancelled"):
        yield f"{state}, {NEWEST}", {"state": state, "limit": 50}
    yield "done, a page of 1000", {"state": "done", "limit": 1000}
    yield "done of one requester", {"state": "done", "requester": "user7@bench", "limit": 50}
    yield "done of one dataset", {"state": "done", "dataset": "/Bench/Run0007-v1/NANOAOD", "limit": 50}
    yield "nothing fits", {"state": "done", "requester": "user0@bench", "dataset": "/Bench/Run0007-v1/NANOAOD"}
    middle = intent_rows.index_place(1_000_000 + intents // 2, name_of(intents // 2))
    yield "done, in the middle", {"state": "done", "cursor": f"{middle[:8].hex()}.{middle[8:].decode()}"}


def page(known: Intents, query: dict[str, Any]) -> str:
    return json.dumps([to_plain(one) for one in known.page(**query).intents])


def to_plain_of(known: Intents, intent: IntentId) -> str:
    found = known.snapshot(intent)
    assert found is not None
    return json.dumps(to_plain(found))


def timed(work: Callable[[], object], clock: Callable[[], float] = time.perf_counter) -> float:
    begun = clock()
    work()
    return clock() - begun


if __name__ == "__main__":
    main()
