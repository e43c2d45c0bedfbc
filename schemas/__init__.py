"""The wire language: one `.avsc` per record, their ids, and `load(name)`. No messages, no Kafka, no bytes.

`ids.json` gives each record its ids, one per version, oldest first, and the one that is written. The newest version is
`NAME.avsc`, which readers resolve all others to; an older one is `history/NAME.ID.avsc`. An id is given once and never
again, and ids start at 0x50000000, a range that schema registries do not reach.

To change a schema: move it to `history/`, write `NAME.avsc` anew, append the next free id, add its golden. `written`
follows one release later, when every site can read it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from types import MappingProxyType
from typing import Any

import fastavro
from fastavro.schema import fingerprint as _fingerprint
from fastavro.schema import to_parsing_canonical_form

NAMESPACE = "transfer2go.v1"
ID_MIN = 0x50000000

Schema = dict[str, Any]


@cache
def versions() -> Mapping[str, tuple[int, ...]]:
    """Every record's ids, oldest version first."""
    return MappingProxyType({name: tuple(entry["ids"]) for name, entry in json.loads(_read("ids.json")).items()})


@cache
def ids() -> Mapping[str, int]:
    """Every record's id that is written."""
    return MappingProxyType({name: entry["written"] for name, entry in json.loads(_read("ids.json")).items()})


@cache
def names() -> Mapping[int, str]:
    """The record's name of every id ever given."""
    return MappingProxyType({number: name for name, of in versions().items() for number in of})


def text(name: str, number: int | None = None) -> str:
    """The schema's file: the newest, or that of the version `number`. KeyError when there is none."""
    of = versions()[name]
    if number in (None, of[-1]):
        return _read(f"{name}.avsc")
    if number not in of:
        raise KeyError(number)
    return _read(f"history/{name}.{number}.avsc")


def load(name: str, number: int | None = None) -> Schema:
    """The schema as fastavro has parsed it: the newest, or that of version `number`. Treat it as read-only."""
    return _load(name, versions()[name][-1] if number is None else number)


def fingerprint(name: str, number: int | None = None) -> bytes:
    """CRC-64-AVRO of the parsing canonical form, 8 bytes, little-endian as Avro's single-object encoding has it."""
    return fingerprint_of(load(name, number))


def fingerprint_of(schema: Schema | str) -> bytes:
    return bytes.fromhex(_fingerprint(to_parsing_canonical_form(schema), "CRC-64-AVRO"))


@cache
def _load(name: str, number: int) -> Schema:
    parsed = fastavro.parse_schema(json.loads(text(name, number)))
    assert isinstance(parsed, dict)
    return parsed


def _read(path: str) -> str:
    return files(__name__).joinpath(path).read_text(encoding="utf-8")
