"""Entries of Parquet files: row groups decoded as streams, so a large one never stands in memory whole.

Dictionaries and extension types become what they stand for; every other type is the file's own.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import pairwise

import pyarrow as pa
import pyarrow.parquet as pq

from streams.core.selections.entries import EventSelection
from streams.events.checked_file import NOT_SUPPORTED, CheckedFile, not_implemented, unsupported
from streams.events.columns import NoArrowType, mapped_field, travelling
from streams.events.cut_points import CutPoints
from streams.events.entries import Entries, chosen, refuse_unreadable, without_tree
from streams.events.formats.parquet.footer import Chunk, chunks
from streams.events.sizes import least_bytes

_BUFFER_BYTES = 1 << 20
_BATCH_BYTES = 8 << 20
_BATCH_ROWS_MAX = 1 << 17
ENCRYPTED_MAGIC = b"PARE"
_CODECS = {1: "snappy", 2: "gzip", 4: "brotli", 5: "lz4", 6: "zstd", 7: "lz4_raw"}
"""The format's numbers of what Arrow may have."""
_CODEC_NAMES = {3: "LZO", **_CODECS}
_ENCODINGS = frozenset((0, 2, 3, 4, 5, 6, 7, 8, 9))
"""4 is that of levels in old files."""


class ParquetEntries(Entries):
    """Rows of a Parquet file; columns are its top-level fields."""

    def __init__(self, file: CheckedFile, selection: EventSelection) -> None:
        super().__init__(file, selection)
        without_tree(selection, file.path, "a Parquet file")
        file.lacks = _lacks
        if file.pread(0, 4) == ENCRYPTED_MAGIC:
            what = f"{NOT_SUPPORTED}the Parquet file is encrypted, its footer too"
            raise unsupported(what, file.path, "decrypt it, or transfer the whole file")
        with file.guarded("cannot read the Parquet file"):
            source = pa.PythonFile(file, mode="r")
            self._parquet = pq.ParquetFile(
                source, buffer_size=_BUFFER_BYTES, pre_buffer=False, page_checksum_verification=True
            )
            meta = self._parquet.metadata
            whole = self._parquet.schema_arrow
            names = chosen(selection, tuple(dict.fromkeys(whole.names)), file.path)
            known, leaves = chunks(file), _leaf_ranges(whole)
            fields, unreadable = _plan(whole, names, known, leaves)
            refuse_unreadable(unreadable, selection, file.path, fields)
            names = [field.name for field in fields]
            self._indices = [i for name in names for i in leaves[name]]
            self._edges = [0]
            for group in range(meta.num_row_groups):
                self._edges.append(self._edges[-1] + meta.row_group(group).num_rows)
            start, stop = self._range(self._edges[-1])
            columns = [(self._edges, _sizes(known, leaves[f.name], self._edges, least_bytes(f.type))) for f in fields]
            borders = CutPoints(start, stop, columns)
        self._stream: _Streamed | None = None
        self._found(pa.schema(fields), unreadable, borders)
        row_bytes = borders.bytes_between(start, stop) // max(1, stop - start) + 1
        self._batch_rows = max(1, min(_BATCH_ROWS_MAX, _BATCH_BYTES // row_bytes))

    def _load(self, start: int, stop: int) -> Sequence[pa.Array]:
        batches: list[pa.RecordBatch] = []
        while start < stop:
            group = bisect_right(self._edges, start) - 1
            end = min(stop, self._edges[group + 1])
            batches += self._at(group, start).take(end - start)
            start = end
        return _joined(batches, self.schema)

    def _at(self, group: int, entry: int) -> _Streamed:
        """A stream of the row group that stands at `entry`: the one in use where it does, else a new one."""
        if self._stream is None or self._stream.at != entry or entry == self._edges[group]:
            reader = self._parquet.reader
            batches = reader.iter_batches(
                self._batch_rows, row_groups=[group], column_indices=self._indices, use_threads=False
            )
            self._stream = _Streamed(batches, self._edges[group])
            self._stream.take(entry - self._edges[group])
        return self._stream


class _Streamed:
    """Batches whose first entry is number `at`; `at` moves on with what is taken."""

    def __init__(self, batches: Iterable[pa.RecordBatch], at: int) -> None:
        self._batches: Iterator[pa.RecordBatch] = iter(batches)
        self._left: pa.RecordBatch | None = None
        self.at = at

    def take(self, count: int) -> list[pa.RecordBatch]:
        """The next `count` entries. Raises EOFError where the stream ends before."""
        taken = []
        while count:
            batch = self._left if self._left is not None else next(self._batches, None)
            if batch is None:
                raise EOFError(f"it ends {count:,} entries early")
            self._left = batch.slice(count) if batch.num_rows > count else None
            if batch.num_rows:
                taken.append(batch.slice(0, count))
            count -= taken[-1].num_rows if batch.num_rows else 0
            self.at += taken[-1].num_rows if batch.num_rows else 0
        return taken


def _joined(batches: Sequence[pa.RecordBatch], schema: pa.Schema) -> list[pa.Array]:
    """The batches' columns, each one array of the schema's type."""
    found = []
    for i, field in enumerate(schema):
        columns = [batch.column(i) for batch in batches]
        pieces = [column if column.type == field.type else column.cast(field.type) for column in columns]
        found.append(pieces[0] if len(pieces) == 1 else pa.concat_arrays(pieces) if pieces else pa.nulls(0, field.type))
    return found


def _lacks(error: BaseException) -> str | None:
    """pyarrow has a type for most of what it cannot do; of encryption it only tells in words."""
    if isinstance(error, OSError) and "decrypt" in str(error).lower():
        return "it is encrypted"
    return not_implemented(error)


def _chunk_fault(chunk: Chunk) -> str | None:
    """Why its pages cannot be read, whatever is in them; None where they can."""
    if chunk.encrypted:
        return "it is encrypted"
    if chunk.codec and not (chunk.codec in _CODECS and pa.Codec.is_available(_CODECS[chunk.codec])):
        return f"it is packed by the codec {_CODEC_NAMES.get(chunk.codec, chunk.codec)}"
    strange = [encoding for encoding in chunk.encodings if encoding not in _ENCODINGS]
    return f"its pages are written in the encoding {strange[0]}" if strange else None


def _plan(
    schema: pa.Schema, names: Sequence[str], known: Sequence[Sequence[Chunk]], leaves: Mapping[str, range]
) -> tuple[list[pa.Field], dict[str, str]]:
    fields, unreadable = [], {}
    seen: dict[Chunk, str | None] = {}
    times = Counter(schema.names)
    for name in names:
        try:
            if times[name] > 1:
                raise NoArrowType("two columns have this name")
            for group in known:
                for leaf in leaves[name]:
                    chunk = replace(group[leaf], bytes=0)
                    if chunk not in seen:
                        seen[chunk] = _chunk_fault(chunk)
                    if (fault := seen[chunk]) is not None:
                        raise NoArrowType(f"{NOT_SUPPORTED}{fault}")
            fields.append(travelling(mapped_field(schema.field(name), _unwrapped)))
        except NoArrowType as error:
            unreadable[name] = str(error)
    return fields, unreadable


def _unwrapped(kind: pa.DataType) -> pa.DataType:
    """What the values are, however they are wrapped."""
    if isinstance(kind, pa.BaseExtensionType):
        return _unwrapped(kind.storage_type)
    wrapped = pa.types.is_dictionary(kind) or pa.types.is_run_end_encoded(kind)
    return _unwrapped(kind.value_type) if wrapped else kind


def _leaf_ranges(schema: pa.Schema) -> dict[str, range]:
    """Which of the file's leaf columns each top-level column is made of."""
    found, at = {}, 0
    for field in schema:
        count = _leaves(field.type)
        found[field.name] = range(at, at + count)
        at += count
    return found


def _leaves(kind: pa.DataType) -> int:
    kind = _unwrapped(kind)
    return sum(_leaves(kind.field(i).type) for i in range(kind.num_fields)) if kind.num_fields else 1


def _sizes(known: Sequence[Sequence[Chunk]], leaves: range, edges: Sequence[int], least: int) -> list[int]:
    """Decoded bytes of a column by row group; by the mean of those known where there are too many to look at all.

    What the file says is before decoding dictionaries, so it is what the type needs at least.
    """
    rows = [b - a for a, b in pairwise(edges)]
    said = [sum(group[i].bytes for i in leaves) for group in known]
    total, entries = sum(said), max(1, sum(rows[: len(said)]))
    said += [total * more // entries for more in rows[len(said) :]]
    return [max(size, count * least, count // 8) for size, count in zip(said, rows, strict=True)]
