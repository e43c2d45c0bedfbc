"""Parquet, Avro, CSV and JSON lines through the same interface as ROOT."""

from __future__ import annotations

import io
import json
import random
from decimal import Decimal
from pathlib import Path

import awkward as ak
import fastavro
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from streams.core.selections.entries import EventSelection
from streams.errors import StorageError
from streams.events.checked_file import CheckedFile
from streams.events.formats.parquet import footer
from streams.events.formats.parquet.footer import chunks
from streams.events.reading import open_entries
from tests.events.landing_tables import nested

parse = EventSelection.parse


def cut_by_cut(path: Path, payload_bytes: int, selection: str = "[:]") -> pa.Table:
    """Every cut read in order; the same as the whole, which is checked, in any order."""
    with open_entries(str(path), parse(selection)) as entries:
        cuts = entries.cuts(payload_bytes)
        assert [a for a, _ in cuts] + [entries.stop] == [entries.start] + [b for _, b in cuts]
        batches = {cut: entries.read(*cut) for cut in cuts}
        for cut in random.Random(3).sample(cuts, min(5, len(cuts))):
            assert entries.read(*cut).equals(batches[cut]) or "nan" in str(batches[cut].to_pydict())
        assert all(batch.schema == entries.schema for batch in batches.values())
        assert not entries.unreadable
        return pa.Table.from_batches(batches.values(), entries.schema)


def assert_equal_bits(a: pa.Table, b: pa.Table) -> None:
    assert a.schema.names == b.schema.names
    for name in a.schema.names:
        x, y = a.column(name).combine_chunks(), b.column(name).combine_chunks()
        assert x.type == y.type, name
        if pa.types.is_floating(x.type):
            assert x.to_numpy(zero_copy_only=False).tobytes() == y.to_numpy(zero_copy_only=False).tobytes(), name
        else:
            assert str(x.to_pylist()) == str(y.to_pylist()), name


@pytest.mark.parametrize("compression", ["none", "snappy", "gzip", "brotli", "zstd", "lz4"])
def test_parquet_of_every_type(tmp_path: Path, compression: str) -> None:
    table = nested(1500).drop_columns(["nothing"]).replace_schema_metadata(None)
    path = tmp_path / "x.parquet"
    pq.write_table(table, path, compression=compression, row_group_size=400)
    for payload_bytes in (2_000, 50_000, 1 << 24):
        assert_equal_bits(cut_by_cut(path, payload_bytes), table)
    assert_equal_bits(
        cut_by_cut(path, 3_000, "[399:801]{x,Muon_*,record}"),
        table.select(
            [name for name in table.schema.names if name in ("x", "record") or name.startswith("Muon_")]
        ).slice(399, 402),
    )


def test_parquet_cuts_at_row_groups(tmp_path: Path) -> None:
    path = tmp_path / "x.parquet"
    pq.write_table(
        pa.table({"x": np.random.default_rng(1).random(10_000)}), path, row_group_size=1000, use_dictionary=False
    )
    with open_entries(str(path), parse("[:]")) as entries:
        assert entries.cuts(8_500) == [(i, i + 1000) for i in range(0, 10_000, 1000)]
        assert entries.cuts(17_000) == [(i, i + 2000) for i in range(0, 10_000, 2000)]


def test_parquet_reads_the_chosen_columns_only(tmp_path: Path) -> None:
    path = tmp_path / "x.parquet"
    rng = np.random.default_rng(1)
    pq.write_table(pa.table({f"c{i}": rng.random(50_000) for i in range(20)}), path, row_group_size=10_000)
    with open_entries(str(path), parse("{c7}")) as entries:
        for cut in entries.cuts(10_000):
            entries.read(*cut)
        assert entries.bytes_read < path.stat().st_size / 10


def test_parquet_that_awkward_wrote(tmp_path: Path) -> None:
    """Its extension types and dictionaries become what they stand for."""
    path = tmp_path / "x.parquet"
    ak.to_parquet(ak.Array([{"x": [1.5, 2.5], "s": "a"}, {"x": [], "s": "b"}]), str(path), extensionarray=True)
    assert cut_by_cut(path, 10).to_pylist() == [{"x": [1.5, 2.5], "s": "a"}, {"x": [], "s": "b"}]
    table = pa.table({"d": pa.array(["u", "v", "u"]).dictionary_encode()})
    pq.write_table(table, path)
    with open_entries(str(path), parse("[:]")) as entries:
        assert entries.schema.field("d").type == pa.string()
        assert entries.read(0, 3).to_pydict() == {"d": ["u", "v", "u"]}


def test_parquet_without_rows_or_a_tree(tmp_path: Path) -> None:
    path = tmp_path / "x.parquet"
    pq.write_table(pa.table({"x": pa.array([], pa.int8())}), path)
    assert cut_by_cut(path, 10).num_rows == 0
    with pytest.raises(StorageError, match="has no trees, 'Events'"):
        open_entries(str(path), parse("Events"))
    with pytest.raises(StorageError, match="the file has 0"):
        open_entries(str(path), parse("[0:1]"))


AVRO = {
    "type": "record",
    "name": "Event",
    "fields": [
        {"name": "b", "type": "boolean"},
        {"name": "i", "type": "int"},
        {"name": "l", "type": "long"},
        {"name": "f", "type": "float"},
        {"name": "d", "type": "double"},
        {"name": "s", "type": "string"},
        {"name": "raw", "type": "bytes"},
        {"name": "maybe", "type": ["null", "long"]},
        {"name": "jag", "type": {"type": "array", "items": "double"}},
        {"name": "map", "type": {"type": "map", "values": "int"}},
        {"name": "kind", "type": {"type": "enum", "name": "Kind", "symbols": ["A", "B"]}},
        {"name": "four", "type": {"type": "fixed", "name": "Four", "size": 4}},
        {"name": "rec", "type": {"type": "record", "name": "In", "fields": [
            {"name": "x", "type": "int"}, {"name": "m", "type": {"type": "map", "values": "string"}}]}},
        {"name": "when", "type": {"type": "long", "logicalType": "timestamp-micros"}},
        {"name": "day", "type": {"type": "int", "logicalType": "date"}},
        {"name": "price", "type": {"type": "bytes", "logicalType": "decimal", "precision": 20, "scale": 2}},
        {"name": "id", "type": {"type": "string", "logicalType": "uuid"}},
    ],
}  # fmt: skip


def avro_records(count: int) -> list[dict[str, object]]:
    return [
        {
            "b": i % 2 == 0,
            "i": -i,
            "l": (1 << 62) + i,
            "f": float(np.float32(i / 3)),
            "d": -0.0 if i % 5 == 0 else i / 7,
            "s": "é" * (i % 4),
            "raw": bytes([i % 256]) * (i % 3),
            "maybe": i if i % 3 else None,
            "jag": [i / 2] * (i % 4),
            "map": {str(k): k for k in range(i % 3)},
            "kind": "AB"[i % 2],
            "four": bytes([0, 1, 2, i % 256]),
            "rec": {"x": i, "m": {"k": "v"} if i % 2 else {}},
            "when": 1_700_000_000_000_000 + i,
            "day": 19_000 + i,
            "price": Decimal(i - 5).scaleb(-2),
            "id": f"00000000-0000-0000-0000-{i:012d}",
        }
        for i in range(count)
    ]


def write_avro(path: Path, records: list[dict[str, object]], codec: str) -> None:
    """Like fastavro, which lacks a package for zstandard: such blocks are compressed here."""
    out = io.BytesIO()
    fastavro.writer(out, AVRO, records, codec="null" if codec == "zstandard" else codec, sync_interval=4000)
    raw = out.getvalue()
    if codec == "zstandard":
        reader = fastavro.block_reader(io.BytesIO(raw))
        sync = raw[-16:]
        meta = {"avro.schema": json.dumps(AVRO).encode(), "avro.codec": b"zstandard"}
        out = io.BytesIO(b"Obj\x01")
        out.seek(4)
        fastavro.schemaless_writer(out, {"type": "map", "values": "bytes"}, meta)
        out.write(sync)
        for block in reader:
            body = pa.compress(block.bytes_.getvalue(), "zstd", asbytes=True)
            for number in (block.num_records, len(body)):
                fastavro.schemaless_writer(out, "long", number)
            out.write(body + sync)
        raw = out.getvalue()
    path.write_bytes(raw)


@pytest.mark.parametrize("codec", ["null", "deflate", "bzip2", "xz", "snappy", "zstandard"])
def test_avro_of_every_type(tmp_path: Path, codec: str) -> None:
    records = avro_records(700)
    path = tmp_path / "x.avro"
    write_avro(path, records, codec)
    table = cut_by_cut(path, 9_000)
    ours = table.to_pylist(maps_as_pydicts="strict")
    for record, row in zip(records, ours, strict=True):
        when, day = row.pop("when"), row.pop("day")
        expected = {k: v for k, v in record.items() if k not in ("when", "day")}
        assert row == expected
        assert when.timestamp() == pytest.approx(float(str(record["when"])) / 1e6, abs=1e-6)
        assert (day - day.replace(1970, 1, 1)).days == record["day"]
    assert table.column("when").cast(pa.int64()).to_pylist() == [r["when"] for r in records]
    assert np.signbit(table.column("d").to_numpy()[0])
    few = cut_by_cut(path, 2_000, "[100:300]{jag,rec}")
    assert few.column("jag").to_pylist() == [r["jag"] for r in records[100:300]]


def test_avro_empty_and_unions(tmp_path: Path) -> None:
    path = tmp_path / "x.avro"
    schema = {"type": "record", "name": "E", "fields": [
        {"name": "u", "type": ["int", "string"]}, {"name": "x", "type": "int"}]}  # fmt: skip
    with path.open("wb") as file:
        fastavro.writer(file, schema, [])
    with pytest.raises(StorageError, match="'u': a union of types") as caught:
        open_entries(str(path), parse("[:]"))
    assert caught.value.failure_class == "permanent"
    with open_entries(str(path), parse("[:]?")) as entries:
        assert entries.unreadable == {"u": "a union of types"}
        assert entries.columns == ("x",)
        assert entries.cuts(9) == []


def test_avro_cut_short_or_with_a_broken_block(tmp_path: Path) -> None:
    out = io.BytesIO()
    fastavro.writer(out, AVRO, avro_records(300), sync_interval=2000)
    raw = out.getvalue()
    path = tmp_path / "x.avro"
    path.write_bytes(raw[:-5])
    with pytest.raises(StorageError, match="it is cut short") as caught:
        open_entries(str(path), parse("[:]"))
    assert caught.value.failure_class == "data-bad"


def test_csv(tmp_path: Path) -> None:
    path = tmp_path / "x.csv"
    with path.open("w") as file:
        file.write('n,x,big,text,flag,day,"with, comma"\n')
        for i in range(3000):
            flag, day = str(i % 2 == 0).lower(), f"2026-01-{i % 28 + 1:02d}"
            file.write(f'{i},{i / 4},{(1 << 63) + i},"a ""quoted""\nline {i}",{flag},{day},z{i}\n')
    table = cut_by_cut(path, 10_000)
    assert table.schema.types == [
        pa.int64(), pa.float64(), pa.uint64(), pa.string(), pa.bool_(), pa.string(), pa.string(),
    ]  # fmt: skip
    assert table.column("big").to_pylist() == [(1 << 63) + i for i in range(3000)]
    assert table.column("text").to_pylist()[2999] == 'a "quoted"\nline 2999'
    assert table.column("day").to_pylist()[0] == "2026-01-01"
    few = cut_by_cut(path, 500, "[2990:3000]{with\\, comma}")
    assert few.column(0).to_pylist() == [f"z{i}" for i in range(2990, 3000)]


def test_csv_types_come_from_the_whole_file(tmp_path: Path) -> None:
    path = tmp_path / "x.csv"
    lines = [f"{i},{i},{i}" for i in range(400_000)] + ["1.5,word,"]
    path.write_text("a,b,c\n" + "\n".join(lines))
    assert path.stat().st_size > 3 << 20, "several pieces"
    table = cut_by_cut(path, 1 << 20)
    assert table.schema.types == [pa.float64(), pa.string(), pa.int64()]
    assert table.slice(400_000).to_pylist() == [{"a": 1.5, "b": "word", "c": None}]
    assert table.column("b").to_pylist()[:3] == ["0", "1", "2"]


@pytest.mark.parametrize("text", ["a,b\n1,2\n3\n", "a,a\n1,2\n", "\n\n"])
def test_csv_that_is_none(tmp_path: Path, text: str) -> None:
    path = tmp_path / "x.csv"
    path.write_text(text)
    with pytest.raises(StorageError):
        open_entries(str(path), parse("[:]"))


def test_json_lines(tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"
    rows = [{"n": i, "x": i / 4, "s": "2026-01-01", "jag": [1.5] * (i % 3), "rec": {"a": i}} for i in range(40_000)]
    rows[39_999]["late"] = "only here"
    path.write_text("\n".join(json.dumps(row) for row in rows))
    assert path.stat().st_size > 2 << 20, "several pieces"
    table = cut_by_cut(path, 100_000)
    assert table.column("s").to_pylist()[:1] == ["2026-01-01"]
    assert table.drop_columns(["late"]).slice(39_990).to_pylist() == [
        {k: v for k, v in row.items() if k != "late"} for row in rows[39_990:]
    ]
    assert table.column("late").to_pylist()[-2:] == [None, "only here"]
    path.write_text('{"a": 1}\n{"a": \n')
    with pytest.raises(StorageError) as caught:
        open_entries(str(path), parse("[:]"))
    assert caught.value.failure_class == "data-bad"


@pytest.mark.parametrize("name", ["x.csv", "x.jsonl"])
def test_text_without_entries(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_text("a,b\n" if name == "x.csv" else "")
    with open_entries(str(path), parse("[:]")) as entries:
        assert entries.entries == 0
        assert entries.cuts(1) == []


def test_sizes_of_column_chunks_as_pyarrow_tells_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "x.parquet"
    pq.write_table(nested(1000).drop_columns(["nothing"]), path, row_group_size=100)
    meta = pq.ParquetFile(path).metadata
    told = [
        [meta.row_group(group).column(i).total_uncompressed_size for i in range(meta.num_columns)]
        for group in range(meta.num_row_groups)
    ]
    with CheckedFile(str(path)) as file:
        assert [[chunk.bytes for chunk in group] for group in chunks(file)] == told
        seen = {(chunk.codec, chunk.encrypted) for group in chunks(file) for chunk in group}
        assert seen == {(1, False)}, "snappy"
        monkeypatch.setattr(footer, "CHUNKS_MAX", 3 * meta.num_columns)
        assert [[chunk.bytes for chunk in group] for group in chunks(file)] == told[:3]
    assert cut_by_cut(path, 30_000).num_rows == 1000


def test_claims_that_cannot_be_are_refused_at_once(tmp_path: Path) -> None:
    path = tmp_path / "x.avro"
    out = io.BytesIO()
    fastavro.writer(out, AVRO, avro_records(1))
    raw = out.getvalue()
    body = raw.index(raw[-16:]) + 16
    assert raw[body] == 2, "one record"
    path.write_bytes(raw[:body] + b"\xfe\xff\xff\xff\xff\xff\xff\xff\x7f" + raw[body + 1 :])
    with pytest.raises(StorageError, match="it claims 4,611,686,018,427,387,903 entries"):
        open_entries(str(path), parse("[:]"))


def test_json_numbers_keep_their_digits(tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"
    path.write_text('{"a": 18446744073709551615, "b": 1e30, "c": 9007199254740993}\n')
    with open_entries(str(path), parse("[:]")) as entries:
        assert entries.read(0, 1).to_pylist() == [{"a": 18446744073709551615, "b": 1e30, "c": 9007199254740993}]
    path.write_text('{"a": 18446744073709551616}\n')
    with pytest.raises(StorageError, match="'a' holds whole numbers that 64 bits do not hold"):
        open_entries(str(path), parse("[:]"))
