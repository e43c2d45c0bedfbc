"""Requests for entries over real files: what is sent is what the files hold, cut, shared out and refused."""

from __future__ import annotations

import itertools
import os
import random
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from uuid import uuid4

import fastavro
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import uproot

from streams.core.names import IntentId, Lfn
from streams.core.policy import SEGMENTS_MAX
from streams.core.ranges import Ranges
from streams.core.records import FailureClass, ManifestWritten, Reason, Scope
from streams.core.selections.parts import entries_of
from streams.events import batches
from streams.events import entries as windows
from streams.planes.inventory.entry_items import EntryItems
from streams.planes.reasons import put_in_words
from streams.planes.source import entry_reader
from streams.planes.source.open_files import OpenFileCache
from streams.storage import open_endpoint
from tests.events.event_files import (
    HZZ,
    NANOAOD,
    ZMUMU,
    assert_same,
    columns,
    part,
    reference,
    write_rntuple,
    write_ttree,
)
from tests.planes.entry_feed import (
    PAYLOAD,
    EntrySender,
    entries_listed,
    in_file,
    item_of,
    put_sample,
    rows_of,
    unpacked,
)
from tests.planes.feed import Sender, listed
from tests.planes.stage import BLOCK, A, request_of


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "a/store").mkdir(parents=True)
    return tmp_path / "a"


@pytest.fixture
def sender(root: Path) -> Iterator[EntrySender]:
    one = EntrySender(root)
    yield one
    one.close()


def flat_file(path: Path, entries: int, seed: int = 1, clusters: int = 4) -> Path:
    rng = np.random.default_rng(seed)
    with uproot.recreate(path) as file:
        tree = file.mktree("t", {"i": "i8", "x": "f8"})
        for at in range(clusters):
            size = entries // clusters + (at < entries % clusters)
            tree.extend({"i": rng.integers(0, 1 << 40, size), "x": rng.normal(size=size)})
    return path


def whole(sender: EntrySender, root: Path, body: ManifestWritten) -> None:
    """A request for all of a manifest brings exactly the entries of its files."""
    records = sender.serve(request_of(body))
    assert records[-1][0].last
    found = unpacked(records)
    for no, item in enumerate(body.items):
        rows, selection = rows_of(found[no], 0), entries_of(item.selection)
        assert selection is not None
        assert rows.schema.equals(in_file(root, item).schema, check_metadata=True)
        if selection.tree:  # to the last bit, NaNs too
            assert_same(rows, reference(root / item.lfn[1:], selection.tree), selection.start, selection.stop)
        else:
            assert rows.equals(in_file(root, item))
    (served,) = sender.served()
    assert served.ranges == Ranges([(0, sum(item.length for item in body.items))])
    assert served.bytes == sum(len(payload) for _, payload in records)


def test_the_samples_arrive_entry_by_entry(sender: EntrySender, root: Path) -> None:
    lfns = [put_sample(root, HZZ), put_sample(root, ZMUMU)]
    body = entries_listed(root, lfns)
    assert [item.length for item in body.items] == [2421, 2304]
    whole(sender, root, body)


def test_some_columns_of_a_wide_file(sender: EntrySender, root: Path) -> None:
    body = entries_listed(root, [put_sample(root, NANOAOD)], "entries:Events{Muon_*,nMuon}")
    whole(sender, root, body)


def test_every_format_and_kind_of_column(sender: EntrySender, root: Path) -> None:
    write_ttree(root / "store/t.root", [part(columns(700), 0, 300), part(columns(700), 300, 700)])
    write_rntuple(root / "store/n.root", [columns(500, deep=True)])
    table = pa.table({"s": [f"word {i}" * (i % 9) for i in range(5000)], "l": [[i] * (i % 4) for i in range(5000)]})
    pq.write_table(table, root / "store/p.parquet", row_group_size=1500)
    schema = {"type": "record", "name": "e", "fields": [{"name": "n", "type": "long"}, {"name": "s", "type": "string"}]}
    with (root / "store/a.avro").open("wb") as out:
        fastavro.writer(out, fastavro.parse_schema(schema), [{"n": i, "s": "x" * (i % 50)} for i in range(3000)])
    (root / "store/c.csv").write_text("a,b\n" + "".join(f"{i},{i / 8}\n" for i in range(2000)))
    (root / "store/j.jsonl").write_text("".join(f'{{"a": {i}}}\n' for i in range(2000)))
    names = ("t.root", "n.root", "p.parquet", "a.avro", "c.csv", "j.jsonl")
    body = entries_listed(root, [f"/store/{name}" for name in names])
    assert [item.length for item in body.items] == [700, 500, 5000, 3000, 2000, 2000]
    whole(sender, root, body)


def test_ranges_that_start_and_stop_inside_a_cut(sender: EntrySender, root: Path) -> None:
    flat_file(root / "store/f.root", 50_000)
    body = entries_listed(root, ["/store/f.root"], "entries:[100:49000]")
    (item,) = body.items
    assert item.length == 48_900
    asked = Ranges([(1, 2), (5000, 17_001), (48_000, 48_900)])
    records = sender.serve(request_of(body, 1, asked))
    file = in_file(root, item)
    have = Ranges()
    for pieces in unpacked(records).values():
        for offset, length, batch in pieces:
            assert isinstance(batch, pa.RecordBatch)
            assert batch.equals(file.slice(offset, length))
            have |= Ranges([(offset, offset + length)])
    assert have == asked == sender.served()[0].ranges
    assert max(len(payload) for _, payload in records) < 2 * PAYLOAD
    assert [header.last for header, _ in records] == [False] * (len(records) - 1) + [True]


def test_many_small_items_share_records_whose_headers_fit(sender: EntrySender, root: Path) -> None:
    table = pa.table({"a": [1, 2, 3]})
    for n in range(600):
        pq.write_table(table, root / f"store/{n:03}.parquet")
    items = [item_of(root, f"/store/{n:03}.parquet", "entries:[:]") for n in range(600)]
    body = replace(entries_listed(root, ["/store/000.parquet"]), items=tuple(items))
    records = sender.serve(request_of(body))  # the sender encodes each header: one too large would raise
    found = unpacked(records)
    assert len(found) == 600
    assert all(rows_of(pieces, 0).to_pydict() == {"a": [1, 2, 3]} for pieces in found.values())
    assert 3 <= len(records) <= 6
    assert max(len(header.segments) for header, _ in records) < SEGMENTS_MAX


def test_an_empty_tree_has_one_position_that_tells_its_schema(sender: EntrySender, root: Path) -> None:
    write_ttree(root / "store/e.root", [columns(0)])
    pq.write_table(pa.table({"a": pa.array([1, 2])}), root / "store/after.parquet")
    body = entries_listed(root, ["/store/e.root", "/store/after.parquet"])
    empty = body.items[0]
    assert (empty.length, empty.selection) == (1, "entries:t")
    assert empty.bytes > 0
    found = unpacked(sender.serve(request_of(body)))
    ((offset, length, batch),) = found[0]
    assert (offset, length) == (0, 1)
    assert isinstance(batch, pa.RecordBatch)
    assert batch.num_rows == 0
    assert batch.schema.equals(in_file(root, empty).schema)
    assert set(columns(0)) <= set(batch.schema.names)
    assert rows_of(found[1], 0).num_rows == 2


def test_an_open_range_that_begins_at_the_end_is_empty_too(sender: EntrySender, root: Path) -> None:
    flat_file(root / "store/f.root", 100)
    body = entries_listed(root, ["/store/f.root"], "entries:t[100:]{x}")
    assert (body.items[0].length, body.items[0].selection) == (1, "entries:t[100:]{x}")
    ((_, _, batch),) = unpacked(sender.serve(request_of(body)))[0]
    assert isinstance(batch, pa.RecordBatch)
    assert (batch.num_rows, batch.schema.names) == (0, ["x"])


def test_an_entry_over_the_cap_has_a_reason_and_the_others_flow(root: Path) -> None:
    words = ["a", "b" * 300_000, "c", "d"]
    pq.write_table(pa.table({"s": words}), root / "store/big.parquet")
    sender = EntrySender(root, record_bytes_max=100_000)
    body = entries_listed(root, ["/store/big.parquet"])
    pieces = unpacked(sender.serve(request_of(body)))[0]
    sender.close()
    (bad,) = [(offset, length, why) for offset, length, why in pieces if isinstance(why, Reason)]
    assert bad[:2] == (1, 1)
    assert (bad[2].scope, bad[2].failure_class) == (Scope.SOURCE, FailureClass.PERMANENT)
    assert "entry 1 alone has 300," in bad[2].text
    good = {offset: batch.to_pydict()["s"] for offset, _, batch in pieces if isinstance(batch, pa.RecordBatch)}
    assert good == {0: ["a"], 2: ["c", "d"]} or good == {0: ["a"], 2: ["c"], 3: ["d"]}


def test_a_large_payload_is_halved_until_it_fits(root: Path) -> None:
    pq.write_table(pa.table({"s": ["x" * 20_000] * 64}), root / "store/b.parquet")
    sender = EntrySender(root, payload_bytes=1 << 20, record_bytes_max=100_000, codec="none")
    body = entries_listed(root, ["/store/b.parquet"])
    records = sender.serve(request_of(body))
    sender.close()
    assert rows_of(unpacked(records)[0], 0).equals(in_file(root, body.items[0]))
    assert max(segment.size for header, _ in records for segment in header.segments) <= 100_000


def test_a_file_replaced_between_two_chunks_is_said(root: Path, monkeypatch) -> None:  # type: ignore[no-untyped-def]
    monkeypatch.setattr(windows, "WINDOW_BYTES", 1 << 20)  # what is decoded already is still the listed file
    path = flat_file(root / "store/f.root", 400_000)
    sender = EntrySender(root)
    body = entries_listed(root, ["/store/f.root"])
    keep = sender.source._send_chunk

    def replacing(header, payload, *, wait_s=0.0):  # type: ignore[no-untyped-def]
        if not sender.records:
            path.write_bytes(path.read_bytes()[:-1] + b"\0")  # in place: the open file is the changed one
        keep(header, payload, wait_s=wait_s)

    sender.source._send_chunk = replacing
    pieces = unpacked(sender.serve(request_of(body)))[0]
    _, _, reason = pieces[-1]
    assert isinstance(reason, Reason)
    assert reason.failure_class is FailureClass.DATA_BAD
    assert "changed" in reason.text
    assert str(path) in reason.text
    assert sum(length for _, length, _ in pieces) == 400_000
    flat_file(root / "store/new.root", 400_000, seed=2)
    os.replace(root / "store/new.root", path)  # by another file: seen when it is opened the next time
    sender.source._send_chunk = keep
    ((_, length, reason),) = unpacked(sender.serve(request_of(body, 2)))[0]
    sender.close()
    assert isinstance(reason, Reason)
    assert (length, reason.failure_class) == (400_000, FailureClass.DATA_BAD)
    assert "since it was listed" in reason.text


def test_a_column_that_breaks_midway_fails_the_rest_with_its_name(sender: EntrySender, root: Path) -> None:
    path = flat_file(root / "store/f.root", 40_000, clusters=2)
    with uproot.open(path) as file:
        seek = int(file["t"]["x"].member("fBasketSeek")[1])
    raw = bytearray(path.read_bytes())
    raw[seek + 80 : seek + 400] = bytes(320)
    path.write_bytes(raw)
    body = entries_listed(root, ["/store/f.root"], "entries:{x}")
    pieces = unpacked(sender.serve(request_of(body)))[0]
    reason = pieces[-1][2]
    assert isinstance(reason, Reason)
    assert reason.failure_class is FailureClass.DATA_BAD
    assert "'x'" in reason.text
    assert pieces[-1][0] + pieces[-1][1] == 40_000


def test_a_file_that_has_gone_and_a_bad_neighbour_do_not_stop_the_others(sender: EntrySender, root: Path) -> None:
    for name in ("a", "b", "c"):
        flat_file(root / f"store/{name}.root", 2000)
    body = entries_listed(root, [f"/store/{name}.root" for name in ("a", "b", "c")])
    (root / "store/b.root").unlink()
    found = unpacked(sender.serve(request_of(body)))
    assert rows_of(found[0], 0).num_rows == rows_of(found[2], 0).num_rows == 2000
    ((offset, length, reason),) = found[1]
    assert isinstance(reason, Reason)
    assert (offset, length, reason.failure_class) == (0, 2000, FailureClass.PERMANENT)
    assert "no such file" in reason.text


def test_what_may_be_readable_later_is_said_in_its_place(sender: EntrySender, root: Path, monkeypatch) -> None:  # type: ignore[no-untyped-def]
    for name in ("a", "b", "c"):
        flat_file(root / f"store/{name}.root", 2000)
    body = entries_listed(root, [f"/store/{name}.root" for name in ("a", "b", "c")])
    real = entry_reader.open_item

    def moody(endpoint, lfn, version, selection):  # type: ignore[no-untyped-def]
        if lfn == "/store/b.root":
            raise put_in_words(MemoryError(), lfn)
        return real(endpoint, lfn, version, selection)

    monkeypatch.setattr(entry_reader, "open_item", moody)
    found = unpacked(sender.serve(request_of(body)))
    assert not any(isinstance(content, Reason) for item in (0, 2) for _, _, content in found[item])
    ((offset, length, reason),) = found[1]
    assert (offset, length) == (0, 2000)
    assert isinstance(reason, Reason)
    assert (reason.scope, reason.failure_class) == (Scope.SOURCE, FailureClass.TRANSIENT)
    assert sender.served()[0].ranges == Ranges([(0, 2000), (4000, 6000)])


@pytest.mark.parametrize("codec", ["lz4", "zstd", "none"])
def test_the_codec_is_the_policys(root: Path, codec: str) -> None:
    pq.write_table(pa.table({"a": [7] * 10_000}), root / "store/p.parquet")
    sender = EntrySender(root, codec=codec)
    body = entries_listed(root, ["/store/p.parquet"])
    whole(sender, root, body)
    sender.close()
    header, payload = sender.records[0]
    assert batches.compression_of(payload[: header.segments[0].size]) == codec


def test_readers_are_few_and_closed_when_idle(root: Path, monkeypatch) -> None:  # type: ignore[no-untyped-def]
    for n in range(6):
        flat_file(root / f"store/{n}.root", 20_000, seed=n)
    monkeypatch.setattr(entry_reader.FileEntries, "idle_s", 0.05)
    sender = EntrySender(root)
    supply = sender.source._supply
    assert isinstance(supply, entry_reader.FileEntries)
    opened: list[int] = []
    take = supply.take

    def counted(*args):  # type: ignore[no-untyped-def]
        opened.append(len(supply._opened))
        return take(*args)

    monkeypatch.setattr(supply, "take", counted)
    bodies = [entries_listed(root, [f"/store/{n}.root"]) for n in range(6)]
    sender.serve(*map(request_of, bodies))
    by_manifest = {body.manifest: [r for r in sender.records if r[0].manifest == body.manifest] for body in bodies}
    for body in bodies:
        assert rows_of(unpacked(by_manifest[body.manifest])[0], 0).equals(in_file(root, body.items[0]))
    assert max(opened) <= entry_reader.READERS_MAX
    until = time.monotonic() + 5
    while supply._opened and time.monotonic() < until:
        time.sleep(0.01)
    assert not supply._opened
    sender.close()


def test_whole_files_do_not_wait_for_entries(root: Path) -> None:
    """The sending of entries is stopped in its middle; bytes of another transfer pass."""
    flat_file(root / "store/f.root", 200_000)
    entries, files = EntrySender(root), Sender(root)
    gate, reached = threading.Event(), threading.Event()
    keep = entries.source._send_chunk

    def slow(header, payload, *, wait_s=0.0):  # type: ignore[no-untyped-def]
        reached.set()
        assert gate.wait(10)
        keep(header, payload, wait_s=wait_s)

    entries.source._send_chunk = slow
    body = entries_listed(root, ["/store/f.root"])
    entries.source.serve(request_of(body))
    assert reached.wait(10)
    assert len(files.serve(request_of(listed(root, {"/store/bytes": b"x" * 100})))) == 1
    assert not entries.records
    gate.set()
    with entries._done:
        assert entries._done.wait_for(lambda: len(entries.told) == 1, 20)
    entries.close()
    files.close()


def test_what_was_just_listed_is_not_opened_again(root: Path, monkeypatch) -> None:  # type: ignore[no-untyped-def]
    lfns = [put_sample(root, ZMUMU), put_sample(root, HZZ)]
    open_files = OpenFileCache()
    with open_endpoint(f"file://{root}") as endpoint:
        listing = EntryItems(A, endpoint, PAYLOAD, open_files)
        held = [{A: endpoint.stat(lfn).version} for lfn in lfns]
        items = [listing.item(Lfn(n), BLOCK, v, "entries:[3:]", "root") for n, v in zip(lfns, held, strict=True)]
    body = replace(entries_listed(root, lfns[:1]), items=tuple(items))
    opened: list[str] = []
    real = entry_reader.open_item

    def counted(endpoint, lfn, version, selection):  # type: ignore[no-untyped-def]
        opened.append(lfn)
        return real(endpoint, lfn, version, selection)

    monkeypatch.setattr(entry_reader, "open_item", counted)
    sender = EntrySender(root, open_files=open_files)
    whole(sender, root, body)
    sender.close()
    assert opened == lfns[1:]


def test_what_nobody_takes_from_the_shelf_is_closed(root: Path) -> None:
    open_files = OpenFileCache(0.05)
    item = item_of(root, put_sample(root, ZMUMU), "entries:[:]", open_files=open_files)
    assert open_files._kept is not None
    entries = open_files._kept[1]
    until = time.monotonic() + 5
    while not entries._file.closed and time.monotonic() < until:  # taken from the shelf a moment before
        time.sleep(0.01)
    assert entries._file.closed
    assert open_files.take(item.lfn, item.version, item.selection) is None


def test_damaged_files_end_as_entries_or_reasons_and_never_end_the_thread(root: Path, caplog) -> None:  # type: ignore[no-untyped-def]
    """Damaged after they were listed, under the version of what lies there now."""
    whole_file = flat_file(root / "store/f.root", 3000).read_bytes()
    sender = EntrySender(root)
    item = entries_listed(root, ["/store/f.root"]).items[0]
    noise, outcomes = random.Random(5), set()
    for _ in range(40):
        raw = bytearray(whole_file)
        for _ in range(noise.choice((1, 3, 30))):
            raw[noise.randrange(len(raw))] = noise.randrange(256)
        (root / "store/f.root").write_bytes(raw[: noise.choice((len(raw), noise.randrange(len(raw))))])
        version = sender.endpoint.stat("/store/f.root").version
        body = replace(
            entries_listed(root, []), intent=IntentId(f"T1_A.{uuid4()}"), items=(replace(item, version=version),)
        )
        records = sender.serve(request_of(body))
        pieces = unpacked(records)[0]
        assert [offset for offset, _, _ in pieces] == [0, *itertools.accumulate(length for _, length, _ in pieces)][:-1]
        assert sum(length for _, length, _ in pieces) == 3000
        outcomes.add(type(pieces[-1][2]))
    sender.close()
    assert outcomes == {Reason, pa.RecordBatch}
    assert not [one for one in caplog.records if one.levelname == "ERROR" and one.name.startswith("streams.planes")]
