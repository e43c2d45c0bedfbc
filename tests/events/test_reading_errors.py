"""What is not there or not right: one line, the nearest names, the failure class."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import uproot

from streams.core.selections.entries import EventSelection
from streams.errors import StorageError
from streams.events.reading import open_entries
from tests.events.event_files import HZZ, NANOAOD, ZMUMU, columns, write_ttree


def refused(path: Path, selection: str, failure_class: str, *said: str) -> str:
    with pytest.raises(StorageError) as caught:
        open_entries(str(path), EventSelection.parse(selection))
    line = str(caught.value)
    assert "\n" not in line
    assert len(line) < 700
    assert caught.value.failure_class == failure_class, line
    for words in said:
        assert words in line
    return line


@pytest.fixture
def trees(tmp_path: Path) -> Path:
    path = tmp_path / "trees.root"
    with uproot.recreate(path) as file:
        for name in ("Events", "Runs", "dir/LuminosityBlocks"):
            file.mktree(name, {"x": "i4"}).extend({"x": np.arange(3, dtype="i4")})
    return path


def test_no_such_tree_names_the_nearest(trees: Path) -> None:
    refused(trees, "Event", "permanent", "no tree 'Event'", "nearest: Events", str(trees))
    refused(trees, "zzz", "permanent", "there are Events, Runs, dir/LuminosityBlocks")
    refused(trees, "Events;9", "permanent", "no tree")


def test_a_tree_must_be_named_where_there_are_several(trees: Path) -> None:
    refused(trees, "{x}", "permanent", "3 trees in the file: Events, Runs", "name one")


def test_no_tree_at_all(tmp_path: Path) -> None:
    path = tmp_path / "x.root"
    with uproot.recreate(path) as file:
        file["h"] = np.histogram([1.0, 2.0])
    refused(path, "[:]", "permanent", "no tree in the file; there is h (a TH1D)")
    with uproot.recreate(path) as file:
        pass
    refused(path, "[:]", "permanent", "it is empty")


def test_no_such_column_names_the_nearest() -> None:
    refused(NANOAOD, "Events{Muon_pT,MET_pt}", "permanent", "no column 'Muon_pT'", "nearest: Muon_pt")
    refused(HZZ, "{NMuonn}", "permanent", "nearest: NMuon")
    refused(ZMUMU, "{qqqqqqqq}", "permanent", "there are Type, Run, Event", "and 15 more")


def test_a_glob_that_matches_nothing() -> None:
    refused(NANOAOD, "Events{Muonn_*}", "permanent", "no column matches 'Muonn_*'", "nearest: Muon_")
    refused(ZMUMU, "{Run,zz?zz*}", "permanent", "no column matches 'zz?zz*'")


def test_a_range_beyond_the_end() -> None:
    refused(ZMUMU, "events[2300:2305]", "permanent", "entries 2,300 to 2,305", "'events' has 2,304", "end at 2304")
    refused(ZMUMU, "events[2305:]", "permanent", "entries from 2,305")
    with open_entries(str(ZMUMU), EventSelection.parse("events[2304:]")) as entries:
        assert entries.entries == 0
        assert entries.cuts(1) == []


def test_reading_outside_the_range() -> None:
    with open_entries(str(ZMUMU), EventSelection.parse("events[10:20]")) as entries:
        for start, stop in ((9, 12), (10, 21), (15, 14)):
            with pytest.raises(StorageError, match="are not within 10 to 20"):
                entries.read(start, stop)


def test_a_single_entry_larger_than_the_cap(tmp_path: Path) -> None:
    path = tmp_path / "x.root"
    with uproot.recreate(path) as file:
        tree = file.mktree("t", {"x": "var * float64"})
        tree.extend({"x": [[1.0], list(range(5000)), [2.0]]})
    with open_entries(str(path), EventSelection.parse("t")) as entries:
        with pytest.raises(StorageError, match=r"entry 1 alone has 40,\d+ bytes, 10,000 at most") as caught:
            list(entries.pieces(0, 3, 10_000))
        assert caught.value.failure_class == "permanent"
        assert [a for a, _, _ in entries.pieces(2, 3, 10_000)] == [2]


@pytest.mark.parametrize("name", ["x.root", "x.parquet", "x.avro"])
def test_not_the_format_its_name_says(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_bytes(b"<html>not found</html>")
    refused(path, "[:]", "data-bad", "not a", "it begins with '<htm'")
    path.write_bytes(b"")
    refused(path, "[:]", "data-bad", "it is empty")


def test_no_format_is_known(tmp_path: Path) -> None:
    path = tmp_path / "x.bin"
    path.write_bytes(b"abcdefgh")
    refused(path, "[:]", "permanent", "no format of entries", "ROOT, Parquet, Avro")


def test_what_cannot_be_opened(tmp_path: Path) -> None:
    refused(tmp_path / "gone.root", "[:]", "permanent", "no such file")
    refused(tmp_path, "[:]", "permanent", "not a regular file")
    os.mkfifo(tmp_path / "pipe.root")
    refused(tmp_path / "pipe.root", "[:]", "permanent", "not a regular file")


def test_a_file_changed_while_it_is_read(tmp_path: Path) -> None:
    path = write_ttree(tmp_path / "x.root", [columns(200), columns(200)])
    with open_entries(str(path), EventSelection.parse("t")) as entries:
        with path.open("r+b") as file:
            file.truncate(path.stat().st_size - 1)
        with pytest.raises(StorageError, match="shrank") as caught:
            entries.read(0, 400)
        assert caught.value.failure_class == "data-bad"


def test_a_file_replaced_by_another_is_known_by_its_version(tmp_path: Path) -> None:
    path = write_ttree(tmp_path / "x.root", [columns(10)])
    with open_entries(str(path), EventSelection.parse("t")) as entries:
        version = entries.version
        other = write_ttree(tmp_path / "y.root", [columns(11)])
        os.replace(other, path)
        entries.read(0, 10)  # the open one goes on being the file that was opened
    with pytest.raises(StorageError, match="since it was listed"):
        open_entries(str(path), EventSelection.parse("t"), version=version)
