"""Entries of text files, one a line. The file is read through once for its lines and types, then by pieces.

Types are the narrowest that carry every value of a column exactly, over the whole file. What is not there is null.
CSV and JSON lines are packages of their own; what an encoding makes of bytes is `encoding.py`.
"""

from __future__ import annotations

from abc import abstractmethod
from bisect import bisect_right
from collections.abc import Iterator, Sequence

import pyarrow as pa

from streams.core.names import shown
from streams.core.selections.entries import EventSelection
from streams.errors import permanent
from streams.events.checked_file import CheckedFile
from streams.events.cut_points import CutPoints
from streams.events.entries import Entries, chosen, without_tree
from streams.events.formats.text.encoding import TextFile

PIECE_BYTES = 1 << 20
LINE_BYTES_MAX = 64 << 20


class TextEntries(Entries):
    """Lines of a text file, found in pieces of whole lines."""

    kind = ""
    line_end = 0x0A

    def __init__(self, file: CheckedFile, selection: EventSelection) -> None:
        super().__init__(file, selection)
        without_tree(selection, file.path, f"a {self.kind} file")
        self._places: list[tuple[int, int]] = []
        self._edges = [0]
        with file.guarded(f"cannot read the {self.kind} file"):
            self._text = TextFile(file, selection.text.encoding)
            begin = self._begin()
            for start, stop, raw in self._pieces(begin):
                rows = self._seen(raw, start)
                if rows:
                    self._places.append((start, stop))
                    self._edges.append(self._edges[-1] + rows)
            fields, unreadable = self._typed()
            wanted = chosen(selection, [*(field.name for field in fields), *unreadable], file.path)
            unreadable = {name: why for name, why in unreadable.items() if name in wanted}
            fields = [field for field in fields if field.name in wanted]
            self._refuse(unreadable, fields)
            start, stop = self._range(self._edges[-1])
            borders = CutPoints(start, stop, [(self._edges, [b - a for a, b in self._places])])
        self._last: tuple[int, pa.RecordBatch] | None = None
        self._found(pa.schema(fields), unreadable, borders)

    @abstractmethod
    def _begin(self) -> int:
        """The byte where the first entry's line begins."""

    @abstractmethod
    def _whole_lines(self, raw: bytes, at: int, *, last: bool) -> int:
        """How many bytes of UTF-8 are whole lines, with `last` all; 0 where no line ends. They stand at byte `at`."""

    @abstractmethod
    def _seen(self, raw: bytes, at: int) -> int:
        """Take note of what types whole lines need; how many entries they are. They stand at byte `at`."""

    @abstractmethod
    def _typed(self) -> tuple[list[pa.Field], dict[str, str]]:
        """All columns once every line was seen, in the file's order; and why others cannot be read."""

    @abstractmethod
    def _parsed(self, raw: bytes) -> pa.Table:
        """Whole lines as a table of the columns in `schema`."""

    def _refuse(self, unreadable: dict[str, str], fields: Sequence[pa.Field]) -> None:
        """Raises StorageError, permanent, for unreadable columns, unless they may be left out and others remain."""
        if not unreadable or (self.selection.lenient and fields):
            return
        name, why = next(iter(unreadable.items()))
        more = f", and {len(unreadable) - 1:,} more columns cannot be read" if len(unreadable) > 1 else ""
        then = "write such values as text, name other columns" + (
            "" if self.selection.lenient else ", or end the selection with ? to skip it"
        )
        raise permanent(f"the column {shown(name)!r} {why}{more}", self.path, then)

    def _line(self, at: int) -> int:
        """The number, from 1, of the line that begins at a byte of the file."""
        return self._text.lines_before(at, self.line_end) + 1

    def _line_of(self, raw: bytes, at: int, place: int) -> int:
        """The number of the line that a place within a piece stands in; the piece begins at byte `at` of the file."""
        return self._line(at) + raw.count(self.line_end, 0, place)

    def _pieces(self, at: int) -> Iterator[tuple[int, int, bytes]]:
        """Whole lines, in order: from which byte to which, and what they say as UTF-8."""
        size, length = self._file.bytes, PIECE_BYTES
        while at < size:
            stop = min(size, at + length)
            raw = self._text.read(at, stop)
            end = self._whole_lines(raw, at, last=stop == size)
            if not end:
                if length >= LINE_BYTES_MAX:
                    raise permanent(f"line {self._line(at):,} is longer than {LINE_BYTES_MAX:,} bytes", self.path)
                length *= 2
                continue
            if end < len(raw):
                raw = raw[:end]
                stop = at + self._text.bytes_of(raw)
            self._text.check(raw, at)
            yield at, stop, raw
            at, length = stop, PIECE_BYTES

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
            table = self._parsed(self._text.read(*self._places[number]))
            columns = [_one(table.column(field.name), field.type) for field in self.schema]
            batch = pa.RecordBatch.from_arrays(columns, schema=self.schema)
            if batch.num_rows != self._edges[number + 1] - self._edges[number]:
                raise ValueError("it has other lines than before")
            self._last = number, batch
        return self._last[1]


def _one(column: pa.ChunkedArray, kind: pa.DataType) -> pa.Array:
    array = column.combine_chunks() if column.num_chunks != 1 else column.chunk(0)
    return array if array.type == kind else array.cast(kind)
