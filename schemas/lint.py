"""Which Avro schemas this project allows: `faults(schema)`. Says nothing about two versions (compatibility.py).

Allowed are records, arrays, optionals `["null", T]`, and boolean, long, string and bytes. The rest is refused with a
reason: recursion crashes a decoder, arrays of items without width become gigabytes, unions of numbers are ambiguous,
enums break readers when a value is added, logical types and aliases are read differently by different libraries.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

SCALARS = frozenset({"boolean", "long", "string", "bytes"})
_RECORD_KEYS = frozenset({"type", "name", "namespace", "doc", "fields"})
_FIELD_KEYS = frozenset({"name", "type", "doc", "default"})
_RECORD_NAME = re.compile(r"[A-Z][A-Za-z0-9]*")
_FIELD_NAME = re.compile(r"[a-z][a-z0-9_]*")


def faults(schema: dict[str, Any]) -> list[str]:
    """Every rule that a schema (as in its file) breaks, each as `where: what`."""
    walk = _Walk()
    found = list(walk.record(schema, ""))
    if not schema.get("namespace"):
        found.append(f"{schema.get('name')}: no namespace")
    return found


class _Walk:
    def __init__(self) -> None:
        self.defined: dict[str, dict[str, Any]] = {}
        self.open: list[str] = []

    def record(self, record: dict[str, Any], where: str) -> Iterator[str]:
        name = str(record.get("name"))
        here = f"{where}{name}"
        if not _RECORD_NAME.fullmatch(name):
            yield f"{here}: not a record name of CamelCase"
        if name in self.defined:
            yield f"{here}: defined twice"
        if not record.get("doc"):
            yield f"{here}: no doc"
        if where and "namespace" in record:
            yield f"{here}: a namespace belongs to the outermost record"
        for key in record.keys() - _RECORD_KEYS:
            yield f"{here}: {key} is not allowed"
        self.defined[name] = record
        self.open.append(name)
        seen: set[str] = set()
        for field in record.get("fields", ()):
            yield from self.field(field, f"{here}.", seen)
        self.open.pop()
        if not record.get("fields"):
            yield f"{here}: no fields"

    def field(self, field: dict[str, Any], where: str, seen: set[str]) -> Iterator[str]:
        name = str(field.get("name"))
        here = f"{where}{name}"
        if not _FIELD_NAME.fullmatch(name) or name in seen:
            yield f"{here}: not a field name of snake_case, or named twice"
        seen.add(name)
        if not field.get("doc"):
            yield f"{here}: no doc"
        for key in field.keys() - _FIELD_KEYS:
            yield f"{here}: {key} is not allowed"
        kind = field.get("type")
        if isinstance(kind, list):
            if "default" not in field or field["default"] is not None:
                yield f"{here}: an optional defaults to null"
            yield from self.union(kind, here)
        else:
            yield from self.type(kind, here)

    def union(self, branches: list[Any], here: str) -> Iterator[str]:
        if len(branches) != 2 or branches[0] != "null":
            yield f'{here}: a union that is not ["null", T]'
        for branch in branches:
            if branch != "null":
                yield from self.type(branch, here)

    def type(self, kind: Any, here: str) -> Iterator[str]:
        if isinstance(kind, list):
            yield f"{here}: a union inside another type"
        elif isinstance(kind, dict) and kind.get("type") == "record":
            yield from self.record(kind, f"{here}.")
        elif isinstance(kind, dict) and kind.get("type") == "array" and kind.keys() == {"type", "items"}:
            yield from self.type(kind["items"], f"{here}[]")
            if self.bytes_min(kind["items"]) == 0:
                yield f"{here}: an array of items without width"
        elif kind in self.open:
            yield f"{here}: recursion through {kind}"
        elif not (isinstance(kind, str) and (kind in SCALARS or kind in self.defined)):
            yield f"{here}: type {kind!r} is not allowed"

    def bytes_min(self, kind: Any) -> int:
        """Fewest bytes a value takes; 0 is dangerous in arrays, whose count costs nothing then."""
        if isinstance(kind, list):
            return 1
        if isinstance(kind, str):
            kind = self.defined.get(kind, kind)
        if not isinstance(kind, dict):
            return 0 if kind == "null" else 1
        if kind.get("type") == "record":
            if kind.get("name") in self.open:
                return 1
            return sum(self.bytes_min(field.get("type")) for field in kind.get("fields", ()))
        return 1
