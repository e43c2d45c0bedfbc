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


def column_of(name: str, schema: Any) -> AvroColumn:
    """The column for a parsed Avro type. Raises NoArrowType."""
    field, convert = _field(name, schema, {}, ())
    return AvroColumn(travelling(field), convert)


def without_logical(schema: Any) -> Any:
    """The schema without logical types, and without what fastavro noted in it."""
    if isinstance(schema, list):
        return [without_logical(one) for one in schema]
    if isinstance(schema, Mapping):
        kept = {k: v for k, v in schema.items() if k not in _NOT_STORED and k[:2] != "__"}
        return {k: without_logical(v) if k in ("type", "items", "values", "fields") else v for k, v in kept.items()}
    return schema


def _field(name: str, schema: Any, named: dict[str, Any], above: tuple[str, ...]) -> tuple[pa.Field, Convert | None]:
    nullable = schema == "null"
    if isinstance(schema, list):
        others = [one for one in schema if one != "null"]
        nullable = len(others) < len(schema)
        if len(others) > 1:
            raise NoArrowType("a union of types")
        schema = others[0] if others else "null"
    kind, convert = _type(schema, named, above)
    return pa.field(name, kind, nullable=nullable), convert


def _type(schema: Any, named: dict[str, Any], above: tuple[str, ...]) -> tuple[pa.DataType, Convert | None]:
    if isinstance(schema, str):
        if schema in _PRIMITIVES:
            return _PRIMITIVES[schema], None
        if schema in above:
            raise NoArrowType(f"the type {schema} contains itself")
        if schema not in named:
            raise NoArrowType(f"the type {schema} is defined in another column")
        return _type(named[schema], named, above)
    kind = schema["type"]
    if "name" in schema and kind in ("record", "enum", "fixed", "error"):
        named[schema["name"]] = schema
    if schema.get("logicalType") == "decimal" and kind in ("bytes", "fixed"):
        return _decimal(schema)
    if kind == "fixed":
        return pa.binary(int(schema["size"])), None
    if kind == "enum":
        return pa.string(), None
    if kind == "array":
        item, convert = _field("item", schema["items"], named, above)
        return pa.list_(item), None if convert is None else _each(convert)
    if kind == "map":
        item, convert = _field("value", schema["values"], named, above)
        return pa.map_(pa.string(), item), _pairs(convert)
    if kind in ("record", "error"):
        return _record(schema, named, (*above, schema["name"]))
    if isinstance(kind, str) and kind in _PRIMITIVES:
        return _LOGICAL.get((kind, str(schema.get("logicalType"))), _PRIMITIVES[kind]), None
    return _type(kind, named, above)


def _record(schema: Any, named: dict[str, Any], above: tuple[str, ...]) -> tuple[pa.DataType, Convert | None]:
    fields = [(f["name"], *_field(f["name"], f["type"], named, above)) for f in schema["fields"]]
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
