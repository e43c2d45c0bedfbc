from __future__ import annotations

import random
import zlib
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streams.storage.checksums import (
    ADLER32_EMPTY,
    AdlerRanges,
    adler32,
    adler32_combine,
    adler32_hex,
    crc32c,
)


@given(st.binary(max_size=5000))
def test_adler32_is_zlibs(content: bytes) -> None:
    assert adler32(content) == adler32(memoryview(content)) == adler32(bytearray(content)) == zlib.adler32(content)


def test_adler32_keeps_its_leading_zeros() -> None:
    assert adler32_hex(adler32(b"")) == "00000001"
    assert adler32_hex(adler32(b"a")) == "00620062"


@pytest.mark.parametrize(
    ("content", "value"),
    [(b"", 0), (b"123456789", 0xE3069283), (bytes(32), 0x8A9136AA), (b"\xff" * 32, 0x62A8AB43)],
)
def test_crc32c_known_answers(content: bytes, value: int) -> None:
    assert crc32c(content) == crc32c(bytearray(content)) == crc32c(memoryview(content)) == value


def test_crc32c_of_a_large_view_is_that_of_its_bytes() -> None:
    content = random.Random(1).randbytes(3_000_001)
    assert crc32c(memoryview(content)[1:]) == crc32c(content[1:])


@given(st.binary(max_size=300), st.binary(max_size=300))
def test_combine_is_the_adler_of_the_whole(first: bytes, second: bytes) -> None:
    assert adler32_combine(adler32(first), adler32(second), len(second)) == zlib.adler32(first + second)


@given(st.integers(0, 200_000), st.integers(0, 200_000), st.sampled_from([b"\x00", b"\xff", b"\x01"]))
def test_combine_across_the_modulus(first_bytes: int, second_bytes: int, byte: bytes) -> None:
    first, second = byte * first_bytes, byte * second_bytes
    assert adler32_combine(adler32(first), adler32(second), second_bytes) == zlib.adler32(first + second)


@given(st.binary(min_size=1, max_size=400), st.lists(st.integers(0, 400), max_size=12), st.randoms(), st.data())
def test_segments_in_any_order(content: bytes, cuts: list[int], rng: random.Random, data: st.DataObject) -> None:
    """Every segment known or unknown at first, added in any order: the whole is that of the bytes."""
    edges = sorted({0, len(content), *(cut for cut in cuts if cut < len(content))})
    segments = list(pairwise(edges))
    rng.shuffle(segments)
    ranges = AdlerRanges()
    for start, stop in segments:
        assert ranges.uncovered(start, stop) == [(start, stop)]
        assert ranges.whole(len(content)) is None
        ranges.add(start, stop, adler32(content[start:stop]) if data.draw(st.booleans()) else None)
        assert ranges.uncovered(start, stop) == []
    assert ranges.spans() == [(0, len(content))]
    for start, stop in ranges.unknown():
        ranges.resolve(start, stop, adler32(content[start:stop]))
    assert ranges.whole(len(content)) == zlib.adler32(content)
    assert len(ranges._starts) == 1, "neighbours merge, so memory follows the gaps"
    ranges.forget()
    assert ranges.unknown() == [(0, len(content))]


@given(st.sets(st.integers(0, 60)), st.integers(0, 60), st.integers(0, 60))
def test_uncovered_is_set_difference(covered: set[int], start: int, stop: int) -> None:
    ranges = AdlerRanges()
    for number in sorted(covered, key=lambda n: n * 37 % 61):
        ranges.add(number, number + 1, None if number % 3 else ADLER32_EMPTY)
    gaps = ranges.uncovered(start, stop)
    assert {n for a, b in gaps for n in range(a, b)} == set(range(start, stop)) - covered
    assert all(a < b for a, b in gaps)


@pytest.mark.parametrize("span", [(0, 5), (4, 6), (5, 6), (9, 12), (0, 20), (-1, 0), (3, 2)])
def test_a_span_is_added_once(span: tuple[int, int]) -> None:
    ranges = AdlerRanges()
    ranges.add(4, 10, 1)
    with pytest.raises(ValueError, match="not a new span"):
        ranges.add(*span, 1)
    assert ranges.spans() == [(4, 10)]


def test_only_unknown_spans_are_resolved() -> None:
    ranges = AdlerRanges()
    ranges.add(0, 4, None)
    ranges.add(4, 8, 1)
    for span in ((0, 8), (4, 8), (0, 3)):
        with pytest.raises(ValueError, match="not an unknown span"):
            ranges.resolve(*span, 1)
