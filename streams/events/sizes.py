"""How large entries are, as numbers that add up: the size of a range is the sum of the sizes of any cuts of it.

Arrow's own sizes do not add up (bitmaps end in whole bytes, offsets are one more than values, buffers are padded), and
whether a bitmap is there at all depends on who made the batch. Here only values count. Pure; no file.
"""

from __future__ import annotations

import struct

import pyarrow as pa

_OFFSET_BYTES = 4
_GUESSED_VALUES = 4
_LETTERS = 8


class Sizes:
    """Of entries of one schema."""

    def __init__(self, schema: pa.Schema) -> None:
        self._fixed_bytes = sum(_fixed_bytes(field.type) for field in schema)
        varying = [(at, field.type) for at, field in enumerate(schema) if _varies(field.type)]
        self._simple = [(at, *_simple(kind)) for at, kind in varying if _is_simple(kind)]
        self._nested = [at for at, kind in varying if not _is_simple(kind)]
        self.guessed_bytes = max(1, sum(_fixed_bytes(field.type, _GUESSED_VALUES) for field in schema))
        """Of an entry, where a list holds four values and a word sixteen letters."""

    def of(self, batch: pa.RecordBatch, start: int, stop: int) -> int:
        """Bytes of the entries `[start, stop)` of a batch."""
        size = (stop - start) * self._fixed_bytes
        if start == stop:
            return 0
        for at, offset, value_bytes in self._simple:  # a thousand of them are usual
            array = batch.column(at)
            buffer, first = array.buffers()[1], array.offset
            low = offset.unpack_from(buffer, (first + start) * offset.size)[0]
            size += (offset.unpack_from(buffer, (first + stop) * offset.size)[0] - low) * value_bytes
        for at in self._nested:
            size += _varying_bytes(batch.column(at), start, stop)
        return size


def least_bytes(kind: pa.DataType) -> int:
    """What a value takes up at least once decoded; a word is taken as eight letters."""
    words = kind.num_fields == 0 and _has_offsets(kind)
    return _fixed_bytes(kind) + _LETTERS * words


def _is_simple(kind: pa.DataType) -> bool:
    """Words, maps, and lists of what does not vary."""
    if not _has_offsets(kind):
        return False
    return pa.types.is_map(kind) or kind.num_fields == 0 or not _varies(kind.value_type)


def _simple(kind: pa.DataType) -> tuple[struct.Struct, int]:
    """How an offset is stored, and the bytes of a value."""
    types = pa.types
    wide = types.is_large_list(kind) or types.is_large_string(kind) or types.is_large_binary(kind)
    if types.is_map(kind):  # what its words take up is left out: nothing needs it exactly
        value_bytes = _fixed_bytes(kind.key_type) + _fixed_bytes(kind.item_type)
    else:
        value_bytes = _fixed_bytes(kind.value_type) if kind.num_fields else 1
    return struct.Struct("<q" if wide else "<i"), value_bytes


def _fixed_bytes(kind: pa.DataType, values: int = 0) -> int:
    """What every value takes up at least; or one with so many `values` in a list, and four letters for each in text."""
    types = pa.types
    if types.is_struct(kind):
        return sum(_fixed_bytes(kind.field(at).type, values) for at in range(kind.num_fields))
    if types.is_fixed_size_list(kind):
        return int(kind.list_size * _fixed_bytes(kind.value_type, values))
    if not _has_offsets(kind):
        return 0 if types.is_null(kind) else (int(kind.bit_width) + 7) // 8
    if not values or not kind.num_fields:
        return _OFFSET_BYTES + 4 * values
    inner = (kind.key_type, kind.item_type) if types.is_map(kind) else (kind.value_type,)
    return _OFFSET_BYTES + values * sum(_fixed_bytes(one, values) for one in inner)


def _varying_bytes(array: pa.Array, start: int, stop: int) -> int:
    """What the values `[start, stop)` take up beyond that."""
    kind, types = array.type, pa.types
    if types.is_struct(kind):
        inner = (array.field(at) for at in range(kind.num_fields) if _varies(kind.field(at).type))
        return sum(_varying_bytes(child, start, stop) for child in inner)
    if types.is_fixed_size_list(kind):
        length, first = kind.list_size, array.offset
        return _varying_bytes(array.values, (first + start) * length, (first + stop) * length)
    if start == stop:
        return 0
    offset, value_bytes = _simple(kind)
    (first,) = offset.unpack_from(array.buffers()[1], (array.offset + start) * offset.size)
    (last,) = offset.unpack_from(array.buffers()[1], (array.offset + stop) * offset.size)
    deeper = not _is_simple(kind)
    return int(last - first) * value_bytes + (_varying_bytes(array.values, first, last) if deeper else 0)


def _varies(kind: pa.DataType) -> bool:
    if pa.types.is_struct(kind):
        return any(_varies(kind.field(at).type) for at in range(kind.num_fields))
    if pa.types.is_fixed_size_list(kind):
        return _varies(kind.value_type)
    return _has_offsets(kind)


def _has_offsets(kind: pa.DataType) -> bool:
    return kind.id in _OFFSETS


_OFFSETS = frozenset(
    kind.id
    for kind in (
        *(pa.string(), pa.large_string(), pa.binary(), pa.large_binary()),
        *(pa.list_(pa.int8()), pa.large_list(pa.int8()), pa.map_(pa.int8(), pa.int8())),
    )
)
