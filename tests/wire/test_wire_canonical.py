"""Records read in one pass from canonical bytes: the same records as by fastavro, and of the same bytes."""

from __future__ import annotations

import dataclasses
import random
import time
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import schemas
from streams.core import records as m
from streams.core.names import Lfn
from streams.core.ranges import Ranges
from streams.errors import WireError
from streams.wire import canonical, versions
from streams.wire.canonical import Odd, whole
from tests.wire.conftest import MANIFEST, SMALL_MANIFEST, A, B, C
from tests.wire.test_wire_fuzz import QUICK, RECORDS, mutations, values

FRAME_BYTES = 5


def newest(cls: type) -> Any:
    return versions.BY_ID[schemas.versions()[cls.__name__][-1]]


def typed(value: Any) -> Any:
    """A value with the types of all that it is made of: names are equal to any text of their letters."""
    if dataclasses.is_dataclass(value):
        return type(value), [(f.name, typed(getattr(value, f.name))) for f in dataclasses.fields(value)]
    if isinstance(value, tuple):
        return [typed(one) for one in value]
    return type(value), value


def compare(version: Any, framed: bytes) -> bool:
    """Whether both ways read these bytes; they must agree on that, and on what they are."""
    try:
        longer = version.read_by_fastavro(framed)
    except WireError:
        longer = None
    try:
        found = canonical.reader(version.cls)(framed, FRAME_BYTES)
    except Odd:
        found = None
    assert typed(found) == typed(longer), framed.hex()
    assert found is None or hash(found) == hash(longer)
    return found is not None


@pytest.mark.parametrize("cls", RECORDS, ids=lambda cls: cls.__name__)
def test_samples_are_read_in_one_pass(cls: type, samples: Any) -> None:
    version = newest(cls)
    for value in samples[cls.__name__].values():
        assert canonical.reader(cls)(version.encode(value), FRAME_BYTES) == value
        assert compare(version, version.encode(value))


@pytest.mark.parametrize("cls", RECORDS, ids=lambda cls: cls.__name__)
@settings(QUICK, max_examples=60)
@given(st.data())
def test_any_legal_fields_are_read_alike(cls: type, data: st.DataObject) -> None:
    version = newest(cls)
    framed = version.encode(data.draw(values(cls)))
    compare(version, framed)


@pytest.mark.parametrize("cls", RECORDS, ids=lambda cls: cls.__name__)
def test_hurt_records_are_read_alike_or_by_neither(cls: type, samples: Any) -> None:
    rng = random.Random(cls.__name__)
    version = newest(cls)
    seeds = [version.encode(value) for value in samples[cls.__name__].values()]
    for framed in seeds:
        for at in range(FRAME_BYTES, len(framed)):
            for byte in (0, 1, 2, 3, 0x80, 0xFF, framed[at] ^ 1, framed[at] ^ 0x80):
                compare(version, framed[:at] + bytes([byte]) + framed[at + 1 :])
        for end in range(FRAME_BYTES, len(framed)):
            assert not compare(version, framed[:end])
        assert not compare(version, framed + b"\0")
    read = sum(compare(version, mutations(rng.choice(seeds), rng)) for _ in range(1500))
    assert read < 1500


@pytest.mark.parametrize("number", ["8000", "8200", "01", "8101", "ff" * 9 + "01", "fe" * 9 + "7f", "fe" * 10 + "01"])
def test_a_number_that_is_not_as_short_as_can_be_or_none_is_read_by_neither(number: str) -> None:
    odd = bytes.fromhex(number)
    version = newest(m.Origin)
    head = version.encode(m.Origin(A, "w", "i", 0, 0))[:-2]
    assert compare(version, head + b"\0\0")
    assert not compare(version, head + odd + b"\0")
    assert not compare(version, head + b"\0" + odd)


def test_a_number_of_a_megabyte_costs_nothing() -> None:
    version = newest(m.ChunksServed)
    framed = version.encode(m.ChunksServed(MANIFEST, B, C, 1, Ranges(), 0))
    began_s = time.process_time()
    with pytest.raises(ValueError, match="too large"):
        whole(b"\xfe" + b"\xff" * 1_000_000 + b"\x01", 1)
    assert not compare(version, framed[:-6] + b"\xfe" + b"\xff" * 1_000_000)
    assert time.process_time() - began_s < 1.0


@given(st.integers(0, (1 << 63) - 1))
def test_every_number_is_read(number: int) -> None:
    framed = newest(m.Origin).encode(m.Origin(A, "w", "i", 0, number))
    if number < 64:
        assert framed[-1] == number << 1
    else:
        at = next(at for at in range(len(framed) - 2, 0, -1) if framed[at] < 0x80) + 1
        assert whole(framed, at + 1) == (number << 1, len(framed))


def test_arrays_in_two_blocks_or_with_their_size_are_read_by_neither() -> None:
    version = newest(m.ChunksServed)
    framed = version.encode(m.ChunksServed(MANIFEST, B, C, 1, Ranges([(1, 2), (3, 4)]), 0))
    at = framed.index(b"\x04\x02\x04\x06\x08\x00")
    assert compare(version, framed)
    assert not compare(version, framed[:at] + b"\x02\x02\x04\x02\x06\x08\x00" + framed[at + 6 :])
    assert not compare(version, framed[:at] + b"\x03\x08\x02\x04\x06\x08\x00" + framed[at + 6 :])


def test_a_name_that_follows_itself_is_one_name() -> None:
    framed = newest(m.ManifestWritten).encode(SMALL_MANIFEST)
    (item,) = canonical.reader(m.ManifestWritten)(framed, FRAME_BYTES).items
    assert item.target is item.lfn
    assert type(item.lfn) is Lfn


def test_an_older_version_is_read_by_fastavro() -> None:
    for numbers in schemas.versions().values():
        assert [versions.BY_ID[number].canonical is None for number in numbers] == [True] * (len(numbers) - 1) + [False]
