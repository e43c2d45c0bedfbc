"""Filled in any pieces it is numpy's histogram; drawn, its highest bin is the highest."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import uproot

from streams.demo.histogram import Histogram


def test_filled_batch_by_batch_it_is_numpy_s() -> None:
    values = np.random.default_rng(1).normal(91, 3, size=10_000)
    values[5] = np.nan
    histogram = Histogram(30, 80.0, 100.0)
    for piece in np.array_split(values, 7):
        histogram.fill(piece)
    wanted, edges = np.histogram(values, 30, (80.0, 100.0))
    assert np.array_equal(histogram.counts, wanted)
    assert np.array_equal(histogram.edges, edges)
    assert histogram.entries == 10_000


def test_text_has_a_column_a_bin() -> None:
    histogram = Histogram(4, 0.0, 4.0, unit="GeV")
    histogram.fill(np.array([0.5] * 16 + [1.5] * 8 + [3.5]))
    top, *middle, bottom, _, axis = histogram.text(rows=4)
    assert top == "     16 ┤█   "
    assert middle == ["        │█   ", "        │██  "]
    assert bottom == "        │██ ▂"
    assert axis.split() == ["0", "4", "GeV"]


def test_an_empty_one_can_be_drawn(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    histogram = Histogram(4, 0.0, 4.0)
    assert len(histogram.text()) == 12
    histogram.png(str(tmp_path / "empty.png"))
    assert (tmp_path / "empty.png").read_bytes().startswith(b"\x89PNG")


def test_as_a_root_object_it_is_read_back(tmp_path: Path) -> None:
    histogram = Histogram(5, 0.0, 5.0)
    histogram.fill(np.arange(5.0).repeat(3))
    histogram.write_root(str(tmp_path / "h.root"), "h")
    with uproot.open(tmp_path / "h.root") as file:
        assert np.array_equal(file["h"].values(), histogram.counts)
        assert np.array_equal(file["h"].axis().edges(), histogram.edges)
