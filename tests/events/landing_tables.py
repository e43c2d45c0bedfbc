"""Tables of every type that travels, payloads of their pieces, and how two tables are compared to the last bit."""

from __future__ import annotations

import random
import struct
from itertools import pairwise
from typing import Any

import numpy as np
import pyarrow as pa

from streams.events.batches import Compression, pack
from streams.events.provenance import Provenance
from streams.events.spool import Spool
from streams.events.writing import Sealed, Sealing

ODD_FLOATS = np.frombuffer(
    struct.pack("<8I", 0x7FC00000, 0x7FC12345, 0x7F812345, 0xFFC00001, 0x80000000, 0, 1, 0xFF800000), np.float32
)
"""NaN with payloads (one signalling), -0.0, the smallest number, -inf."""
ODD_DOUBLES = np.frombuffer(
    struct.pack("<4Q", 0x7FF8000000000000, 0x7FF4000000000123, 0x8000000000000000, 0xFFF8DEADBEEF0001), np.float64
)


def seal(spool: Spool, kind: str, path: str, about: Provenance, **more: Any) -> Sealed:
    """The final file of a whole spool, in one step."""
    with Sealing(spool, kind, path, about, **more) as sealing:
        return sealing.finish()


def flat(entries: int) -> pa.Table:
    """What a TTree can hold, with no list."""
    n = np.arange(entries)
    return pa.table(
        {
            "run": n.astype("u4") + np.uint32(4_000_000_000),
            "event": n.astype("u8") + np.uint64(1 << 63),
            "q": (n % 3 - 1).astype("i1"),
            "small": (n % 65_536).astype("u2"),
            "wide": -n.astype("i8"),
            "x": np.resize(ODD_FLOATS, entries),
            "y": np.resize(ODD_DOUBLES, entries),
            "passed": pa.array([k % 3 == 0 for k in range(entries)], pa.bool_()),
        }
    )


def jagged(entries: int) -> pa.Table:
    """With lists, strings and a fixed array: still a TTree."""
    n = np.arange(entries)
    table = flat(entries)
    lengths = n * 7 % 5
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    content = np.resize(ODD_FLOATS, int(offsets[-1]))
    flags = pa.array([k % 2 == 0 for k in range(int(offsets[-1]))], pa.bool_())
    words = ["é" * (k % 4) + str(k) if k % 5 else "" for k in range(entries)]
    table = table.append_column("Muon_pt", pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), content))
    table = table.append_column("Muon_good", pa.LargeListArray.from_arrays(pa.array(offsets, pa.int64()), flags))
    table = table.append_column("word", pa.array(words, pa.string()))
    table = table.append_column("large_word", pa.array([w * 40 for w in words], pa.large_string()))
    cube = pa.FixedSizeListArray.from_arrays(pa.array(np.arange(3 * entries, dtype="i4")), 3)
    table = table.append_column("cube", cube)
    sheet = pa.FixedSizeListArray.from_arrays(pa.array(np.resize(ODD_DOUBLES, 6 * entries)), 2)
    return table.append_column("sheets", pa.FixedSizeListArray.from_arrays(sheet, 3))


def nested(entries: int) -> pa.Table:
    """With what no TTree of uproot's holds: lists of lists, records, missing values, maps."""
    deep = [[[float(k), -0.0], []] * (k % 3) for k in range(entries)]
    records = [{"a": k, "b": [k % 7] * (k % 2)} if k % 4 else None for k in range(entries)]
    maybe = [k if k % 3 else None for k in range(entries)]
    maps = [[(str(k), k)] * (k % 2) for k in range(entries)]
    table = jagged(entries)
    pairs = pa.FixedSizeListArray.from_arrays(table["Muon_pt"].combine_chunks().values, 1)
    table = table.append_column("pairs", pa.ListArray.from_arrays(table["Muon_pt"].combine_chunks().offsets, pairs))
    table = table.append_column("deep", pa.array(deep, pa.list_(pa.list_(pa.float32()))))
    table = table.append_column(
        "record", pa.array(records, pa.struct({"a": pa.int16(), "b": pa.list_(pa.field("item", pa.int64(), False))}))
    )
    table = table.append_column("maybe", pa.array(maybe, pa.int32()))
    table = table.append_column("map", pa.array(maps, pa.map_(pa.string(), pa.int32())))
    table = table.append_column("raw", pa.array([bytes([k % 256]) * (k % 6) for k in range(entries)], pa.binary()))
    table = table.append_column("nothing", pa.nulls(entries))
    table = table.append_column(
        "words", pa.array([["a", "", "é"][: k % 4] for k in range(entries)], pa.list_(pa.string()))
    )
    return table.replace_schema_metadata({"zeta": "1", "alpha": "2"})


def batch_of(table: pa.Table, start: int = 0, stop: int | None = None) -> pa.RecordBatch:
    piece = table.slice(start, None if stop is None else stop - start).combine_chunks()
    batches = piece.to_batches()
    return batches[0] if batches else pa.RecordBatch.from_pylist([], schema=table.schema)


def payload(table: pa.Table, start: int, stop: int, compression: Compression = "lz4") -> bytes:
    """Of a slice that still shares its table's memory, as a reader's does."""
    return pack(batch_of(table).slice(start, stop - start), compression)


def pieces(entries: int, seed: int, cuts: int = 12, extra: int = 6) -> list[tuple[int, int]]:
    """Ranges that cover `[0, entries)`, some of them overlapping or repeated, in no order."""
    chance = random.Random(seed)
    borders = sorted({0, entries, *(chance.randrange(entries + 1) for _ in range(cuts))})
    ranges = list(pairwise(borders))
    for _ in range(extra):
        start, stop = sorted((chance.randrange(entries + 1), chance.randrange(entries + 1)))
        ranges.append((start, stop))
    ranges += chance.sample(ranges, len(ranges) // 3)
    chance.shuffle(ranges)
    return ranges


def bits(table: pa.Table | pa.RecordBatch) -> list[object]:
    """Everything that is a value of the table: equal exactly where every bit of every value is, wherever it lies."""
    return [
        _bits(
            pa.chunked_array(
                [table[name]] if isinstance(table[name], pa.Array) else table[name].chunks,
                table.schema.field(name).type,
            ).combine_chunks()
        )
        for name in table.schema.names
    ]


def _bits(array: pa.Array) -> object:
    kind = array.type
    valid = array.is_valid().to_pylist()
    if pa.types.is_struct(kind):
        return valid, [_bits(child) for child in array.flatten()]
    if pa.types.is_fixed_size_list(kind):
        return valid, kind.list_size, _bits(array.flatten())
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        offsets = array.offsets.to_numpy()
        return valid, [int(n) for n in np.diff(offsets)], _bits(array.flatten())
    if pa.types.is_integer(kind) or pa.types.is_floating(kind):
        return valid, str(kind), array.drop_null().to_numpy().tobytes()
    return valid, array.to_pylist()
