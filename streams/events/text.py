"""Entries of CSV and JSON lines, one a line. The file is read through once for its lines and types, then by pieces.

Types are the narrowest that carry every value of a column exactly: numbers as whole numbers or doubles, true and false,
text as it stands (dates stay text). What is not there is null. A quoted CSV value may hold line ends.
"""

from __future__ import annotations

import io
import json
import re
from abc import abstractmethod
from bisect import bisect_right
from collections.abc import Iterator, Sequence

import numpy as np
import pyarrow as pa
from pyarrow import csv
from pyarrow import json as json_lines

from streams.core.asked import EventSelection
from streams.core.names import shown
from streams.errors import StorageError
from streams.events.borders import Borders
from streams.events.counted import CountedFile
from streams.events.parquet import without_tree
from streams.events.reading import Entries, chosen, path_kind

PIECE_BYTES = 1 << 20
_EXACT_MAX = 1 << 53  # doubles beyond this skip whole numbers
_WHOLE = r"\s*[-+]?[0-9]+\s*"
LINE_BYTES_MAX = 64 << 20
_BLOCK_SLACK = 1 << 16


class TextEntries(Entries):
    """Lines of a text file, found in pieces of whole lines."""

    kind = ""

    def __init__(self, file: CountedFile, selection: EventSelection) -> None:
        super().__init__(file, selection)
        without_tree(selection, file.path, f"a {self.kind} file")
        self._places: list[tuple[int, int]] = []
        self._edges = [0]
        types: dict[str, pa.DataType] = {}
        with file.guarded(f"cannot read the {self.kind} file"):
            begin = self._begin()
            for start, stop in self._lines(begin):
                table = self._parsed(file.pread(start, stop), None)
                for field in self._kinds(table, start, stop):
                    types[field.name] = widened(types.get(field.name, pa.null()), field.type)
                self._places.append((start, stop))
                self._edges.append(self._edges[-1] + table.num_rows)
            names = self._names(list(types))
            types = {name: exact_type(types.get(name, pa.null())) for name in names}
            self._whole = pa.schema([pa.field(name, types[name]) for name in names])
            wanted = chosen(selection, names, file.path)
            start, stop = self._range(self._edges[-1])
            borders = Borders(start, stop, [(self._edges, [b - a for a, b in self._places])])
        self._last: tuple[int, pa.RecordBatch] | None = None
        self._found(pa.schema([self._whole.field(name) for name in wanted]), {}, self._edges[-1], borders)

    @abstractmethod
    def _begin(self) -> int:
        """Where the first entry's line begins."""

    @abstractmethod
    def _parsed(self, raw: bytes, schema: pa.Schema | None) -> pa.Table:
        """Whole lines as a table, of the given schema or with types as they look."""

    def _names(self, found: list[str]) -> list[str]:
        return found

    def _kinds(self, table: pa.Table, start: int, stop: int) -> Iterator[pa.Field]:
        yield from table.schema

    def _line_end(self, raw: bytes) -> int:
        """The place after the last line end that ends an entry, or 0."""
        return raw.rfind(b"\n") + 1

    def _lines(self, at: int) -> Iterator[tuple[int, int]]:
        size = self._file.bytes
        while at < size:
            stop = at + PIECE_BYTES
            while stop < size:
                raw = self._file.pread(at, stop)
                end = self._line_end(raw)
                if end:
                    stop = at + end
                    break
                if stop - at >= LINE_BYTES_MAX:
                    what = f"a line from byte {at:,} on is longer than {LINE_BYTES_MAX:,} bytes"
                    raise StorageError(what, self.path, failure_class="permanent")
                stop += stop - at
            stop = min(stop, size)
            yield at, stop
            at = stop

    def _load(self, start: int, stop: int) -> Sequence[pa.Array]:
        batches = []
        at = bisect_right(self._edges, start) - 1
        while self._edges[at] < stop:
            if self._edges[at + 1] > max(start, self._edges[at]):
                begin = max(0, start - self._edges[at])
                batches.append(self._piece(at).slice(begin, min(stop, self._edges[at + 1]) - self._edges[at] - begin))
            at += 1
        return [pa.concat_arrays([batch.column(name) for batch in batches]) for name in self.schema.names]

    def _piece(self, number: int) -> pa.RecordBatch:
        if self._last is None or self._last[0] != number:
            table = self._parsed(self._file.pread(*self._places[number]), self._whole)
            columns = [_one(table.column(name), self._whole.field(name).type) for name in self.schema.names]
            batch = pa.RecordBatch.from_arrays(columns, schema=self.schema)
            if batch.num_rows != self._edges[number + 1] - self._edges[number]:
                raise ValueError("it has other lines than before")
            self._last = number, batch
        return self._last[1]


class CsvEntries(TextEntries):
    """Comma-separated lines (tabs, where the name ends so), the first of which names the columns."""

    kind = "CSV"

    def _begin(self) -> int:
        self._separator = "\t" if path_kind(self.path) == "tsv" else ","
        stop = PIECE_BYTES
        head = self._file.pread(0, stop)
        self._header: list[str] = []
        if not head.strip():
            raise StorageError("no line names the columns", self.path, failure_class="data-bad")
        end = _first_line_end(head)
        if not end:
            end = len(head)
            if end < self._file.bytes:
                raise StorageError("its first line is longer than 1 MiB", self.path, failure_class="permanent")
        table = self._csv(head[:end], None, [])
        self._header = list(table.schema.names)
        if len(set(self._header)) < len(self._header):
            raise StorageError("two columns have one name", self.path, failure_class="permanent")
        return end

    def _names(self, found: list[str]) -> list[str]:
        return self._header

    def _parsed(self, raw: bytes, schema: pa.Schema | None) -> pa.Table:
        return self._csv(raw, schema, self._header)

    def _kinds(self, table: pa.Table, start: int, stop: int) -> Iterator[pa.Field]:
        """A whole number beyond 63 bits looks like a double and would lose digits: it stays whole, or text."""
        large = [field.name for field in table.schema if _large_and_whole(table.column(field.name))]
        if not large:
            yield from table.schema
            return
        texts = self._parsed(self._file.pread(start, stop), pa.schema([(name, pa.string()) for name in large]))
        for field in table.schema:
            kind = field.type
            if field.name in large and _true_of_all(_WHOLE, texts.column(field.name)):
                kind = pa.uint64() if _fits(texts.column(field.name), pa.uint64()) else pa.string()
            yield pa.field(field.name, kind)

    def _line_end(self, raw: bytes) -> int:
        """Line ends inside quotes end no entry: those after an odd number of quotes."""
        end = raw.rfind(b"\n")
        quotes = raw.count(b'"', 0, max(0, end))
        while end >= 0 and quotes % 2:
            before = raw.rfind(b"\n", 0, end)
            quotes -= raw.count(b'"', max(0, before), end)
            end = before
        return end + 1

    def _csv(self, raw: bytes, schema: pa.Schema | None, names: list[str]) -> pa.Table:
        kinds = {field.name: field.type for field in schema} if schema is not None else {}
        read = csv.ReadOptions(use_threads=False, block_size=len(raw) + _BLOCK_SLACK, column_names=names or None)
        return csv.read_csv(
            io.BytesIO(raw),
            read_options=read,
            parse_options=csv.ParseOptions(delimiter=self._separator, newlines_in_values=True),
            convert_options=csv.ConvertOptions(column_types=kinds, timestamp_parsers=[_NO_TIMES]),
        )


_NO_TIMES = "\x01%Y"
"""A way to write times that nothing is written in, so that no text is taken for one."""


class JsonLinesEntries(TextEntries):
    """One JSON object a line; its members are the columns."""

    kind = "JSON lines"

    def _begin(self) -> int:
        return 0

    def _kinds(self, table: pa.Table, start: int, stop: int) -> Iterator[pa.Field]:
        """Whole numbers beyond 63 bits look like doubles and would lose digits: they stay whole, or are refused."""
        large = [field.name for field in table.schema if _large_and_whole(table.column(field.name))]
        raw = self._file.pread(start, stop) if large else b""
        for field in table.schema:
            kind = field.type
            if field.name in large and _long_number(field.name).search(raw):
                kind = pa.uint64()
                try:
                    self._parsed(raw, pa.schema([(field.name, kind)]))
                except pa.ArrowInvalid as error:
                    what = f"the column {shown(field.name)!r} holds whole numbers that 64 bits do not hold"
                    raise StorageError(what, self.path, "write them as text", failure_class="permanent") from error
            yield pa.field(field.name, kind)

    def _parsed(self, raw: bytes, schema: pa.Schema | None) -> pa.Table:
        if not raw.strip():
            return pa.table({})
        return json_lines.read_json(
            io.BytesIO(raw),
            read_options=json_lines.ReadOptions(use_threads=False, block_size=len(raw) + _BLOCK_SLACK),
            parse_options=json_lines.ParseOptions(explicit_schema=schema),
        )


def _long_number(name: str) -> re.Pattern[bytes]:
    """A member of this name with a whole number of 19 digits or more."""
    return re.compile(re.escape(json.dumps(name, ensure_ascii=False).encode()) + rb"\s*:\s*-?[0-9]{19,}\s*[,}]")


def _first_line_end(raw: bytes) -> int:
    """The place after the first line end outside quotes, or 0."""
    start = quotes = 0
    while (end := raw.find(b"\n", start)) >= 0:
        quotes += raw.count(b'"', start, end)
        if quotes % 2 == 0:
            return end + 1
        start = end + 1
    return 0


def _large_and_whole(column: pa.ChunkedArray) -> bool:
    if not pa.types.is_floating(column.type):
        return False
    values = column.drop_null().to_numpy()
    values = values[np.isfinite(values)]
    return bool(len(values) and np.abs(values).max() >= _EXACT_MAX and (values == np.floor(values)).all())


def _true_of_all(regex: str, texts: pa.ChunkedArray) -> bool:
    return all(re.fullmatch(regex, text) for text in texts.drop_null().to_pylist())


def _fits(texts: pa.ChunkedArray, kind: pa.DataType) -> bool:
    try:
        texts.cast(kind)
    except pa.ArrowInvalid:
        return False
    return True


def _one(column: pa.ChunkedArray, kind: pa.DataType) -> pa.Array:
    array = column.combine_chunks() if column.num_chunks != 1 else column.chunk(0)
    return array if array.type == kind else array.cast(kind)


def widened(a: pa.DataType, b: pa.DataType) -> pa.DataType:
    """The narrowest type that carries the values of both."""
    if a == b or pa.types.is_null(b):
        return a
    if pa.types.is_null(a):
        return b
    numbers = {pa.int64(), pa.uint64(), pa.float64()}
    if {a, b} <= numbers:
        return pa.float64() if pa.float64() in (a, b) else pa.string()
    if pa.types.is_list(a) and pa.types.is_list(b):
        return pa.list_(widened(a.value_type, b.value_type))
    if pa.types.is_struct(a) and pa.types.is_struct(b):
        kinds = {field.name: field.type for field in a}
        for field in b:
            kinds[field.name] = widened(kinds.get(field.name, pa.null()), field.type)
        return pa.struct(list(kinds.items()))
    return pa.string()


def exact_type(kind: pa.DataType) -> pa.DataType:
    """Times as text, as they are written; a column of nothing is text too."""
    if pa.types.is_temporal(kind) or pa.types.is_null(kind):
        return pa.string()
    if pa.types.is_list(kind):
        return pa.list_(exact_type(kind.value_type))
    if pa.types.is_struct(kind):
        return pa.struct([(field.name, exact_type(field.type)) for field in kind])
    return kind
