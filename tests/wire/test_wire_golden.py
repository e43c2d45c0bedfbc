"""Bytes written once decode for ever, to the same values, and are written the same way again."""

from __future__ import annotations

import json
from io import BytesIO
from pathlib import Path
from typing import Any

import fastavro
import pytest

import schemas
from streams.wire import avro, versions

GOLDEN = Path(__file__).parent / "golden"
EVERY_ID = [(name, number) for name, numbers in schemas.versions().items() for number in numbers]


def as_json(plain: Any) -> Any:
    if isinstance(plain, dict):
        return {key: as_json(value) for key, value in plain.items()}
    if isinstance(plain, (list, tuple)):
        return [as_json(value) for value in plain]
    return "hex:" + plain.hex() if isinstance(plain, bytes) else plain


def golden_of(name: str, number: int, pair: dict[str, Any]) -> str:
    """What the file of a new id holds."""
    kinds = {
        kind: {
            "bytes": versions.BY_ID[number].encode(value).hex(),
            "value": as_json(avro.writer(type(value))(value)),
        }
        for kind, value in pair.items()
    }
    return json.dumps({"fingerprint": schemas.fingerprint(name, number).hex(), **kinds}, indent=1, ensure_ascii=False)


def read(name: str, number: int) -> dict[str, Any]:
    golden: dict[str, Any] = json.loads((GOLDEN / f"{name}.{number}.json").read_text(encoding="utf-8"))
    return golden


@pytest.mark.parametrize(("name", "number"), EVERY_ID)
def test_every_id_has_a_golden(name: str, number: int, samples: Any) -> None:
    assert (GOLDEN / f"{name}.{number}.json").is_file(), (
        f"write tests/wire/golden/{name}.{number}.json, once, with:\n{golden_of(name, number, samples[name])}"
    )


def test_no_golden_without_an_id() -> None:
    """An id that was given is never taken back."""
    assert {path.name for path in GOLDEN.glob("*.json")} == {f"{name}.{number}.json" for name, number in EVERY_ID}


@pytest.mark.parametrize(("name", "number"), EVERY_ID)
def test_fingerprint_of_an_id_never_changes(name: str, number: int) -> None:
    assert schemas.fingerprint(name, number).hex() == read(name, number)["fingerprint"]


@pytest.mark.parametrize("kind", ["small", "rich"])
@pytest.mark.parametrize(("name", "number"), EVERY_ID)
def test_golden_bytes(name: str, number: int, kind: str) -> None:
    golden = read(name, number)[kind]
    framed = bytes.fromhex(golden["bytes"])
    version = versions.BY_ID[number]
    record = version.decode(framed)
    assert type(record).__name__ == name

    body = BytesIO(framed[5:])
    assert as_json(fastavro.schemaless_reader(body, schemas.load(name, number), None)) == golden["value"]
    if number == schemas.versions()[name][-1]:
        assert as_json(avro.writer(type(record))(record)) == golden["value"]
        assert version.encode(record) == framed
