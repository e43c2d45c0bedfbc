"""Where entries are cut: tiles without gaps, near the size, at common borders where there are any."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from streams.events.cut_points import CutPoints, piece_of


def tiles(cuts: list[tuple[int, int]], start: int, stop: int) -> bool:
    edges = [start, *(end for _, end in cuts)]
    return list(pairwise(edges)) == cuts and edges[-1] == stop


def test_clusters_are_joined_up_to_the_size_and_never_broken_where_they_fit() -> None:
    edges = list(range(0, 10_001, 100))
    borders = CutPoints(0, 10_000, [(edges, [1000] * 100), (edges, [3000] * 100)])
    cuts = borders.cuts(0, 10_000, 16_000)
    assert cuts == [(i, i + 400) for i in range(0, 10_000, 400)]


def test_a_cluster_larger_than_the_size_is_cut_evenly_and_its_border_kept() -> None:
    borders = CutPoints(0, 2000, [([0, 1000, 2000], [10_000, 20_000])])
    cuts = borders.cuts(0, 2000, 4000)
    assert 1000 in {start for start, _ in cuts}
    assert tiles(cuts, 0, 2000)
    sizes = [borders.bytes_between(*cut) for cut in cuts]
    assert max(sizes) <= 5000, sizes
    assert min(sizes) >= 2500, sizes


def test_only_borders_that_all_columns_share_count() -> None:
    borders = CutPoints(0, 1000, [([0, 300, 600, 1000], [300, 300, 400]), ([0, 450, 600, 1000], [450, 150, 400])])
    assert borders.cuts(0, 1000, 1200) == [(0, 600), (600, 1000)]


def test_a_range_inside_keeps_the_files_borders() -> None:
    edges = list(range(0, 1001, 100))
    borders = CutPoints(150, 850, [(edges, [1000] * 10)])
    cuts = borders.cuts(150, 850, 2000)
    assert tiles(cuts, 150, 850)
    assert {end % 100 for _, end in cuts[:-1]} == {0}


def test_no_bytes_no_columns_no_entries() -> None:
    assert CutPoints(0, 0, []).cuts(0, 0, 100) == []
    assert CutPoints(0, 0, [([0], [])]).cuts(0, 0, 100) == []
    assert tiles(CutPoints(0, 10, [([0, 10], [0])]).cuts(0, 10, 1), 0, 10)
    assert tiles(CutPoints(0, 10, []).cuts(0, 10, 100), 0, 10)


def test_large_numbers_stay_exact_and_absurd_ones_harmless() -> None:
    edges = [0, 1 << 40, 1 << 41]
    borders = CutPoints(0, 1 << 41, [(edges, [1 << 42, 1 << 42])])
    cuts = borders.cuts(0, 1 << 41, 1 << 39)
    assert tiles(cuts, 0, 1 << 41)
    assert len(cuts) == 16
    absurd = CutPoints(0, 2, [([0, 1, 2], [1 << 62, -(1 << 62)])] * 3000)
    assert absurd.cuts(0, 2, 1000) == [(0, 1), (1, 2)]


@st.composite
def trees(draw: st.DrawFn) -> tuple[int, list[tuple[list[int], list[int]]]]:
    entries = draw(st.integers(1, 500))
    columns = []
    for _ in range(draw(st.integers(1, 4))):
        inner = draw(st.lists(st.integers(0, entries), max_size=8))
        edges = [0, *sorted(inner), entries]
        columns.append((edges, [draw(st.integers(0, 100_000)) for _ in edges[1:]]))
    return entries, columns


@given(trees(), st.integers(1, 200_000), st.data())
def test_any_cut_tiles_the_range_and_windows_nest(
    tree: tuple[int, list[tuple[list[int], list[int]]]], payload: int, data: st.DataObject
) -> None:
    entries, columns = tree
    start = data.draw(st.integers(0, entries))
    stop = data.draw(st.integers(start, entries))
    borders = CutPoints(start, stop, columns)
    windows = borders.cuts(start, stop, payload * 8)
    assert tiles(windows, start, stop)
    cuts = [cut for window in windows for cut in borders.cuts(*window, payload)]
    assert tiles(cuts, start, stop)
    for begin, end in cuts:
        assert begin < end
        assert borders.bytes_between(begin, end) <= payload * 5 // 4 + 1 or end - begin == 1
        assert windows[piece_of(windows, begin)][0] <= begin < windows[piece_of(windows, begin)][1]
