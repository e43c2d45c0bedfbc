"""A manifest's line against the model it stands for: one list of (item, offset), one entry a unit."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streams.core import records as m
from streams.core.manifest import ItemLayout, Manifest, RequestLine, digest
from streams.core.names import Block, IntentId, Lfn, Text
from streams.core.ranges import EMPTY, Ranges
from tests.core import example as x

lengths_ = st.lists(st.integers(0, 7), max_size=9)


def units(lengths: list[int]) -> list[tuple[int, int]]:
    return [(item, offset) for item, length in enumerate(lengths) for offset in range(length)]


@st.composite
def lines_and_spans(draw: st.DrawFn) -> tuple[list[int], int, int]:
    lengths = draw(lengths_)
    start = draw(st.integers(0, sum(lengths)))
    return lengths, start, draw(st.integers(start, sum(lengths)))


@given(lines_and_spans())
def test_pieces_cover_a_span_exactly_and_in_order(case: tuple[list[int], int, int]) -> None:
    lengths, start, stop = case
    pieces = list(ItemLayout(lengths).pieces(start, stop))
    said = [(p.item, p.offset + k) for p in pieces for k in range(p.length)]
    assert said == units(lengths)[start:stop]
    assert all(p.length > 0 for p in pieces), "an empty item has no piece"
    at = start
    for piece in pieces:
        assert piece.position == at
        at += piece.length
    assert at == max(start, stop)


@given(lengths_)
def test_every_position_belongs_to_one_item(lengths: list[int]) -> None:
    line = ItemLayout(lengths)
    assert line.total == sum(lengths)
    assert line.count == len(lengths)
    for position, (item, offset) in enumerate(units(lengths)):
        assert line.item_at(position) == item
        assert line.span(item) == (position - offset, position - offset + lengths[item])


@given(lengths_, st.sets(st.integers(0, 62)), st.sets(st.integers(0, 8)))
def test_items_and_ranges_go_both_ways(lengths: list[int], numbers: set[int], items: set[int]) -> None:
    line, table = ItemLayout(lengths), units(lengths)
    ranges = Ranges.of(*(n for n in numbers if n < line.total))
    within = Ranges.of(*(n for n in items if n < line.count))
    assert line.items_in(ranges) == sorted({table[n][0] for n in ranges.numbers()})
    owned = [p for p, (item, _) in enumerate(table) if item in within]
    assert line.ranges_of(within) == Ranges.of(*owned)
    whole = [n for n in within.numbers() if all(p in ranges for p, (item, _) in enumerate(table) if item == n)]
    assert line.covered(ranges, within) == Ranges.of(*whole), "an empty item is always covered"


def test_an_empty_manifest_has_an_empty_line() -> None:
    line = ItemLayout([])
    assert (line.total, line.count) == (0, 0)
    assert list(line.pieces(0, 0)) == []
    assert line.ranges_of(EMPTY) == EMPTY


@given(lines_and_spans())
def test_a_request_is_enough_to_serve_it(case: tuple[list[int], int, int]) -> None:
    lengths, start, stop = case
    manifest = Manifest(x.written(items=[x.item(n, length) for n, length in enumerate(lengths)]))
    asked = manifest.requested(Ranges([(start, stop)]), x.C)
    served = [(item.no, offset + k) for item, offset, n in RequestLine(asked).pieces(start, stop) for k in range(n)]
    assert served == units(lengths)[start:stop], "without the manifest, the same pieces as with it"
    for item in asked:
        assert (item.lfn, item.version) == (x.lfn(item.no), f"v{item.no}")
        assert (item.start, item.length) == (manifest.line.starts[item.no], lengths[item.no])


def test_a_request_line_skips_what_nobody_listed() -> None:
    one, two = m.RequestedItem(0, x.lfn(0), 10, 5, ""), m.RequestedItem(3, x.lfn(3), 20, 5, "")
    assert list(RequestLine((one, two)).pieces(0, 100)) == [(one, 0, 5), (two, 0, 5)]
    assert list(RequestLine((one, two)).pieces(12, 21)) == [(one, 2, 3), (two, 0, 1)]
    assert list(RequestLine((one, two)).pieces(15, 20)) == []


def test_unobtainable_items_are_grouped_by_reason() -> None:
    gone, secret = x.reason("gone"), x.reason("secret", failure_class=m.FailureClass.AUTH)
    items = [x.item(0, 5), x.item(1, 0, holder=None, why=gone), x.item(2, 0, holder=None, why=secret)]
    manifest = Manifest(x.written(items=[*items, x.item(3, 0, holder=None, why=gone)]))
    assert set(manifest.unobtainable) == {
        m.FailedItems(Ranges.of(1, 3), gone),
        m.FailedItems(Ranges.of(2), secret),
    }


FIRST = x.written(items=[x.item(0, 5), x.item(1, 0, holder=None, why=x.reason("gone"))])
CHANGES = {
    "intent": replace(FIRST, intent=IntentId(f"{x.B}.00000000-0000-4000-8000-000000000001")),
    "source": replace(FIRST, source=x.B),
    "source_no": replace(FIRST, source_no=1),
    "no": replace(FIRST, no=1),
    "prev_sha256": replace(FIRST, prev_sha256=x.SHA256),
    "unit": replace(FIRST, unit=m.Unit.ENTRIES),
    "last": replace(FIRST, last=False),
    "order": replace(FIRST, items=FIRST.items[::-1]),
    "fewer": replace(FIRST, items=FIRST.items[:1]),
    "reason": replace(FIRST, items=(FIRST.items[0], replace(FIRST.items[1], reason=x.reason("lost")))),
    **{
        field: replace(FIRST, items=(replace(FIRST.items[0], **{field: value}), FIRST.items[1]))
        for field, value in {
            "lfn": x.lfn(9),
            "dataset": "/Muon/Run1/AOD",
            "block": Block("/Muon/Run1/RAW#2"),
            "target": Lfn("/store/other"),
            "selection": "Events[0,5)",
            "length": 6,
            "bytes": 6,
            "adler32": None,
            "version": "v9",
            "holder": x.B,
        }.items()
    },
}


@pytest.mark.parametrize("change", CHANGES)
def test_the_digest_sees_every_change_of_meaning(change: str) -> None:
    assert digest(CHANGES[change]) != digest(FIRST)


def test_the_digest_is_of_the_meaning_only() -> None:
    assert digest(replace(FIRST, cursor="elsewhere")) == digest(FIRST), "where a writer goes on is its own affair"
    assert Manifest(FIRST).sha256 == digest(FIRST)
    assert digest(FIRST) == "b6958c6835e73cf9933996c75dce3df9c8b3aa7596cc0cdb74480c2bac202455", (
        "a released digest never changes: it chains"
    )


def test_the_digest_cannot_be_fooled_by_moving_a_separator() -> None:
    one = replace(FIRST, items=(replace(FIRST.items[0], selection="a", version="b"), FIRST.items[1]))
    two = replace(FIRST, items=(replace(FIRST.items[0], selection="a b", version=""), FIRST.items[1]))
    assert digest(one) != digest(two)
    assert "\t" not in Text("a b")
