"""Avro's types as Arrow's, and the values of one into the other. Pure: no file is read here.

Values come from fastavro without logical types: numbers, bytes, text, lists and dicts.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import pyarrow as pa

from streams.events.columns import NoArrowType, travelling

_PRIMITIVES: dict[str, pa.DataType] = {
    "boolean": pa.bool_(),
    "int": pa.int32(),
    "long": pa.int64(),
    "float": pa.float32(),
    "double": pa.float64(),
    "string": pa.string(),
    "bytes": pa.binary(),
    "null": pa.null(),
}
_LOGICAL: dict[tuple[str, str], pa.DataType] = {
    ("int", "date"): pa.date32(),
    ("int", "time-millis"): pa.time32("ms"),
    ("long", "time-micros"): pa.time64("us"),
    ("long", "timestamp-millis"): pa.timestamp("ms", tz="UTC"),
    ("long", "timestamp-micros"): pa.timestamp("us", tz="UTC"),
    ("long", "timestamp-nanos"): pa.timestamp("ns", tz="UTC"),
    ("long", "local-timestamp-millis"): pa.timestamp("ms"),
    ("long", "local-timestamp-micros"): pa.timestamp("us"),
    ("long", "local-timestamp-nanos"): pa.timestamp("ns"),
}
_DECIMAL128_DIGITS = 38
_DECIMAL256_DIGITS = 76

_NOT_STORED = ("logicalType", "precision", "scale", "doc")

Convert = Callable[[Any], Any]


@dataclass(frozen=True, slots=True)
class AvroColumn:
    field: pa.Field
    convert: Convert | None

    def array(self, values: list[Any]) -> pa.Array:
        if self.convert is not None:
            values = [None if value is None else self.convert(value) for value in values]
        return pa.array(values, type=self.field.type)


PARTS_MAX = 10_000
"""Of one column: a type that is used twice in one that is used twice doubles with every step."""

_NAMED = ("record", "error", "enum", "fixed")


def column_of(name: str, schema: Any, named: Mapping[str, Any]) -> AvroColumn:
    """The column for a parsed Avro type; `named`: the whole schema's `named_types`. Raises NoArrowType."""
    field, convert = _Types(named).field(name, schema, ())
    return AvroColumn(travelling(field), convert)


def named_types(schema: Any) -> dict[str, Any]:
    """Every type that a parsed schema defines, by full name: it may be used again anywhere behind its definition."""
    found: dict[str, Any] = {}
    todo = [schema]
    while todo:
        one = todo.pop()
        if isinstance(one, list):
            todo += one
        elif isinstance(one, Mapping):
            if one.get("type") in _NAMED and "name" in one:
                found[one["name"]] = one
            todo += [one[inside] for inside in ("type", "items", "values", "fields") if inside in one]
    return found


def self_contained(schema: Any, named: Mapping[str, Any], defined: set[str]) -> Any:
    """The type with what it names: each definition stands where the name is used first. `defined` are those before."""
    if isinstance(schema, list):
        return [self_contained(one, named, defined) for one in schema]
    if isinstance(schema, str):
        if schema not in named or schema in defined:
            return schema
        return self_contained(named[schema], named, defined)
    if schema.get("type") in _NAMED:
        if schema["name"] in defined:
            return schema["name"]
        defined.add(schema["name"])
    inside = {key: self_contained(schema[key], named, defined) for key in ("type", "items", "values") if key in schema}
    if "fields" in schema:
        inside["fields"] = [{**f, "type": self_contained(f["type"], named, defined)} for f in schema["fields"]]
    return {**schema, **inside}


def without_logical(schema: Any) -> Any:
    """The schema without logical types, and without what fastavro noted in it."""
    if isinstance(schema, list):
        return [without_logical(one) for one in schema]
    if isinstance(schema, Mapping):
        kept = {k: v for k, v in schema.items() if k not in _NOT_STORED and k[:2] != "__"}
        return {k: without_logical(v) if k in ("type", "items", "values", "fields") else v for k, v in kept.items()}
    return schema


class _Types:
    """Arrow's types of one column. A named type is written out wherever it is used."""

    def __init__(self, named: Mapping[str, Any]) -> None:
        self._named = named
        self._parts = 0

    def field(self, name: str, schema: Any, above: tuple[str, ...]) -> tuple[pa.Field, Convert | None]:
        """`above`: the records that the field is inside of."""
        self._parts += 1
        if self._parts > PARTS_MAX:
            raise NoArrowType(f"a type of more than {PARTS_MAX:,} parts")
        nullable = schema == "null"
        if isinstance(schema, list):
            others = [one for one in schema if one != "null"]
            nullable = len(others) < len(schema)
            if len(others) > 1:
                raise NoArrowType("a union of types")
            schema = others[0] if others else "null"
        kind, convert = self._type(schema, above)
        return pa.field(name, kind, nullable=nullable), convert

    def _type(self, schema: Any, above: tuple[str, ...]) -> tuple[pa.DataType, Convert | None]:
        if isinstance(schema, str):
            if schema in _PRIMITIVES:
                return _PRIMITIVES[schema], None
            if schema not in self._named:
                raise NoArrowType(f"the type {schema} is defined nowhere")
            return self._type(self._named[schema], above)
        kind = schema["type"]
        if schema.get("logicalType") == "decimal" and kind in ("bytes", "fixed"):
            return _decimal(schema)
        if kind == "fixed":
            return pa.binary(int(schema["size"])), None
        if kind == "enum":
            return pa.string(), None
        if kind == "array":
            item, convert = self.field("item", schema["items"], above)
            return pa.list_(item), None if convert is None else _each(convert)
        if kind == "map":
            item, convert = self.field("value", schema["values"], above)
            return pa.map_(pa.string(), item), _pairs(convert)
        if kind in ("record", "error"):
            if schema["name"] in above:
                raise NoArrowType(f"the type {schema['name']} contains itself")
            return self._record(schema, (*above, schema["name"]))
        if isinstance(kind, str) and kind in _PRIMITIVES:
            return _LOGICAL.get((kind, str(schema.get("logicalType"))), _PRIMITIVES[kind]), None
        return self._type(kind, above)

    def _record(self, schema: Any, above: tuple[str, ...]) -> tuple[pa.DataType, Convert | None]:
        fields = [(f["name"], *self.field(f["name"], f["type"], above)) for f in schema["fields"]]
        if not fields:
            raise NoArrowType("a record without fields")
        converts = {name: convert for name, _, convert in fields if convert is not None}

        def convert(value: dict[str, Any]) -> dict[str, Any]:
            return {k: converts[k](v) if k in converts and v is not None else v for k, v in value.items()}

        return pa.struct([field for _, field, _ in fields]), convert if converts else None


def _decimal(schema: Any) -> tuple[pa.DataType, Convert]:
    precision, scale = int(schema["precision"]), int(schema.get("scale", 0))
    if not 0 < precision <= _DECIMAL256_DIGITS or not 0 <= scale <= precision:
        raise NoArrowType(f"a decimal of {precision} digits")
    make = pa.decimal128 if precision <= _DECIMAL128_DIGITS else pa.decimal256

    def convert(raw: bytes) -> Decimal:
        unscaled = int.from_bytes(raw, "big", signed=True)
        digits = tuple(int(d) for d in str(abs(unscaled)))
        return Decimal((int(unscaled < 0), digits, -scale))

    return make(precision, scale), convert


def _each(convert: Convert) -> Convert:
    return lambda values: [None if value is None else convert(value) for value in values]


def _pairs(convert: Convert | None) -> Convert:
    if convert is None:
        return lambda values: list(values.items())
    return lambda values: [(k, None if v is None else convert(v)) for k, v in values.items()]
