"""Entries of CSV: rows of values, the first of which names the columns. Tabs separate them where the name ends in tsv.

An empty value is missing, unless it is quoted: then it is the empty text. Nothing else is: `NA` and `null` are text.
Where rows end is `lines.py`, types are `columns.py`; what both find is compared with what the parser yields.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import pyarrow as pa
from pyarrow import csv

from streams.core.names import shown
from streams.errors import StorageError, data_bad, permanent
from streams.events.entries import chosen, path_kind
from streams.events.formats.csv.columns import CsvColumn
from streams.events.formats.csv.lines import CsvFault, CsvLines, Rows
from streams.events.formats.text.encoding import MARK
from streams.events.formats.text.entries import LINE_BYTES_MAX, PIECE_BYTES, TextEntries

_BLOCK_SLACK = 1 << 16
_RAGGED = re.compile(r"Row #(\d+): Expected (\d+) columns, got (\d+)")
_OTHER_SEPARATORS = (";", "\t", "|", ",")
_NO_TIMES = "\x01%Y"
"""A way to write times that nothing is written in, so that no text is taken for one."""


class CsvEntries(TextEntries):
    """Rows of a CSV file."""

    kind = "CSV"

    def _begin(self) -> int:
        given = self.selection.text
        self._separator = given.separator or ("\t" if path_kind(self.path) == "tsv" else ",")
        if given.quote == self._separator:
            raise permanent(f"{given.quote!r} is its separator and its quote", self.path)
        self._quote = given.quote
        self._lines = CsvLines(self._separator, self._quote)
        begin, head = self._head()
        names = list(self._rows_of(head, None, (), ()).schema.names)
        if len(set(names)) < len(names):
            twice = next(name for at, name in enumerate(names) if name in names[:at])
            raise permanent(f"two columns have one name, {shown(twice)!r}", self.path)
        self._names = names
        self._lines.blank_counts = len(names) == 1
        if len(names) == 1:
            self.notes += _other_separator(names[0], self._separator)
        wanted = chosen(self.selection, names, self.path)
        self._columns = {name: CsvColumn() for name in names if name in wanted}
        self._apart: list[str] = []
        return begin

    def _head(self) -> tuple[int, bytes]:
        """The byte behind the row of names, and that row."""
        at, size, length = self._text.begin, self._file.bytes, PIECE_BYTES
        raw = self._text.read(at, min(size, at + length))
        blank = len(raw) - len(raw.lstrip(b"\r\n"))
        if not raw.strip():
            raise data_bad("no line names the columns", self.path)
        at += self._text.bytes_of(raw[:blank])
        raw = raw[blank:]
        last = at + self._text.bytes_of(raw) == size
        try:
            end = self._lines.first_row(raw, last=last)
        except CsvFault as fault:
            raise self._worded(fault, raw, at) from None
        self.line_end = self._lines.line_end
        if not end and last:
            raise self._open(at, raw, raw.find(self._quote.encode()))
        if not end:
            raise permanent("its first line is longer than 1 MiB", self.path)
        self._text.check(raw[:end], at)
        return at + self._text.bytes_of(raw[:end]), raw[:end]

    def _whole_lines(self, raw: bytes, at: int, *, last: bool) -> int:
        try:
            self._rows = self._lines.rows(raw, last=last)
        except CsvFault as fault:
            raise self._worded(fault, raw, at) from None
        open_quote = self._rows.open_quote
        if open_quote >= 0 and (last or (not self._rows.stop and len(raw) >= LINE_BYTES_MAX)):
            raise self._open(at, raw, open_quote)
        return self._rows.stop

    def _seen(self, raw: bytes, at: int) -> int:
        open_still = [name for name, column in self._columns.items() if not column.is_text]
        # One column at least is read, so that rows are counted by the parser too.
        names = open_still or self._names[:1]
        table = self._table(raw, {name: pa.string() for name in names}, names, at, self._rows)
        for name in open_still:
            for texts in table.column(name).chunks:
                self._columns[name].see(texts)
        return self._rows.count

    def _typed(self) -> tuple[list[pa.Field], dict[str, str]]:
        fields = [pa.field(name, column.type) for name, column in self._columns.items()]
        # Missing values of these are told by empty quotes, which elsewhere are the empty text.
        self._apart = [f.name for f in fields if self._columns[f.name].quoted_empty and not pa.types.is_string(f.type)]
        return fields, {}

    def _parsed(self, raw: bytes) -> pa.Table:
        kinds = {field.name: field.type for field in self.schema}
        names = [name for name in kinds if name not in self._apart]
        if not self._apart:
            return self._rows_of(raw, kinds, names, self._names)
        found = self._rows_of(raw, kinds, self._apart, self._names, quoted_missing=True)
        if names:
            for name, column in zip(names, self._rows_of(raw, kinds, names, self._names).columns, strict=True):
                found = found.append_column(name, column)
        return found

    def _table(self, raw: bytes, kinds: dict[str, pa.DataType], names: Sequence[str], at: int, rows: Rows) -> pa.Table:
        """Parsed rows, each with a value for every column, as many as there are lines of them."""
        try:
            table = self._rows_of(raw, kinds, names, self._names)
        except pa.ArrowInvalid as error:
            found = _RAGGED.search(str(error))
            if found is None or int(found[1]) > rows.count:
                raise
            row = int(found[1]) - 1
            line = self._line(at) + row if rows.begins is None else self._line_of(raw, at, int(rows.begins[row]))
            count, expected = int(found[3]), int(found[2])
            what = f"line {line:,} has {count:,} value{'s' * (count != 1)}, the first line names {expected:,}"
            then = "check the file there, or say its separator and quote"
            raise data_bad(what, self.path, then) from error
        if table.num_rows != rows.count:
            first, stop = self._line(at), self._line_of(raw, at, len(raw) - 1)
            what = f"{rows.count:,} rows end in lines {first:,} to {stop:,}, and {table.num_rows:,} are read there"
            then = "end its lines in one way, and quote values that hold line ends"
            raise permanent(what, self.path, then)
        return table

    def _rows_of(
        self,
        raw: bytes,
        kinds: dict[str, pa.DataType] | None,
        columns: Sequence[str],
        names: Sequence[str],
        *,
        quoted_missing: bool = False,
    ) -> pa.Table:
        if raw.startswith(MARK):
            raw = MARK + raw  # the parser takes one away wherever it begins
        quoted = bool(self._quote) and self._quote.encode() in raw
        read = csv.ReadOptions(use_threads=False, block_size=len(raw) + _BLOCK_SLACK, column_names=list(names) or None)
        parse = csv.ParseOptions(
            delimiter=self._separator,
            quote_char=self._quote if quoted else False,
            newlines_in_values=quoted,
            ignore_empty_lines=not (names and self._lines.blank_counts),
        )
        convert = csv.ConvertOptions(
            column_types=kinds,
            include_columns=list(columns),
            check_utf8=False,
            null_values=[""],
            strings_can_be_null=True,
            quoted_strings_can_be_null=quoted_missing,
            timestamp_parsers=[_NO_TIMES],
        )
        return csv.read_csv(pa.BufferReader(raw), read_options=read, parse_options=parse, convert_options=convert)

    def _worded(self, fault: CsvFault, raw: bytes, at: int) -> StorageError:
        return permanent(f"in line {self._line_of(raw, at, fault.at):,} {fault.what}", self.path, fault.then)

    def _open(self, at: int, raw: bytes, place: int) -> StorageError:
        line = self._line_of(raw, at, place)
        what = f"in line {line:,} a quote opens a value that nothing closes"
        what += f" within {LINE_BYTES_MAX:,} bytes" if len(raw) >= LINE_BYTES_MAX else ""
        then = "check the file there, or say that nothing is quoted: quote=none"
        return data_bad(what, self.path, then)


def _other_separator(name: str, separator: str) -> list[str]:
    """A word where the one column's name looks as if it were several."""
    held = next((other for other in _OTHER_SEPARATORS if other != separator and other in name), "")
    if not held:
        return []
    spelled = "tab" if held == "\t" else f"'{held}'"
    return [
        f"it has one column only, whose name holds {spelled}: is that its separator? say so with --separator {spelled}"
    ]
