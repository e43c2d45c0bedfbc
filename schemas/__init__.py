"""The wire language: one `.avsc` per record, their ids, and `load(name)`. No messages, no Kafka, no bytes.

`ids.json` maps a record's name to its ids, one per version, oldest first: the last one is `NAME.avsc`, an earlier one
is `history/NAME.ID.avsc`. An id is given once and never again. Ids start at 0x50000000, a range that schema
registries do not reach. A changed schema gets the next free id, and its predecessor moves to `history/`.
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
    return MappingProxyType({name: tuple(ids) for name, ids in json.loads(_read("ids.json")).items()})


@cache
def ids() -> Mapping[str, int]:
    """Every record's id in force."""
    return MappingProxyType({name: of[-1] for name, of in versions().items()})


@cache
def names() -> Mapping[int, str]:
    """The record's name of every id ever given."""
    return MappingProxyType({number: name for name, of in versions().items() for number in of})


def text(name: str, number: int | None = None) -> str:
    """The schema as it is written; `number` picks a version. KeyError when there is none."""
    of = versions()[name]
    if number in (None, of[-1]):
        return _read(f"{name}.avsc")
    if number not in of:
        raise KeyError(number)
    return _read(f"history/{name}.{number}.avsc")


@cache
def load(name: str, number: int | None = None) -> Schema:
    """The schema as fastavro has parsed it; treat it as read-only. `number` picks a version."""
    parsed = fastavro.parse_schema(json.loads(text(name, number)))
    assert isinstance(parsed, dict)
    return parsed


@cache
def fingerprint(name: str, number: int | None = None) -> bytes:
    """CRC-64-AVRO of the parsing canonical form, 8 bytes, little-endian as Avro's single-object encoding has it."""
    return bytes.fromhex(_fingerprint(to_parsing_canonical_form(load(name, number)), "CRC-64-AVRO"))


def _read(path: str) -> str:
    return files(__name__).joinpath(path).read_text(encoding="utf-8")
