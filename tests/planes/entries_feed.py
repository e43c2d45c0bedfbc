"""Entries for a destination: manifests of tables, the payload records of their pieces, and what landed read back."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from uuid import uuid4

import awkward as ak
import pyarrow as pa
import pyarrow.parquet as pq
import uproot

from streams.core.manifest import ItemLayout
from streams.core.names import Destination, IntentId, Lfn
from streams.core.ranges import Ranges
from streams.core.records import ChunkHeader, Item, ManifestWritten, Segment, Unit
from streams.core.selections import parts
from streams.events.batches import fingerprint
from streams.storage.checksums import crc32c
from tests.events.landing_tables import bits, payload
from tests.planes.feed import Receiver, Record
from tests.planes.stage import BLOCK, DATASET, A, B

Tables = Mapping[str, pa.Table]
"""What the entries of each file are."""
START = 100
"""The first entry that is asked of each file."""


def manifest_of(tables: Tables, suffix: str = "parquet", **changed: object) -> ManifestWritten:
    items = tuple(item_of(lfn, table, suffix, **changed) for lfn, table in tables.items())
    return ManifestWritten(IntentId(f"T1_A.{uuid4()}"), A, 0, 0, "", "", Unit.ENTRIES, items, last=True)


def item_of(lfn: str, table: pa.Table, suffix: str = "parquet", **changed: object) -> Item:
    asked = f"Events[{START}:{START + len(table)}]" if len(table) else "Events"
    told: dict[str, object] = {"selection": f"entries:{asked}", "version": "7:1:1", **changed}
    selection, version = str(told["selection"]), str(told["version"])
    target = parts.target_of(Lfn(lfn), selection, suffix)
    length = max(1, len(table))
    return Item(Lfn(lfn), DATASET, BLOCK, target, selection, length, 40 * length, None, version, A)


def record(
    body: ManifestWritten,
    item: int,
    table: pa.Table,
    start: int,
    stop: int,
    *,
    last: bool = False,
    destination: Destination = B,
    request_no: int = 1,
) -> Record:
    """The payload record of entries `[start, stop)` of an item."""
    piece = payload(table, start, stop)
    first = ItemLayout(one.length for one in body.items).starts[item]
    stop = stop if len(table) else 1
    told = fingerprint(table.schema)
    segment = Segment(item, start, stop - start, len(piece), crc32c(piece), None, told)
    return ChunkHeader(body.manifest, destination, request_no, first + start, first + stop, (segment,), last), piece


def records(body: ManifestWritten, tables: Tables, step: int) -> list[Record]:
    """All entries of all items, in order."""
    return [
        record(body, item, table, start, min(start + step, len(table)))
        for item, table in enumerate(tables.values())
        for start in range(0, max(1, len(table)), step)
    ]


def joined(of: Iterable[Record]) -> Record:
    """One record with the segments of several."""
    headers, payloads = zip(*of, strict=True)
    segments = tuple(segment for header in headers for segment in header.segments)
    first: ChunkHeader = headers[0]
    header = ChunkHeader(first.manifest, first.destination, 1, first.start, headers[-1].stop, segments, last=False)
    return header, b"".join(payloads)


def landed(receiver: Receiver, item: Item) -> pa.Table:
    """The file that an item became."""
    path = receiver.root / item.target[1:]
    match parts.suffix_of(item.target):
        case "parquet":
            return pq.read_table(path)
        case "arrow":
            with pa.memory_map(str(path)) as file, pa.ipc.open_file(file) as reader:
                return reader.read_all()
    return rooted(path)


def rooted(path: Path) -> pa.Table:
    with uproot.open(path) as root:
        arrays = root["Events"].arrays()
    return pa.table({name: ak.to_arrow(arrays[name], extensionarray=False) for name in arrays.fields})


def as_told(table: pa.Table, told: pa.Table) -> pa.Table:
    """What uproot read, without its branches of lengths, in the types that were sent: it knows fewer."""
    return table.select(told.column_names).cast(pa.schema([field.with_nullable(True) for field in told.schema]))


def arrived(receiver: Receiver, body: ManifestWritten, tables: Tables) -> None:
    """Every item of the manifest is a file with exactly its entries, and nothing else is left."""
    for item, table in zip(body.items, tables.values(), strict=True):
        assert bits(landed(receiver, item)) == bits(table)
    assert receiver.leftovers() == []


def everything(body: ManifestWritten) -> Ranges:
    return Ranges([(0, sum(item.length for item in body.items))])
