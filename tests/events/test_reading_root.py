"""ROOT entries: what is read cut by cut equals, to the last bit, what uproot reads whole."""

from __future__ import annotations

import tracemalloc
from pathlib import Path

import awkward as ak
import numpy as np
import pyarrow as pa
import pytest
import uproot

from streams.core.selections.entries import EventSelection
from streams.errors import StorageError
from streams.events import entries as windows
from streams.events.reading import open_entries
from tests.events.event_files import (
    COMPRESSIONS,
    HZZ,
    NANOAOD,
    ZMUMU,
    assert_same,
    branch_type,
    columns,
    part,
    reference,
    write_rntuple,
    write_ttree,
)

parse = EventSelection.parse
WRITERS = {"ttree": write_ttree, "rntuple": write_rntuple}


def assert_reads(path: Path, tree: str, payload_bytes: int, selection: str = "[:]") -> None:
    theirs = reference(path, tree)
    with open_entries(str(path), parse(selection)) as entries:
        assert not entries.unreadable
        assert list(entries.columns) == [name for name in theirs if name in entries.columns]
        cuts = entries.cuts(payload_bytes)
        assert [a for a, _ in cuts] + [entries.stop] == [entries.start] + [b for _, b in cuts]
        batches = [entries.read(*cut) for cut in cuts]
        assert all(batch.schema == entries.schema for batch in batches)
        whole = pa.concat_batches(batches) if batches else entries.read(entries.start, entries.stop)
        assert_same(whole, theirs, entries.start, entries.stop)
        assert_same(entries.read(entries.start, entries.stop), theirs, entries.start, entries.stop)


@pytest.mark.parametrize(("path", "tree", "count"), [(ZMUMU, "events", 20), (HZZ, "events", 51)])
def test_the_real_files(path: Path, tree: str, count: int) -> None:
    assert_reads(path, tree, 20_000)
    with open_entries(str(path), parse("[:]")) as entries:
        assert len(entries.columns) == count


def test_nanoaod_whole_and_a_range_of_it() -> None:
    assert_reads(NANOAOD, "Events", 60_000)
    assert_reads(NANOAOD, "Events", 1_000, "Events[17:133]{Muon_*,HLT_IsoMu*,event,nMuon}")


@pytest.mark.parametrize("compression", COMPRESSIONS)
@pytest.mark.parametrize("kind", WRITERS)
def test_every_compression(tmp_path: Path, kind: str, compression: str) -> None:
    whole = columns(900, deep=kind == "rntuple")
    batches = [part(whole, 0, 200), part(whole, 200, 201), part(whole, 201, 900)]
    path = WRITERS[kind](tmp_path / "x.root", batches, COMPRESSIONS[compression])
    for payload_bytes in (1, 3_000, 1 << 20):
        assert_reads(path, "t", payload_bytes)
    assert_reads(path, "t", 3_000, "t[199:202]")


@pytest.mark.parametrize("count", [0, 1])
@pytest.mark.parametrize("kind", WRITERS)
def test_empty_trees_and_one_entry(tmp_path: Path, kind: str, count: int) -> None:
    path = WRITERS[kind](tmp_path / "x.root", [columns(count, deep=kind == "rntuple")])
    assert_reads(path, "t", 1000)
    with open_entries(str(path), parse("t")) as entries:
        assert entries.entries == count
        assert len(entries.cuts(1)) == count


def test_a_schema_does_not_depend_on_the_entries(tmp_path: Path) -> None:
    """Offsets stay 32 bits wide and nothing turns nullable, however many entries there are."""
    prints = set()
    for count in (0, 1, 5000):
        path = write_ttree(tmp_path / f"{count}.root", [columns(count)])
        with open_entries(str(path), parse("t")) as entries:
            prints.add(entries.fingerprint)
            assert entries.schema.field("jag_f4").type == pa.list_(pa.field("item", pa.float32(), nullable=False))
            assert entries.schema.field("fixed").type == pa.list_(pa.field("item", pa.float32(), nullable=False), 3)
    assert len(prints) == 1


def test_few_columns_read_only_their_baskets(tmp_path: Path) -> None:
    """10 of 158, a sixth of NanoAOD's: uproot's work for a tree grows with the square of its branches.

    The sample keeps its baskets inside the tree's own record, so a copy has them outside.
    """
    path = tmp_path / "nano.root"
    whole = dict(list(reference(NANOAOD, "Events").items())[::6])
    columns = {name: values if values.ndim > 1 else ak.to_numpy(values) for name, values in whole.items()}
    with uproot.recreate(path) as file:
        tree = file.mktree("Events", {name: branch_type(values) for name, values in columns.items()})
        tree.extend(part(columns, 0, 90))
        tree.extend(part(columns, 90, 200))
    names = [name for name in columns if name.startswith(("Muon_", "Jet_"))][:10]
    assert (len(names), len(columns)) == (10, 158)
    with uproot.open(path) as file:
        tree = file["Events"]
        of_them = sum(tree[name].compressed_bytes for name in names)
        of_all = sum(branch.compressed_bytes for branch in tree.branches)
    with open_entries(str(path), EventSelection("Events", columns=tuple(names))) as entries:
        opened = entries.bytes_read
        batches = [entries.read(*cut) for cut in entries.cuts(4_000)]
        assert len(batches) > 2
        assert entries.bytes_read - opened == of_them
        assert_same(pa.concat_batches(batches), whole)
    assert 0 < of_them < of_all / 10


def test_every_basket_is_read_once_when_entries_are_read_in_order(tmp_path: Path) -> None:
    """Also where columns have no border in common, windows end inside baskets and payloads are small."""
    path = tmp_path / "x.root"
    with uproot.recreate(path, compression=None) as file:
        tree = file.mktree("t", {"a": "f8", "b": "f4"})
        for _ in range(7):
            tree.extend({"a": np.arange(1 << 20, dtype="f8"), "b": np.zeros(1 << 20, "f4")})
    with uproot.open(path) as file:
        stored = sum(branch.compressed_bytes for branch in file["t"].branches)
    with open_entries(str(path), parse("t")) as entries:
        opened = entries.bytes_read
        for cut in entries.cuts(1 << 20):
            entries.read(*cut)
        assert entries.bytes_read - opened == stored


def test_an_rntuple_reads_each_cluster_once(tmp_path: Path) -> None:
    path = tmp_path / "x.root"
    with uproot.recreate(path, compression=None) as file:
        ntuple = file.mkrntuple("t", {"a": np.arange(1 << 18, dtype="f8")})
        for _ in range(5):
            ntuple.extend({"a": np.arange(1 << 18, dtype="f8")})
    with uproot.open(path) as file:
        links = [links[0] for links in file["t"].page_link_list]
        pages = sum(page.has_checksum for link in links for page in link.pages)
    with open_entries(str(path), parse("t")) as entries:
        opened = entries.bytes_read
        for cut in entries.cuts(1 << 19):
            entries.read(*cut)
        assert entries.bytes_read - opened == (6 * 8 << 18) + 8 * pages


def test_memory_does_not_grow_with_the_file(tmp_path: Path) -> None:
    peaks = []
    for clusters in (2, 12):
        path = tmp_path / f"{clusters}.root"
        with uproot.recreate(path, compression=uproot.ZLIB(1)) as file:
            tree = file.mktree("t", {"a": "f8", "b": "f8"})
            for _ in range(clusters):
                tree.extend({"a": np.zeros(1 << 20), "b": np.zeros(1 << 20)})
        with open_entries(str(path), parse("t")) as entries:
            tracemalloc.start()
            for cut in entries.cuts(1 << 18):
                entries.read(*cut)
            peaks.append(tracemalloc.get_traced_memory()[1])
            tracemalloc.stop()
    assert peaks[1] < peaks[0] * 1.25 + (1 << 20), peaks
    assert peaks[1] < 160 << 20, peaks


def test_cuts_are_a_function_of_file_and_selection(tmp_path: Path) -> None:
    path = write_ttree(tmp_path / "x.root", [columns(500), columns(700), columns(300)])
    found = []
    for _ in range(2):
        with open_entries(str(path), parse("t{f8,jag_f4}")) as entries:
            entries.read(3, 4)
            found.append(entries.cuts(4000))
    assert found[0] == found[1]
    assert {500, 1200} <= {start for start, _ in found[0]}
    with open_entries(str(path), parse("t{f8}")) as entries:
        assert entries.cuts(4000) != found[0]


def test_pieces_keep_below_a_cap(tmp_path: Path) -> None:
    path = write_ttree(tmp_path / "x.root", [columns(2000)])
    theirs = reference(path, "t")
    with open_entries(str(path), parse("t")) as entries:
        pieces = list(entries.pieces(0, 2000, 9_000))
        assert [a for a, _, _ in pieces] + [2000] == [0] + [b for _, b, _ in pieces]
        for begin, end, batch in pieces:
            assert pa.ipc.get_record_batch_size(batch) <= 9_000
            assert_same(batch, theirs, begin, end)


def test_trees_in_directories_and_cycles(tmp_path: Path) -> None:
    path = tmp_path / "x.root"
    with uproot.recreate(path) as file:
        file.mktree("a/b/t", {"x": "i4"}).extend({"x": np.arange(3, dtype="i4")})
        file.mkdir("c")
        file["h"] = np.histogram([1.0, 2.0])
    for selection in ("[:]", "a/b/t", "a/b/t;1"):
        with open_entries(str(path), parse(selection)) as entries:
            assert entries.read(0, 3).to_pydict() == {"x": [0, 1, 2]}


def test_strings_of_a_ttree(tmp_path: Path) -> None:
    path = tmp_path / "x.root"
    with uproot.recreate(path) as file:
        tree = file.mktree("t", {"s": "string"})
        tree.extend({"s": ak.Array(["\u00e9 caf\u00e9", "", "x" * 400])})
    with open_entries(str(path), parse("t")) as entries:
        assert entries.read(0, 3).column("s").to_pylist() == ["\u00e9 caf\u00e9", "", "x" * 400]
        assert entries.schema.field("s").type == pa.string()


def test_columns_of_unreadable_types_are_told_or_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.root"
    with uproot.recreate(path) as file:
        file.mkrntuple("t", {"x": np.arange(3), "odd": ak.Array([1, "two", [3.0]])})
    with pytest.raises(StorageError, match=r"cannot read the column 'odd': a union of types .*\? to skip it") as caught:
        open_entries(str(path), parse("t"))
    assert caught.value.failure_class == "permanent"
    with open_entries(str(path), parse("t?")) as entries:
        assert list(entries.unreadable) == ["odd"]
        assert entries.read(0, 3).to_pydict() == {"x": [0, 1, 2]}
    with pytest.raises(StorageError, match="'odd'"):
        open_entries(str(path), parse("t{odd}?"))
    with open_entries(str(path), parse("t{x}")) as entries:
        assert entries.unreadable == {}


def test_a_branch_of_an_unknown_class_is_told(tmp_path: Path) -> None:
    """No writer here makes one, so the class of one leaf gets another name of the same length."""
    path = tmp_path / "x.root"
    with uproot.recreate(path, compression=None) as file:
        file.mktree("t", {"x": "i4", "y": "f4"}).extend({"x": np.arange(3, dtype="i4"), "y": np.zeros(3, "f4")})
    raw = path.read_bytes()
    where = raw.index(b"TLeafF\0")
    path.write_bytes(raw[:where] + b"TLeafZ\0" + raw[where + 7 :])
    with pytest.raises(StorageError, match=r"cannot read the column 'y': uproot .*to skip it"):
        open_entries(str(path), parse("t"))
    with open_entries(str(path), parse("t?")) as entries:
        assert list(entries.unreadable) == ["y"]
        assert entries.read(0, 3).to_pydict() == {"x": [0, 1, 2]}


def test_what_a_file_says_of_its_classes_is_not_believed_of_the_next(tmp_path: Path) -> None:
    """uproot keeps classes it learnt from a file; they must not outlive it here."""
    before = {name: dict(getattr(cls, "known_versions", {})) for name, cls in uproot.classes.items()}
    for path in (ZMUMU, HZZ, NANOAOD):
        with open_entries(str(path), parse("[:]")) as entries:
            entries.read(0, 1)
    assert {name: dict(getattr(cls, "known_versions", {})) for name, cls in uproot.classes.items()} == before


@pytest.mark.parametrize("kind", WRITERS)
def test_baskets_too_large_to_keep_are_read_once_a_window(
    tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = WRITERS[kind](tmp_path / "x.root", [columns(20_000)], None)
    monkeypatch.setattr(windows, "WINDOW_BYTES", 100_000)
    monkeypatch.setattr(windows, "LARGE_WINDOW_BYTES", 1_000_000)
    monkeypatch.setattr(windows, "KEPT_BYTES", 500_000)
    theirs = reference(path, "t")
    with open_entries(str(path), parse("t")) as entries:
        opened = entries.bytes_read
        for cut in entries.cuts(20_000):
            assert_same(entries.read(*cut), theirs, *cut)
        size = path.stat().st_size
        assert size > 2_000_000
        assert entries.bytes_read - opened < 4 * size
