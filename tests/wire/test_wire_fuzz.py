"""Whatever the bytes: a record that equals them when encoded again, or a WireError; never anything else."""

from __future__ import annotations

import dataclasses
import random
import types
import typing
from enum import StrEnum
from typing import Any, get_args

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import schemas
from streams import wire
from streams.core import records as m
from streams.core.names import Adler32, Block, Dataset, Destination, IntentId, Lfn, ManifestId, Site, Text
from streams.core.ranges import Ranges
from streams.core.selectors import Selector
from streams.errors import WireError
from streams.wire import avro, versions

RECORDS = (*get_args(m.Message), m.Origin, m.ChunkHeader)
QUICK = settings(
    max_examples=300, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
UUID = "0b5f6d6e-5a4e-4a55-8f10-0123456789ab"
NAMES: dict[type, st.SearchStrategy[Any]] = {
    Site: st.from_regex(r"\A[A-Za-z][A-Za-z0-9_]{0,63}\Z").map(Site),
    Destination: st.sampled_from(["T1_A", "T1_A/zpeak"]).map(Destination),
    Lfn: st.from_regex(r"\A(/[A-Za-z0-9_][A-Za-z0-9._=+@,-]{0,20}){1,4}\Z").map(Lfn),
    Dataset: st.just(Dataset("/P/Q/TIER")),
    Block: st.integers(0, 9).map(lambda n: Block(f"/P/Q/TIER#{n}")),
    IntentId: st.just(IntentId(f"T1.{UUID}")),
    ManifestId: st.integers(0, 999_999_999).map(lambda n: ManifestId(f"T1.{UUID}.{n}.0")),
    Adler32: st.from_regex(r"\A[0-9a-f]{8}\Z").map(Adler32),
    Text: st.sampled_from(["", "a", "Zoë … ×", "x" * 400]).map(Text),
}
NUMBERS = st.one_of(st.integers(0, 300), st.integers(0, (1 << 63) - 1))


def values(hint: Any) -> st.SearchStrategy[Any]:
    """Values that every single field may have, though together they may mean nothing."""
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        (inner,) = (arg for arg in get_args(hint) if arg is not type(None))
        return st.none() | values(inner)
    if typing.get_origin(hint) is tuple:
        return st.lists(values(get_args(hint)[0]), max_size=3).map(tuple)
    if hint is Ranges:
        return st.lists(st.tuples(NUMBERS, NUMBERS).map(lambda ab: (min(ab), max(ab))), max_size=4).map(Ranges)
    if hint is Selector:
        return NAMES[Lfn].map(lambda lfn: Selector("file", lfn))  # type: ignore[arg-type]
    if dataclasses.is_dataclass(hint) and isinstance(hint, type):
        hints = typing.get_type_hints(hint)
        return st.builds(hint, **{f.name: values(hints[f.name]) for f in dataclasses.fields(hint)})
    if hint in NAMES:
        return NAMES[hint]
    if issubclass(hint, StrEnum):
        return st.sampled_from(list(hint))
    plain = st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=20).filter(lambda t: "://" not in t)
    return {bool: st.booleans(), int: NUMBERS, bytes: st.binary(max_size=50), str: plain}[hint]


@pytest.mark.parametrize("cls", RECORDS, ids=lambda cls: cls.__name__)
@settings(QUICK, max_examples=60)
@given(st.data())
def test_any_legal_fields_survive(cls: type, data: st.DataObject) -> None:
    """The codec alone: plain values, fastavro, compiled readers; without meaning."""
    value = data.draw(values(cls))
    version = versions.BY_ID[schemas.versions()[cls.__name__][-1]]
    framed = version.encode(value)
    plain = version.plain(value)
    assert avro.reader(cls)(plain) == value
    assert avro.fault(cls, plain) is None
    got, why = attempt(version.decode, framed)
    assert got == value if why is None else "Avro" not in why


@QUICK
@given(st.integers(0, len(RECORDS) - 1), st.binary(max_size=200))
def test_any_bytes_in_a_frame(at: int, body: bytes) -> None:
    version = versions.BY_CLASS[RECORDS[at]]
    check(version, version.frame + body)


def attempt(gate: Any, *arguments: Any) -> tuple[Any, str | None]:
    """(what was heard, None) or (None, the reason); a reason that says that the gate itself failed is a bug."""
    try:
        return gate(*arguments), None
    except WireError as error:
        why = error.what
    assert why.isprintable()
    assert "the gate failed" not in why
    return None, why


def check(version: Any, framed: bytes) -> bool:
    record, why = attempt(version.decode, framed)
    assert why is not None or version.encode(record) == framed
    return why is None


def mutations(framed: bytes, rng: random.Random) -> bytes:
    out = bytearray(framed)
    for _ in range(rng.choice((1, 1, 1, 2, 5))):
        at = rng.randrange(5, len(out)) if len(out) > 5 else len(out)
        match rng.randrange(7):
            case 0:
                out[at : at + 1] = bytes([rng.randrange(256)])
            case 1:
                out[at : at + 1] = bytes([out[at] ^ (1 << rng.randrange(8))]) if at < len(out) else b""
            case 2:
                del out[at : at + rng.randrange(1, 9)]
            case 3:
                out[at:at] = rng.randbytes(rng.randrange(1, 9))
            case 4:
                out[at:at] = out[at : at + rng.randrange(1, 40)]
            case 5:
                out[at : at + 1] = rng.choice(
                    (b"\xff" * 9 + b"\x01", b"\xfe" * 9 + b"\x7f", b"\x80\x00", b"\x01", b"\x03")
                )
            case 6:
                del out[at:]
    return bytes(out)


@pytest.mark.parametrize("cls", RECORDS, ids=lambda cls: cls.__name__)
def test_mutated_records(cls: type, samples: Any) -> None:
    rng = random.Random(cls.__name__)
    version = versions.BY_CLASS[cls]
    seeds = [version.encode(value) for value in samples[cls.__name__].values()]
    passed = sum(check(version, mutations(rng.choice(seeds), rng)) for _ in range(1500))
    assert passed < 1500


def test_mutated_records_through_the_whole_gate(messages: list[Any], record: Any) -> None:
    """Value, headers, key and topic at once; what passes is heard as it stands."""
    rng = random.Random(5)
    heard = 0
    stands = [record(message) for message in messages]
    topics = [s.topic for s in stands] + ["T9_X.manifests", "\x00", "a.b.c", ".", "T1_A."]
    for _ in range(6000):
        at = rng.choice(stands)
        value = mutations(at.value, rng) if rng.random() < 0.5 else at.value
        headers = [(name, mutations(v, rng) if rng.random() < 0.2 else v) for name, v in at.headers]
        topic = rng.choice(topics) if rng.random() < 0.2 else at.topic
        key = rng.choice((at.key, at.key, at.key, at.key, None, b"\xff"))
        got, why = attempt(wire.decode, topic, key, value, headers, at.here)
        if why is None:
            heard += 1
            assert wire.encode(got.message) == value
            assert got.origin.site == at.here
    assert heard > 100


@QUICK
@given(
    st.text(max_size=20),
    st.none() | st.binary(max_size=20),
    st.none() | st.binary(max_size=60),
    st.none()
    | st.lists(st.tuples(st.sampled_from(["avro-fp", "t2g-origin", "t2g-chunk", "x"]), st.none() | st.binary())),
)
def test_any_record(topic: str, key: bytes | None, value: bytes | None, headers: Any) -> None:
    for decode in (wire.decode, wire.decode_chunk):
        with pytest.raises(WireError):
            decode(topic, key, value, headers, Site("T1_A"))
    assert wire.origin_site(headers) == ""
    letter = wire.dead_letter(WireError(topic), "manifests", 0, 0, key, value, headers)
    assert wire.decode_value(m.DeadLetter, wire.encode(letter)) == letter


def test_a_record_full_of_spans_costs_little() -> None:
    """The most values that fit under the cap: two bytes each."""
    number = schemas.ids()["ChunksServed"]
    head = versions.BY_CLASS[m.ChunksServed].encode(
        m.ChunksServed(ManifestId(f"T1.{UUID}.0.0"), Site("A"), Site("B"), 1, Ranges(), 0)
    )[: -len(b"\x00\x00\x06log")]
    spans = 200_000
    count = bytearray()
    left = spans << 1
    while left > 0x7F:
        count.append(left & 0x7F | 0x80)
        left >>= 7
    count.append(left)
    framed = head + bytes(count) + b"\x00\x02" * spans + b"\x00\x00\x06log"
    assert len(framed) < 500_000
    with pytest.raises(WireError, match="ranges: not canonical"):
        versions.BY_ID[number].decode(framed)
