"""Entries of Avro container files: blocks found by their headers alone, decoded by fastavro as they are needed.

The schema is one record; its fields are the columns. Logical types become Arrow's. Not here: the project's own facts,
which are Avro too (`streams.wire.avro`).
"""

from __future__ import annotations

import io
import json
from bisect import bisect_right
from collections.abc import Sequence
from typing import Any, cast

import fastavro
import pyarrow as pa

from streams.core.names import shown
from streams.core.selections.entries import EventSelection
from streams.core.varint import packed, varint
from streams.errors import permanent
from streams.events.checked_file import CheckedFile, not_implemented
from streams.events.columns import NoArrowType
from streams.events.cut_points import CutPoints
from streams.events.entries import Entries, chosen, refuse_unreadable, without_tree
from streams.events.formats.avro.types import AvroColumn, column_of, named_types, self_contained, without_logical

_SYNC_BYTES = 16
_HEAD_BYTES = 20  # two numbers of at most ten bytes
_MAGIC = b"Obj\x01"
_BLOCK_BYTES_MAX = 1 << 30
_ZSTANDARD = "zstandard"


class AvroEntries(Entries):
    """Records of an Avro container file."""

    def __init__(self, file: CheckedFile, selection: EventSelection) -> None:
        super().__init__(file, selection)
        without_tree(selection, file.path, "an Avro file")
        file.lacks = _lacks
        with file.guarded("cannot read the Avro file"):
            buffered = io.BufferedReader(file, 1 << 16)
            try:
                reader = fastavro.block_reader(buffered)
                schema = cast("dict[str, Any]", reader.writer_schema)
                at = buffered.tell()
            finally:
                buffered.detach()
            self._sync = file.pread(at - _SYNC_BYTES, at)
            if not isinstance(schema, dict) or schema.get("type") != "record" or not schema["fields"]:
                raise permanent("its schema is no record", file.path)
            self._codec = reader.codec
            self._header = _header(schema, "null" if self._codec == _ZSTANDARD else self._codec, self._sync)
            by_name = {field["name"]: field for field in schema["fields"]}
            named = named_types(schema)
            self._columns, unreadable = _plan(chosen(selection, list(by_name), file.path), by_name, named)
            fields = [column.field for column in self._columns]
            refuse_unreadable(unreadable, selection, file.path, fields)
            wanted = self_contained({**schema, "fields": [by_name[field.name] for field in fields]}, named, set())
            self._wanted = fastavro.parse_schema(without_logical(wanted), named_schemas={})
            self._places, self._edges, sizes = _blocks(file, at, self._sync)
            start, stop = self._range(self._edges[-1])
            borders = CutPoints(start, stop, [(self._edges, sizes)])
        self._last: tuple[int, list[dict[str, Any]]] | None = None
        self._found(pa.schema(fields), unreadable, borders)

    def _load(self, start: int, stop: int) -> Sequence[pa.Array]:
        first = bisect_right(self._edges, start) - 1
        records: list[dict[str, Any]] = []
        at = first
        while self._edges[at] < stop:
            if self._edges[at + 1] > start:
                block = self._block(at)
                records += block[max(0, start - self._edges[at]) : stop - self._edges[at]]
            at += 1
        return [column.array([record[column.field.name] for record in records]) for column in self._columns]

    def _block(self, number: int) -> list[dict[str, Any]]:
        if self._last is None or self._last[0] != number:
            begin, end = self._places[number]
            block = self._file.pread(begin, end)
            raw = io.BytesIO(self._header + (_without_zstandard(block) if self._codec == _ZSTANDARD else block))
            records = cast("list[dict[str, Any]]", list(fastavro.reader(raw, reader_schema=self._wanted)))
            if len(records) != self._edges[number + 1] - self._edges[number]:
                raise ValueError(f"block {number} holds {len(records)} records, its header says otherwise")
            self._last = number, records
        return self._last[1]


def _lacks(error: BaseException) -> str | None:
    """fastavro says in words only that it has no codec."""
    said = str(error)
    if isinstance(error, ValueError) and ("Unrecognized codec" in said or "codec is supported but" in said):
        codec = said.partition("Unrecognized codec: ")[2] or said.partition(" codec is")[0]
        return f"its blocks are packed by the codec {shown(codec, 40)!r}"
    return not_implemented(error)


def _plan(
    names: Sequence[str], fields: dict[str, Any], named: dict[str, Any]
) -> tuple[list[AvroColumn], dict[str, str]]:
    columns, unreadable = [], {}
    for name in names:
        try:
            columns.append(column_of(name, fields[name]["type"], named))
        except NoArrowType as error:
            unreadable[name] = str(error)
    return columns, unreadable


def _header(schema: dict[str, Any], codec: str, sync: bytes) -> bytes:
    """A container's beginning with the same schema, logical types left out: values come as they are stored."""
    meta = {"avro.schema": json.dumps(without_logical(schema)).encode(), "avro.codec": codec.encode()}
    out = io.BytesIO()
    fastavro.schemaless_writer(out, {"type": "map", "values": "bytes"}, meta)
    return _MAGIC + out.getvalue() + sync


def _blocks(file: CheckedFile, at: int, sync: bytes) -> tuple[list[tuple[int, int]], list[int], list[int]]:
    """Of every block: where it lies (header to sync included), edges in entries, and bytes."""
    places, edges, sizes = [], [0], []
    head = file.pread(at, at + _HEAD_BYTES)
    while head:
        count, used = _number(head, 0)
        size, used = _number(head, used)
        end = at + used + size + _SYNC_BYTES
        if count < 0 or not 0 <= size <= _BLOCK_BYTES_MAX:
            raise ValueError(f"a block of {count} records and {size} bytes")
        after = file.pread(end - _SYNC_BYTES, end + _HEAD_BYTES)
        if after[:_SYNC_BYTES] != sync:
            raise ValueError("it is cut short" if len(after) < _SYNC_BYTES else f"no block ends at byte {end:,}")
        places.append((at, end))
        edges.append(edges[-1] + count)
        sizes.append(size)
        at, head = end, after[_SYNC_BYTES:]
    return places, edges, sizes


def _without_zstandard(block: bytes) -> bytes:
    """The same block stored plain: fastavro needs one more package for this codec, Arrow brings it."""
    count, used = _number(block, 0)
    _, begin = _number(block, used)
    with pa.CompressedInputStream(pa.BufferReader(block[begin:-_SYNC_BYTES]), "zstd") as stream:
        plain = stream.read(_BLOCK_BYTES_MAX + 1)
    if len(plain) > _BLOCK_BYTES_MAX:
        raise ValueError(f"a block of more than {_BLOCK_BYTES_MAX:,} bytes")
    return b"".join((packed(count), packed(len(plain)), plain, block[-_SYNC_BYTES:]))


def _number(raw: bytes, at: int) -> tuple[int, int]:
    """A number and the place behind it."""
    try:
        value, at = varint(raw, at)
    except IndexError:
        raise ValueError("a block's header is cut short") from None
    return (value >> 1) ^ -(value & 1), at
