"""From awkward's layouts to Arrow, bit by bit: every form has one Arrow type, known before any entry is read.

Lists and strings have 32-bit offsets (a window of entries is far below 2 GiB, and larger is refused); nothing is
nullable that the source cannot leave out. Not here: any file.
"""

from __future__ import annotations

from collections.abc import Callable

import awkward as ak
import numpy as np
import pyarrow as pa
from awkward import contents, forms

from streams.events.batches import schema_fault

OFFSET_MAX = (1 << 31) - 1
_STRINGS = {"string": pa.string, "bytestring": pa.binary}


class NoArrowType(Exception):
    """No Arrow type carries these values exactly; the text says which part."""


def arrow_field(name: str, form: forms.Form) -> pa.Field:
    """The Arrow field that carries a column of this form. Raises NoArrowType."""
    kind, nullable = _type(form)
    return travelling(pa.field(name, kind, nullable=nullable))


def travelling(field: pa.Field) -> pa.Field:
    """The field, if payloads can carry it. Raises NoArrowType."""
    if schema_fault(pa.schema([field])):
        raise NoArrowType(f"values of type {str(field.type)[:120]} do not travel as entries")
    return field


def arrow_array(array: ak.Array | np.ndarray, kind: pa.DataType) -> pa.Array:
    """The same values as `kind`. Raises ValueError where array and type do not agree."""
    layout = ak.to_layout(array)
    return _array(layout, kind)


def times_as_text(batch: pa.RecordBatch) -> pa.RecordBatch:
    """The same entries, dates and times below any list or record as text; those before or after Arrow's as numbers."""
    columns = []
    for column in batch.columns:
        kind = mapped(column.type, timeless)
        columns.append(column if kind == column.type else column.cast(kind))
    return pa.RecordBatch.from_arrays(columns, names=batch.schema.names)


def mapped(kind: pa.DataType, change: Callable[[pa.DataType], pa.DataType]) -> pa.DataType:
    """The type as `change` makes it, and every type inside likewise; fields keep their names, and what may be null."""
    kind = change(kind)
    if pa.types.is_struct(kind):
        return pa.struct([mapped_field(kind.field(i), change) for i in range(kind.num_fields)])
    if pa.types.is_map(kind):
        return pa.map_(mapped_field(kind.key_field, change), mapped_field(kind.item_field, change), kind.keys_sorted)
    if pa.types.is_fixed_size_list(kind):
        return pa.list_(mapped_field(kind.value_field, change), kind.list_size)
    if pa.types.is_large_list(kind):
        return pa.large_list(mapped_field(kind.value_field, change))
    return pa.list_(mapped_field(kind.value_field, change)) if pa.types.is_list(kind) else kind


def mapped_field(field: pa.Field, change: Callable[[pa.DataType], pa.DataType]) -> pa.Field:
    return pa.field(field.name, mapped(field.type, change), nullable=field.nullable)


def timeless(kind: pa.DataType) -> pa.DataType:
    """Text for dates and times."""
    return pa.string() if pa.types.is_temporal(kind) else kind


def _type(form: forms.Form) -> tuple[pa.DataType, bool]:
    if form.is_option:
        inner = form.content
        return _type(inner)[0], True
    if form.is_union:
        raise NoArrowType("a union of types")
    if isinstance(form, forms.IndexedForm):
        return _type(form.content)
    if isinstance(form, forms.EmptyForm):
        raise NoArrowType("a type that is not known")
    if form.is_record:
        names = [str(i) for i in range(len(form.contents))] if form.is_tuple else form.fields
        if not names:
            raise NoArrowType("a record without fields")
        if len(set(names)) < len(names):
            raise NoArrowType("two fields of a record with one name")
        return pa.struct([_inner(name, f) for name, f in zip(names, form.contents, strict=True)]), False
    if form.parameter("__array__") in _STRINGS:
        return _STRINGS[form.parameter("__array__")](), False
    if isinstance(form, forms.NumpyForm):
        kind = _primitive(form.primitive)
        for length in reversed(form.inner_shape):
            kind = _fixed(pa.field("item", kind, nullable=False), length)
        return kind, False
    if isinstance(form, forms.RegularForm):
        return _fixed(_inner("item", form.content), form.size), False
    if form.is_list:
        return pa.list_(_inner("item", form.content)), False
    raise NoArrowType(f"a {type(form).__name__.removesuffix('Form')} of values")


def _inner(name: str, form: forms.Form) -> pa.Field:
    kind, nullable = _type(form)
    return pa.field(name, kind, nullable=nullable)


def _fixed(item: pa.Field, length: int) -> pa.DataType:
    if not length:
        raise NoArrowType("arrays of no values")
    return pa.list_(item, length)


def _primitive(name: str) -> pa.DataType:
    try:
        kind = pa.from_numpy_dtype(np.dtype(name))
    except (pa.ArrowNotImplementedError, TypeError) as error:
        raise NoArrowType(f"values of type {name}") from error
    if np.dtype(name).kind not in "biuf":
        raise NoArrowType(f"values of type {name}")
    return kind


def _array(layout: contents.Content, kind: pa.DataType) -> pa.Array:
    if layout.is_option:
        return _optional(layout, kind)
    if isinstance(layout, contents.IndexedArray):
        return _array(layout.project(), kind)
    if isinstance(layout, contents.EmptyArray):
        return pa.nulls(0, kind)
    if isinstance(layout, contents.NumpyArray) and not layout.parameter("__array__"):
        return _numbers(np.asarray(layout.data), kind)
    if pa.types.is_struct(kind):
        return _struct(layout, kind)
    if pa.types.is_fixed_size_list(kind):
        flat = layout.content[: len(layout) * layout.size]
        if layout.size != kind.list_size:
            raise ValueError(f"arrays of {layout.size} values where {kind.list_size} are")
        return pa.FixedSizeListArray.from_arrays(_array(flat, kind.value_type), type=kind)
    return _list(layout, kind)


def _numbers(values: np.ndarray, kind: pa.DataType) -> pa.Array:
    if pa.types.is_fixed_size_list(kind):
        flat = values.reshape(values.shape[0] * values.shape[1], *values.shape[2:])
        return pa.FixedSizeListArray.from_arrays(_numbers(flat, kind.value_type), type=kind)
    values = np.ascontiguousarray(values, dtype=values.dtype.newbyteorder("="))
    if values.ndim != 1 or pa.from_numpy_dtype(values.dtype) != kind:
        raise ValueError(f"values of {values.dtype} where {kind} is expected")
    whole = np.packbits(values, bitorder="little") if kind == pa.bool_() else values
    return pa.Array.from_buffers(kind, len(values), [None, pa.py_buffer(whole)], null_count=0)


def _struct(layout: contents.RecordArray, kind: pa.StructType) -> pa.Array:
    if len(layout.contents) != kind.num_fields:
        raise ValueError(f"records of {len(layout.contents)} fields where {kind.num_fields} are")
    children = [_array(layout.content(i)[: len(layout)], kind.field(i).type) for i in range(kind.num_fields)]
    if any(len(child) != len(layout) for child in children):
        raise ValueError("records with fields that end early")
    return pa.Array.from_buffers(kind, len(layout), [None], null_count=0, children=children)


def _list(layout: contents.Content, kind: pa.DataType) -> pa.Array:
    layout = layout.to_ListOffsetArray64(True)
    offsets = np.asarray(layout.offsets.data)
    if len(offsets) != len(layout) + 1 or offsets[0] != 0 or (offsets[1:] < offsets[:-1]).any():
        raise ValueError("lists that overlap or end before they begin")
    if offsets[-1] > OFFSET_MAX:
        raise ValueError(f"{offsets[-1]:,} values in one column of one window of entries")
    narrow = pa.py_buffer(np.ascontiguousarray(offsets, dtype=np.int32))
    content = layout.content[: offsets[-1]]
    if pa.types.is_string(kind) or pa.types.is_binary(kind):
        characters = np.ascontiguousarray(np.asarray(content.data))
        _reaches(len(characters), int(offsets[-1]))
        return pa.Array.from_buffers(kind, len(layout), [None, narrow, pa.py_buffer(characters)], null_count=0)
    values = _array(content, kind.value_type)
    _reaches(len(values), int(offsets[-1]))
    return pa.Array.from_buffers(kind, len(layout), [None, narrow], null_count=0, children=[values])


def _reaches(have: int, need: int) -> None:
    if have < need:
        raise ValueError(f"lists of {need:,} values where {have:,} are")


def _optional(layout: contents.Content, kind: pa.DataType) -> pa.Array:
    """Values, some of them missing: what is there is placed at its index, the rest is null."""
    indexed = layout.to_IndexedOptionArray64()
    index = np.asarray(indexed.index.data)
    present = _array(indexed.content, kind)
    picks = pa.array(np.where(index < 0, 0, index), mask=index < 0)
    return present.take(picks)
