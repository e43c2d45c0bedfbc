"""What column chunks are (sizes, codecs, encryption), read from a Parquet footer by its bytes alone.

pyarrow's own accessor ends the whole process on a damaged footer (an exception that its binding does not catch), and a
source must outlive its files. The footer is a Thrift struct in the compact protocol; what is not asked for is skipped.
"""

from __future__ import annotations

from dataclasses import dataclass

from streams.core.varint import varint
from streams.events.checked_file import CheckedFile

CHUNKS_MAX = 20_000
"""Column chunks looked at; files with more are judged by their first row groups."""

_TAIL_BYTES = 8
_DEPTH_MAX = 32
_ROW_GROUPS, _COLUMNS, _META, _CRYPTO = 4, 1, 3, 8
_ENCODINGS, _CODEC, _UNCOMPRESSED = 2, 4, 6
_I32, _I64, _LIST, _STRUCT = 5, 6, 9, 12


@dataclass(frozen=True, slots=True)
class Chunk:
    """A leaf column in a row group. `codec` and `encodings` are the format's numbers."""

    bytes: int
    codec: int = 0
    encodings: tuple[int, ...] = ()
    encrypted: bool = False


def chunks(file: CheckedFile) -> list[list[Chunk]]:
    """Of the first row groups: every leaf column. Raises ValueError for a damaged footer."""
    tail = file.pread(file.bytes - _TAIL_BYTES, file.bytes)
    length = int.from_bytes(tail[:4], "little")
    if tail[4:] != b"PAR1" or length > file.bytes - _TAIL_BYTES:
        raise ValueError("it does not end with a footer")
    footer = _Compact(file.pread(file.bytes - _TAIL_BYTES - length, file.bytes - _TAIL_BYTES))
    found: list[list[Chunk]] = []
    for number, kind in footer.fields():
        if number == _ROW_GROUPS and kind == _LIST:
            for _ in range(footer.list_of(_STRUCT)):
                found.append(_row_group(footer))
                if sum(map(len, found)) >= CHUNKS_MAX:
                    return found
            return found
        footer.skip(kind)
    return found


def _row_group(footer: _Compact) -> list[Chunk]:
    columns: list[Chunk] = []
    for number, kind in footer.fields():
        if number == _COLUMNS and kind == _LIST:
            columns = [_chunk(footer) for _ in range(footer.list_of(_STRUCT))]
        else:
            footer.skip(kind)
    return columns


def _chunk(footer: _Compact) -> Chunk:
    size = codec = 0
    encodings: tuple[int, ...] = ()
    encrypted = False
    for number, kind in footer.fields():
        if number != _META or kind != _STRUCT:
            encrypted |= number == _CRYPTO
            footer.skip(kind)
            continue
        for inner, inner_kind in footer.fields():
            if inner == _UNCOMPRESSED and inner_kind == _I64:
                size = footer.zigzag()
            elif inner == _CODEC and inner_kind == _I32:
                codec = footer.zigzag()
            elif inner == _ENCODINGS and inner_kind == _LIST:
                encodings = tuple(footer.zigzag() for _ in range(footer.list_of(_I32)))
            else:
                footer.skip(inner_kind)
    return Chunk(max(0, size), codec, encodings, encrypted)


class _Compact:
    """A cursor over Thrift's compact protocol. Every step moves on, so damage ends in ValueError, not in a loop."""

    def __init__(self, raw: bytes) -> None:
        self._raw = raw
        self._at = 0

    def fields(self) -> _Fields:
        return _Fields(self)

    def byte(self) -> int:
        if self._at >= len(self._raw):
            raise ValueError("its footer is cut short")
        self._at += 1
        return self._raw[self._at - 1]

    def varint(self) -> int:
        try:
            value, self._at = varint(self._raw, self._at)
        except IndexError:
            raise ValueError("its footer is cut short") from None
        return value

    def zigzag(self) -> int:
        value = self.varint()
        return (value >> 1) ^ -(value & 1)

    def list_of(self, wanted: int) -> int:
        """The length of a list, whose elements must be of this type."""
        size, kind = self._list()
        if size and kind != wanted:
            raise ValueError("its footer holds a list of another type")
        return size

    def skip(self, kind: int, depth: int = 0, element: bool = False) -> None:
        if depth > _DEPTH_MAX:
            raise ValueError("its footer is nested too deep")
        if kind in (1, 2):  # a field's truth is its type; an element's is a byte
            self._at += element
        elif kind == 3:
            self._at += 1
        elif kind in (4, 5, 6):
            self.varint()
        elif kind == 7:
            self._at += 8
        elif kind == 8:
            length = self.varint()
            self._at += length
        elif kind in (9, 10):
            size, inner = self._list()
            for _ in range(size):
                self.skip(inner, depth + 1, element=True)
        elif kind == 12:
            for _, inner in self.fields():
                self.skip(inner, depth + 1)
        else:
            raise ValueError("its footer holds a type that is none")

    def _list(self) -> tuple[int, int]:
        head = self.byte()
        size = head >> 4 if head >> 4 < 15 else self.varint()
        if size > len(self._raw) - self._at:
            raise ValueError("its footer holds a list longer than itself")
        return size, head & 15


class _Fields:
    """(number, type) of a struct's fields, up to its end. Between two, the first one's value must be taken."""

    def __init__(self, compact: _Compact) -> None:
        self._compact = compact
        self._number = 0

    def __iter__(self) -> _Fields:
        return self

    def __next__(self) -> tuple[int, int]:
        head = self._compact.byte()
        if not head:
            raise StopIteration
        self._number = self._number + (head >> 4) if head >> 4 else self._compact.zigzag()
        return self._number, head & 15
