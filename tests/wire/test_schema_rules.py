"""Every schema file obeys the lint, matches its dataclass, reads every version of itself; the checkers can fail."""

from __future__ import annotations

import dataclasses
import json
import re
import types
import typing
from importlib.resources import files
from io import BytesIO
from itertools import permutations
from typing import Any, get_args

import fastavro
import pytest

import schemas
from schemas import compatibility, lint
from streams.core import records as m
from streams.core.ranges import Ranges

RECORDS = (*get_args(m.Message), m.Origin, m.ChunkHeader)
NAMES = [cls.__name__ for cls in RECORDS]
EVERY_ID = [(name, number) for name, numbers in schemas.versions().items() for number in numbers]


def raw(name: str, number: int | None = None) -> dict[str, Any]:
    return json.loads(schemas.text(name, number))


@pytest.mark.parametrize(("name", "number"), EVERY_ID)
def test_schema_obeys_the_lint(name: str, number: int) -> None:
    assert lint.faults(raw(name, number)) == []
    assert raw(name, number)["name"] == name
    assert raw(name, number)["namespace"] == schemas.NAMESPACE


def test_ids_are_unique_in_range_and_complete() -> None:
    numbers = [number for _, number in EVERY_ID]
    assert len(set(numbers)) == len(numbers)
    assert all(schemas.ID_MIN <= number < 1 << 31 for number in numbers)
    assert all(list(of) == sorted(of) for of in schemas.versions().values())
    assert sorted(schemas.versions()) == sorted(NAMES)
    assert all(schemas.ids()[name] in of for name, of in schemas.versions().items())
    assert all(schemas.names()[number] == name for name, number in EVERY_ID)


def test_no_file_without_an_id_and_none_missing() -> None:
    packaged = files("schemas")
    newest = {entry.name for entry in packaged.iterdir() if entry.name.endswith(".avsc")}
    assert newest == {f"{name}.avsc" for name in NAMES}
    history = {entry.name for entry in packaged.joinpath("history").iterdir() if entry.name.endswith(".avsc")}
    assert history == {f"{name}.{number}.avsc" for name, of in schemas.versions().items() for number in of[:-1]}


def test_nested_records_are_the_same_everywhere() -> None:
    """One name, one meaning: Reason in a report is Reason in a manifest, docs and all."""
    seen: dict[str, Any] = {}

    def form(part: Any, known: dict[str, Any]) -> Any:
        if isinstance(part, list):
            return [form(entry, known) for entry in part]
        if isinstance(part, dict) and part["type"] == "array":
            return {"items": form(part["items"], known)}
        if isinstance(part, dict):
            fields = [{**field, "type": form(field["type"], known)} for field in part["fields"]]
            known[part["name"]] = {"name": part["name"], "doc": part["doc"], "fields": fields}
            assert seen.setdefault(part["name"], known[part["name"]]) == known[part["name"]], part["name"]
            return known[part["name"]]
        return known.get(part, part)

    for name in NAMES:
        form(raw(name), {})
    assert {"Reason", "Span", "Item", "FailedItems", "TransferIntent", "ManifestWritten"} <= seen.keys()


def avro_type(hint: Any) -> Any:
    """What a type hint of a record must be in Avro; records as their fields."""
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        (inner,) = (arg for arg in get_args(hint) if arg is not type(None))
        return ["null", avro_type(inner)]
    if typing.get_origin(hint) is tuple:
        return {"type": "array", "items": avro_type(get_args(hint)[0])}
    if hint is Ranges:
        return {"type": "array", "items": ("Span", [("start", "long"), ("stop", "long")])}
    if dataclasses.is_dataclass(hint) and isinstance(hint, type):
        hints = typing.get_type_hints(hint)
        return (hint.__name__, [(f.name, avro_type(hints[f.name])) for f in dataclasses.fields(hint)])
    if issubclass(hint, str):
        return "string"
    return {bool: "boolean", int: "long", bytes: "bytes"}[hint]


def shape(part: Any, known: dict[str, Any]) -> Any:
    """A schema in the form of `avro_type`."""
    if isinstance(part, list):
        return [shape(entry, known) for entry in part]
    if isinstance(part, dict) and part["type"] == "array":
        return {"type": "array", "items": shape(part["items"], known)}
    if isinstance(part, dict):
        known[part["name"]] = (part["name"], [(f["name"], shape(f["type"], known)) for f in part["fields"]])
        return known[part["name"]]
    return known.get(part, part)


@pytest.mark.parametrize("cls", RECORDS, ids=lambda cls: cls.__name__)
def test_fields_and_types_are_those_of_the_dataclass(cls: type) -> None:
    assert shape(raw(cls.__name__), {}) == avro_type(cls)


def defaults(part: Any) -> dict[str, dict[str, Any]]:
    if isinstance(part, list):
        return {k: v for entry in part for k, v in defaults(entry).items()}
    if not isinstance(part, dict):
        return {}
    inner = {k: v for entry in part.values() for k, v in defaults(entry).items()}
    if part.get("type") == "record":
        inner[part["name"]] = {f["name"]: f["default"] for f in part["fields"] if "default" in f}
    return inner


@pytest.mark.parametrize("cls", RECORDS, ids=lambda cls: cls.__name__)
def test_defaults_are_those_of_the_dataclass(cls: type) -> None:
    schema = defaults(raw(cls.__name__))[cls.__name__]
    for field in dataclasses.fields(cls):
        if field.default is not dataclasses.MISSING:
            wanted = list(field.default) if isinstance(field.default, tuple | Ranges) else field.default
            assert schema[field.name] == wanted, field.name


def test_fingerprints() -> None:
    assert schemas.fingerprint_of("null").hex() == "8a8f25cce724dd63", "the value of Avro's own specification, as bytes"
    prints = {schemas.fingerprint(name, number) for name, number in EVERY_ID}
    assert len(prints) == len(EVERY_ID)
    for name in NAMES:
        assert schemas.fingerprint_of(raw(name)) == schemas.fingerprint(name), "parsed or not"


def test_text_of_an_unknown_version() -> None:
    with pytest.raises(KeyError):
        schemas.text("Origin", schemas.ID_MIN - 1)
    with pytest.raises(KeyError):
        schemas.load("NoSuchRecord")


GOOD: dict[str, Any] = {
    "type": "record",
    "name": "Thing",
    "namespace": "x",
    "doc": "d",
    "fields": [
        {"name": "a", "type": "long", "doc": "d"},
        {"name": "b", "type": ["null", "string"], "default": None, "doc": "d"},
        {
            "name": "c",
            "type": {
                "type": "array",
                "items": {
                    "type": "record",
                    "name": "Inner",
                    "doc": "d",
                    "fields": [{"name": "x", "type": "bytes", "doc": "d"}],
                },
            },
            "doc": "d",
        },
    ],
}


def with_field(**field: Any) -> dict[str, Any]:
    return {**GOOD, "fields": [*GOOD["fields"], {"name": "z", "doc": "d", **field}]}


EMPTY = {"type": "record", "name": "Empty", "doc": "d", "fields": []}
NULLS = {"type": "record", "name": "Nulls", "doc": "d", "fields": [{"name": "n", "type": "null", "doc": "d"}]}
BROKEN = {
    "recursion through Thing": with_field(type=["null", "Thing"], default=None),
    "recursion through Thing ": with_field(type={"type": "array", "items": "Thing"}),
    "array of items without width": with_field(type={"type": "array", "items": "null"}),
    "array of items without width ": with_field(type={"type": "array", "items": EMPTY}),
    "array of items without width  ": with_field(type={"type": "array", "items": NULLS}),
    "optional defaults to null": with_field(type=["null", "long"]),
    "optional defaults to null ": with_field(type=["null", "long"], default=1),
    'not ["null", T]  ': with_field(type=["null", "long", "double"], default=None),
    "type 'double' is not allowed": with_field(type="double"),
    'not ["null", T]': with_field(type=["string", "null"], default=None),
    'not ["null", T] ': with_field(type=["null", "string", "bytes"], default=None),
    "union inside": with_field(type={"type": "array", "items": ["null", "long"]}),
    "no doc": {**GOOD, "doc": ""},
    "z: no doc": with_field(type="long", doc=""),
    "type 'int' is not allowed": with_field(type="int"),
    "is not allowed": with_field(type={"type": "enum", "name": "E", "symbols": ["A"]}),
    "is not allowed ": with_field(type={"type": "long", "logicalType": "timestamp-millis"}),
    "aliases is not allowed": with_field(type="long", aliases=["y"]),
    "named twice": {**GOOD, "fields": [*GOOD["fields"], GOOD["fields"][0]]},
    "defined twice": with_field(type=GOOD["fields"][2]["type"]["items"]),
    "no fields": {**GOOD, "fields": []},
    "no namespace": {k: v for k, v in GOOD.items() if k != "namespace"},
}


@pytest.mark.parametrize("why", BROKEN)
def test_lint_can_fail(why: str) -> None:
    assert lint.faults(GOOD) == []
    assert re.search(re.escape(why.strip()), "\n".join(lint.faults(BROKEN[why])))


@pytest.mark.parametrize("name", NAMES)
def test_versions_are_full_transitive(name: str) -> None:
    of = [raw(name, number) for number in schemas.versions()[name]]
    assert compatibility.full_transitive_faults(of) == []


OPTIONAL = with_field(type=["null", "long"], default=None)
INCOMPATIBLE = {
    "no default": with_field(type="long"),
    "long cannot be read as string": {**GOOD, "fields": [{**GOOD["fields"][0], "type": "string"}, *GOOD["fields"][1:]]},
    "no branch": {**GOOD, "fields": [*GOOD["fields"][:1], {**GOOD["fields"][1], "type": ["null", "long"]}]},
    "null cannot be read as string": {
        **GOOD,
        "fields": [GOOD["fields"][0], {"name": "b", "type": "string", "doc": "d"}],
    },
    "cannot be read as Other": {**GOOD, "name": "Other"},
    "bytes cannot be read as long": json.loads(json.dumps(GOOD).replace('"bytes"', '"long"')),
}


def test_compatible_evolution_is_found_compatible() -> None:
    assert (
        compatibility.full_transitive_faults([GOOD, OPTIONAL, with_field(type=["null", "string"], default=None)]) != []
    )
    assert compatibility.full_transitive_faults([GOOD, OPTIONAL]) == []
    optional_string = {**GOOD, "fields": [*OPTIONAL["fields"][:3], {**OPTIONAL["fields"][3], "name": "y"}]}
    assert compatibility.full_transitive_faults([GOOD, OPTIONAL, optional_string]) == []


@pytest.mark.parametrize("why", INCOMPATIBLE)
def test_incompatible_evolution_is_found(why: str) -> None:
    assert any(why in fault for fault in compatibility.full_transitive_faults([GOOD, INCOMPATIBLE[why]]))


def test_transitive_not_only_between_neighbours() -> None:
    """Each step is compatible, the first and the last are not."""
    steps = [with_field(type="long", default=0), GOOD, with_field(type="string", default="")]
    assert compatibility.full_transitive_faults(steps[:2]) == []
    assert compatibility.full_transitive_faults(steps[1:]) == []
    assert compatibility.full_transitive_faults(steps) != []


@pytest.mark.parametrize("why", [*INCOMPATIBLE, ""])
def test_the_checker_agrees_with_fastavro(why: str) -> None:
    """What the checker calls readable fastavro resolves; what it does not, fastavro refuses for some value."""
    changed = INCOMPATIBLE.get(why, OPTIONAL)
    values = [
        {"a": a, "b": b, "c": [{"x": x}], "z": 1} for a in (1, 1.5, "s") for b in (None, "s", 2) for x in (b"x", 3)
    ]
    for reader, writer in permutations([GOOD, changed], 2):
        outcomes = [resolves(reader, writer, value) for value in values]
        expected = not compatibility.faults(reader, writer)
        assert all(o is not False for o in outcomes) == expected, (reader["name"], writer["name"])


def resolves(reader: Any, writer: Any, value: Any) -> bool | None:
    """None when `writer` cannot write the value at all."""
    out = BytesIO()
    try:
        fastavro.schemaless_writer(out, writer, value)
    except (TypeError, ValueError):
        return None
    out.seek(0)
    try:
        fastavro.schemaless_reader(out, writer, reader)
    except fastavro.read.SchemaResolutionError:
        return False
    return True
