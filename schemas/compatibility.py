"""Whether what one schema wrote another can read: Avro's resolution rules, stricter where the gate is. No files here.

FULL_TRANSITIVE: every version of a record reads every other, so that sites may upgrade in any order and journals are
read for ever. Judged is what the lint lets through: records, arrays, optionals and scalars, which never become others.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import permutations
from typing import Any


def full_transitive_faults(versions: list[dict[str, Any]]) -> list[str]:
    """Every way in which one version (as in its file) cannot read another."""
    numbered = enumerate(versions)
    return [
        f"version {reads} cannot read version {wrote}: {why}"
        for (reads, reader), (wrote, writer) in permutations(numbered, 2)
        for why in faults(reader, writer)
    ]


def faults(reader: dict[str, Any], writer: dict[str, Any]) -> list[str]:
    """Why `reader` cannot read what `writer` wrote, each as `where: what`; empty if it can."""
    return list(_Pair(_defined(reader), _defined(writer)).faults(reader, writer, str(reader.get("name"))))


def _defined(schema: Any) -> dict[str, dict[str, Any]]:
    """Every named type in a schema, by its last name."""
    if isinstance(schema, list):
        return {name: found for branch in schema for name, found in _defined(branch).items()}
    if not isinstance(schema, dict):
        return {}
    inner = [schema.get("items"), *(f["type"] for f in schema.get("fields", ()))]
    found = {name: known for part in inner for name, known in _defined(part).items()}
    return {**found, _last(schema["name"]): schema} if "name" in schema else found


def _last(name: str) -> str:
    return name.rpartition(".")[2]


def _kind(schema: Any) -> str:
    if isinstance(schema, list):
        return "union"
    return str(schema["type"] if isinstance(schema, dict) else schema)


class _Pair:
    def __init__(self, reader: dict[str, dict[str, Any]], writer: dict[str, dict[str, Any]]) -> None:
        self.reader = reader
        self.writer = writer
        self.seen: set[tuple[str, str]] = set()

    def faults(self, reader: Any, writer: Any, where: str) -> Iterator[str]:
        if isinstance(reader, str):
            reader = self.reader.get(_last(reader), reader)
        if isinstance(writer, str):
            writer = self.writer.get(_last(writer), writer)
        if isinstance(writer, list):
            for branch in writer:
                yield from self.faults(reader, branch, where)
        elif isinstance(reader, list):
            tried = [list(self.faults(branch, writer, where)) for branch in reader]
            if all(tried):
                yield f"{where}: {_kind(writer)} is no branch of the reader's union"
        elif _kind(reader) == _kind(writer):
            yield from self.alike(reader, writer, where)
        else:
            yield f"{where}: {_kind(writer)} cannot be read as {_kind(reader)}"

    def alike(self, reader: Any, writer: Any, where: str) -> Iterator[str]:
        kind = _kind(reader)
        if kind == "record" and _last(reader["name"]) != _last(writer["name"]):
            yield f"{where}: {writer['name']} cannot be read as {reader['name']}"
        elif kind == "record":
            yield from self.records(reader, writer, where)
        elif kind == "array":
            yield from self.faults(reader["items"], writer["items"], f"{where}[]")

    def records(self, reader: dict[str, Any], writer: dict[str, Any], where: str) -> Iterator[str]:
        pair = (_last(reader["name"]), _last(writer["name"]))
        if pair in self.seen:
            return
        self.seen.add(pair)
        written = {field["name"]: field for field in writer["fields"]}
        for field in reader["fields"]:
            here = f"{where}.{field['name']}"
            if field["name"] in written:
                yield from self.faults(field["type"], written[field["name"]]["type"], here)
            elif "default" not in field:
                yield f"{here}: the writer has no such field, and it has no default"
