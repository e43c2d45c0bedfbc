"""Ranges against the model they stand for: a set of whole numbers."""

from __future__ import annotations

import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streams.core.ranges import EMPTY, Ranges

TOP = 60
bounds = st.tuples(st.integers(0, TOP), st.integers(0, TOP)).map(lambda ab: (min(ab), max(ab)))
span_lists = st.lists(bounds, max_size=8)
pairs = st.tuples(span_lists, span_lists)


def model(spans: list[tuple[int, int]]) -> set[int]:
    return {n for start, stop in spans for n in range(start, stop)}


@given(span_lists)
def test_spans_are_canonical(spans: list[tuple[int, int]]) -> None:
    ranges = Ranges(spans)
    assert list(ranges.numbers()) == sorted(model(spans))
    assert ranges.size == len(model(spans))
    assert bool(ranges) == bool(model(spans))
    assert all(start < stop for start, stop in ranges)
    assert all(a[1] < b[0] for a, b in zip(ranges.spans, ranges.spans[1:], strict=False)), "disjoint, not touching"


@given(pairs)
def test_the_same_numbers_are_the_same_value(pair: tuple[list[tuple[int, int]], list[tuple[int, int]]]) -> None:
    one, two = map(Ranges, pair)
    assert (one == two) == (model(pair[0]) == model(pair[1]))
    assert one == Ranges.of(*model(pair[0]))
    assert hash(one) == hash(Ranges.of(*model(pair[0])))
    assert pickle.loads(pickle.dumps(one)) == one


@given(pairs)
def test_union_difference_and_intersection(pair: tuple[list[tuple[int, int]], list[tuple[int, int]]]) -> None:
    (one, two), (a, b) = map(Ranges, pair), map(model, pair)
    assert one | two == Ranges.of(*(a | b))
    assert one - two == Ranges.of(*(a - b))
    assert one & two == Ranges.of(*(a & b))
    assert one == Ranges(pair[0]), "operands stay as they are"


@given(span_lists, st.integers(0, TOP + 5))
def test_membership(spans: list[tuple[int, int]], number: int) -> None:
    assert (number in Ranges(spans)) == (number in model(spans))


@given(span_lists, bounds)
def test_covers_and_missing(spans: list[tuple[int, int]], asked: tuple[int, int]) -> None:
    wanted = set(range(*asked))
    assert Ranges(spans).covers(*asked) == (wanted <= model(spans))
    assert Ranges(spans).missing(*asked) == Ranges.of(*(wanted - model(spans)))


@given(span_lists, st.integers(-2, TOP + 5))
def test_first_numbers(spans: list[tuple[int, int]], size: int) -> None:
    assert list(Ranges(spans).first(size).numbers()) == sorted(model(spans))[: max(0, size)]


def test_big_numbers_need_no_counting() -> None:
    huge = Ranges([(0, 1 << 62)])
    assert huge.size == 1 << 62
    assert (1 << 62) - 1 in huge
    assert 1 << 62 not in huge
    assert (huge - Ranges([(5, 6)])).spans == ((0, 5), (6, 1 << 62))


@pytest.mark.parametrize("span", [(-1, 3), (5, 4), (-2, -1)])
def test_what_is_no_half_open_range_is_refused(span: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match="half-open"):
        Ranges([span])


def test_a_value_cannot_be_changed() -> None:
    with pytest.raises(AttributeError):
        EMPTY.spans = ((0, 1),)  # type: ignore[misc]
    assert Ranges() == EMPTY
    assert repr(Ranges([(1, 3)])) == "Ranges([1,3))"
    assert Ranges.of(1) != 1
