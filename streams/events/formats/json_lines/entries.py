"""Entries of JSON lines: one object a line, its members are the columns. What is not there, and null, is missing.

Values keep their kind: a column whose values no type holds exactly and together (numbers and text, whole numbers beyond
64 bits, decimals of more digits than a double keeps) cannot be read, and is told by name; others can. Times stay text.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

import numpy as np
import pyarrow as pa
from pyarrow import json as json_lines

from streams.errors import data_bad, permanent
from streams.events.columns import NoArrowType, mapped, timeless, travelling
from streams.events.formats.json_lines.numbers import suspicious
from streams.events.formats.json_lines.values import MIXED, NO_DOUBLES, TOO_WIDE, ColumnFault, LineFault, Needs, members
from streams.events.formats.text.entries import TextEntries

DEPTH_MAX = 48
"""Of objects and lists in each other: Arrow's limit for what travels is 64, and its parser dies of very deep ones."""
_BLOCK_SLACK = 1 << 16
_AT_ONCE = 1 << 16
_LINE = re.compile(rb"[^\r\n]+")
_IN_TEXT = re.compile(rb'"(?:[^"\\]|\\.)*"')


class JsonLinesEntries(TextEntries):
    """Lines of a JSON lines file."""

    kind = "JSON lines"

    def _begin(self) -> int:
        self._kinds: dict[str, pa.DataType] = {}
        self._faults: dict[str, str] = {}
        self._no_doubles: set[tuple[str, ...]] = set()
        self._signs_unknown: set[str] = set()
        return self._text.begin

    def _whole_lines(self, raw: bytes, at: int, *, last: bool) -> int:
        return len(raw) if last else (raw.rfind(b"\n") if b"\n" in raw else raw.rfind(b"\r")) + 1

    def _line_of(self, raw: bytes, at: int, place: int) -> int:
        self.line_end = ord("\n") if b"\n" in raw else ord("\r")
        return super()._line_of(raw, at, place)

    def _seen(self, raw: bytes, at: int) -> int:
        if raw.isspace():
            return 0
        self._check_depth(raw, at)
        try:
            table = _read(raw, None)
        except pa.ArrowInvalid:
            count = self._looked_at(raw, at)
            if not self._faults:
                raise
            return count
        count = _count(raw, ord("\n")) + (not raw.endswith(b"\n"))
        if count != table.num_rows or b"\r" in raw:
            count = sum(1 for _ in _lines(raw))
        if count != table.num_rows:
            self._looked_at(raw, at)
            what = f"{count:,} lines from line {self._line(at):,} on hold {table.num_rows:,} objects"
            raise data_bad(what, self.path, "write one a line")
        doubtful, places = suspicious(raw, table)
        if doubtful:
            return self._looked_at(raw, at)
        self._no_doubles |= places
        for found in table.schema:
            self._merge(found.name, mapped(found.type, timeless))  # as they are written
        return count

    def _typed(self) -> tuple[list[pa.Field], dict[str, str]]:
        fields = []
        for name, kind in self._kinds.items():
            if name in self._faults:
                continue
            if any(place[0] == name and _at(kind, place[1:]) == pa.float64() for place in self._no_doubles):
                self._faults[name] = NO_DOUBLES
                continue
            if name in self._signs_unknown and not self._all_fit(name, kind):
                self._faults[name] = TOO_WIDE
                continue
            try:
                fields.append(travelling(pa.field(name, mapped(kind, _text_for_nothing))))
            except NoArrowType as error:
                self._faults[name] = f"cannot be read: {error}"
        return fields, self._faults

    def _parsed(self, raw: bytes) -> pa.Table:
        return _read(raw, self.schema)

    def _looked_at(self, raw: bytes, at: int) -> int:
        """Line by line, what the columns need; how many entries they are. Raises StorageError for a line of none."""
        needs: dict[str, Needs] = {}
        count = 0
        for place, line in _lines(raw):
            try:
                found = members(line.decode())
            except LineFault as fault:
                what = f"line {self._line_of(raw, at, place):,} {fault}"
                if fault.broken:
                    then = "fetch it again from its source, or check the file there"
                    raise data_bad(what, self.path, then) from None
                raise permanent(what, self.path, "write it otherwise") from None
            for name, value in found.items():
                needs.setdefault(name, Needs()).see(value)
            count += 1
        for name, needed in needs.items():
            try:
                self._merge(name, needed.type)
            except ColumnFault as fault:
                self._fault(name, str(fault))
            self._no_doubles |= {(name, *place) for place in _inexact(needed)}
        return count

    def _merge(self, name: str, kind: pa.DataType) -> None:
        before = self._kinds.get(name)
        if before == kind:
            return
        try:
            self._kinds[name] = kind if before is None else self._both(name, before, kind)
        except ColumnFault as fault:
            self._fault(name, str(fault))

    def _fault(self, name: str, why: str) -> None:
        self._kinds.setdefault(name, pa.null())
        self._faults.setdefault(name, why)

    def _both(self, name: str, a: pa.DataType, b: pa.DataType) -> pa.DataType:
        """The type that carries the values of both. Raises ColumnFault."""
        if a == b or pa.types.is_null(b):
            return a
        if pa.types.is_null(a):
            return b
        if {a, b} == {pa.int64(), pa.uint64()}:
            self._signs_unknown.add(name)
            return pa.uint64()
        if {a, b} == {pa.int64(), pa.float64()}:
            return pa.float64()
        if pa.types.is_list(a) and pa.types.is_list(b):
            return pa.list_(self._both(name, a.value_type, b.value_type))
        if pa.types.is_struct(a) and pa.types.is_struct(b):
            kinds = {field.name: field.type for field in a}
            for field in b:
                kinds[field.name] = self._both(name, kinds.get(field.name, pa.null()), field.type)
            return pa.struct(list(kinds.items()))
        if {a, b} == {pa.uint64(), pa.float64()}:
            raise ColumnFault(NO_DOUBLES)
        raise ColumnFault(MIXED)

    def _all_fit(self, name: str, kind: pa.DataType) -> bool:
        """Whether a column can be read so wherever it is: in some pieces its whole numbers may be negative."""
        schema = pa.schema([pa.field(name, mapped(kind, _text_for_nothing))])
        for place in self._places:
            try:
                _read(self._text.read(*place), schema)
            except pa.ArrowInvalid:
                return False
        return True

    def _check_depth(self, raw: bytes, at: int) -> None:
        """Raises StorageError, permanent, for a line with more brackets in each other than can be read."""
        if _depth(raw) <= DEPTH_MAX:
            return
        for place, line in _lines(raw):
            brackets = np.frombuffer(_IN_TEXT.sub(b"", line), np.uint8) | np.uint8(0x20)
            steps = (brackets == ord("{")).astype(np.int32) - (brackets == ord("}"))
            if np.cumsum(steps).max(initial=0) > DEPTH_MAX:
                line_number = self._line_of(raw, at, place)
                what = f"line {line_number:,} holds more than {DEPTH_MAX} lists and objects in each other"
                raise permanent(what, self.path)


def _count(raw: bytes, character: int) -> int:
    characters = np.frombuffer(raw, np.uint8)
    parts = range(0, len(raw), _AT_ONCE)
    return sum(int(np.count_nonzero(characters[at : at + _AT_ONCE] == character)) for at in parts)


def _depth(raw: bytes) -> int:
    """At most so many brackets are open at once, where text is taken for brackets too."""
    characters = np.frombuffer(raw, np.uint8)
    depth = most = 0
    for at in range(0, len(raw), _AT_ONCE):  # memory that is new costs more than what is done with it
        some = characters[at : at + _AT_ONCE] | np.uint8(0x20)  # `[` and `{` become the same
        brackets = some[np.flatnonzero((some | np.uint8(6)) == ord("\x7f"))]
        depths = np.cumsum(np.int8(ord("|")) - brackets.view(np.int8), dtype=np.int64)
        if len(depths):
            most = max(most, depth + int(depths.max()))
            depth += int(depths[-1])
    return most


def _read(raw: bytes, schema: pa.Schema | None) -> pa.Table:
    return json_lines.read_json(
        pa.BufferReader(raw),
        read_options=json_lines.ReadOptions(use_threads=False, block_size=len(raw) + _BLOCK_SLACK),
        parse_options=json_lines.ParseOptions(
            explicit_schema=schema, unexpected_field_behavior="infer" if schema is None else "ignore"
        ),
    )


def _lines(raw: bytes) -> Iterator[tuple[int, bytes]]:
    """Lines that are not blank, and where they begin."""
    for found in _LINE.finditer(raw):
        if found[0].strip():
            yield found.start(), found[0]


def _inexact(needs: Needs) -> Iterator[tuple[str, ...]]:
    """Places below with whole numbers that no double is."""
    if needs.inexact:
        yield ()
    if needs.items is not None:
        yield from (("[]", *place) for place in _inexact(needs.items))
    for name, member in needs.members.items():
        yield from ((name, *place) for place in _inexact(member))


def _at(kind: pa.DataType, place: tuple[str, ...]) -> pa.DataType | None:
    """The type at a place below; None if there is none."""
    for name in place:
        if pa.types.is_list(kind):
            kind = kind.value_type
        elif pa.types.is_struct(kind) and kind.get_field_index(name) >= 0:
            kind = kind.field(name).type
        else:
            return None
    return kind


def _text_for_nothing(kind: pa.DataType) -> pa.DataType:
    """A column of nothing is text."""
    return pa.string() if pa.types.is_null(kind) else kind
