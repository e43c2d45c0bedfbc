"""Objects of ROOT files: the same object in a file of its own, byte for byte the same everywhere."""

from __future__ import annotations

import os
import struct
import subprocess
import sys
from pathlib import Path

import awkward as ak
import numpy as np
import pytest
import uproot

from streams.core.selections.entries import EventSelection
from streams.errors import StorageError
from streams.events.reading import open_entries
from streams.objects.containers.root.keys import KeyHead, RootKey
from streams.objects.reading import open_object
from tests.events.event_files import COMPRESSIONS, HZZ, NANOAOD, ZMUMU, columns, write_rntuple, write_ttree
from tests.objects.object_files import everything, fails, refusals, taken


def landed(path: Path, name: str, directory: Path) -> Path:
    """The object `name` as a file."""
    listing = everything(path, name)
    (found,) = [found for found in listing.found if found.name == name]
    assert found.suffix == "root"
    target = directory / "landed.root"
    target.write_bytes(taken(path, found, listing.version, directory / "scratch"))
    assert not (directory / "scratch").exists()
    return target


@pytest.fixture
def hists(tmp_path: Path) -> Path:
    rng = np.random.default_rng(3)
    path = tmp_path / "hists.root"
    with uproot.recreate(path) as file:
        file["cutflow"] = np.histogram(rng.normal(size=1000))
        file["dir/hpt"] = np.histogram(rng.normal(size=1000), bins=500)
        file["dir/sub/h2"] = np.histogram2d(rng.normal(size=50), rng.normal(size=50))
        file["dir/words"] = "hello"
        file["cutflow"] = np.histogram(rng.normal(size=1000))
        file.mktree("dir/sub/t", {"x": "i4", "y": "var * float32"}).extend(
            {"x": np.arange(5), "y": ak.Array([[1.0], [], [2.0, 3.0], [], [4.0]])}
        )
    return path


def raw_object(path: Path, name: str) -> bytes:
    with uproot.open(path) as file:
        key = file.key(name)
        start = key.fSeekKey + key.fKeylen
        return path.read_bytes()[start : key.fSeekKey + key.fNbytes]


def test_histograms_byte_for_byte(hists: Path, tmp_path: Path) -> None:
    for name in ("cutflow", "cutflow;1", "dir/hpt", "dir/sub/h2"):
        path = landed(hists, name, tmp_path)
        assert raw_object(path, name) == raw_object(hists, name)
        with uproot.open(path) as mine, uproot.open(hists) as theirs:
            assert mine.keys(cycle=False)[-1] == name.removesuffix(";1")
            assert len(mine.keys()) == 1 + name.count("/")
            for one, other in zip(mine[name].to_numpy(), theirs[name].to_numpy(), strict=True):
                assert np.array_equal(one, other)
            assert mine.file.fEND == path.stat().st_size
            assert mine.key(name).fCycle == theirs.key(name).fCycle
            assert mine.key(name).fDatime == theirs.key(name).fDatime
            assert mine.file.streamers.keys() == theirs.file.streamers.keys()


def test_cycles(hists: Path, tmp_path: Path) -> None:
    assert [found.name for found in everything(hists, "cut*").found] == ["cutflow"]
    both = everything(hists, "cut*,cutflow;1,cutflow;2")
    assert [found.name for found in both.found] == ["cutflow", "cutflow;1", "cutflow;2"]
    assert both.found[0].adler32 == both.found[2].adler32 != both.found[1].adler32
    fails(hists, "permanent", ["no object 'cutflow;3'", "nearest: "], "cutflow;3")


def test_the_landed_file_is_a_file_others_can_add_to(hists: Path, tmp_path: Path) -> None:
    """Its table of free space, its directories and its streamers are what uproot's writer expects."""
    path = landed(hists, "dir/sub/h2", tmp_path)
    with uproot.update(path) as file:
        file["dir/more"] = np.histogram([1.0, 2.0])
    with uproot.open(path) as file, uproot.open(hists) as theirs:
        assert set(file.keys(cycle=False)) == {"dir", "dir/sub", "dir/sub/h2", "dir/more"}
        assert np.array_equal(file["dir/sub/h2"].values(), theirs["dir/sub/h2"].values())


def test_all_of_a_file(hists: Path) -> None:
    listing = everything(hists)
    assert [found.name for found in listing.found] == ["cutflow", "dir/hpt", "dir/sub/h2", "dir/sub/t", "dir/words"]
    assert not listing.refused
    fails(hists, "permanent", ["no object 'dir/htp'", "nearest: dir/hpt"], "dir/htp")
    fails(hists, "permanent", ["no object matches 'x*'"], "x*")
    fails(hists, "permanent", ["no object 'dir'"], "dir")


def test_two_processes_make_the_same_bytes(hists: Path, tmp_path: Path) -> None:
    program = (
        "import sys\n"
        "from streams.core.selections.objects import ObjectSelection\n"
        "from streams.objects.reading import listed\n"
        "for path in sys.argv[1:]:\n"
        "    print(listed(path, ObjectSelection.parse('*')).found)\n"
    )
    told = [
        subprocess.run(
            [sys.executable, "-c", program, str(hists), str(HZZ)],
            capture_output=True,
            check=True,
            cwd=Path(__file__).parents[2],
            env={**os.environ, "PYTHONHASHSEED": seed},
        ).stdout
        for seed in ("1", "2")
    ]
    assert told[0] == told[1]
    assert told[0].count(b"Found(") == 6
    copy = tmp_path / "another.root"
    copy.write_bytes(hists.read_bytes())
    assert everything(copy).found == everything(hists).found


def test_uuids_differ_where_contents_do(hists: Path, tmp_path: Path) -> None:
    seen = set()
    for name in ("cutflow", "cutflow;1", "dir/hpt", "dir/sub/t"):
        with uproot.open(landed(hists, name, tmp_path)) as file:
            seen.add(file.file.uuid)
    assert len(seen) == 4


@pytest.mark.parametrize(("path", "name"), [(HZZ, "events"), (ZMUMU, "events"), (NANOAOD, "Events")])
def test_trees_of_the_samples(tmp_path: Path, path: Path, name: str) -> None:
    target = landed(path, name, tmp_path)
    with uproot.open(target) as mine, uproot.open(path) as theirs:
        one, other = mine[name], theirs[name]
        assert one.keys() == other.keys()
        assert [branch.typename for branch in one.values()] == [branch.typename for branch in other.values()]
        assert target.read_bytes().count(b"TBasket") >= sum(b.num_baskets for b in other.values()) // 2
    selection = EventSelection.parse("[:]?")
    with open_entries(str(target), selection) as mine, open_entries(str(path), selection) as theirs:
        assert mine.schema == theirs.schema
        assert mine.unreadable == theirs.unreadable
        one, other = mine.read(mine.start, mine.stop), theirs.read(theirs.start, theirs.stop)
        assert one.serialize().to_pybytes() == other.serialize().to_pybytes()


@pytest.mark.parametrize("compression", COMPRESSIONS)
def test_trees_of_any_compression(tmp_path: Path, compression: str) -> None:
    path = write_ttree(tmp_path / "t.root", [columns(300), columns(7)], COMPRESSIONS[compression])
    target = landed(path, "t", tmp_path)
    selection = EventSelection()
    with open_entries(str(target), selection) as mine, open_entries(str(path), selection) as theirs:
        one, other = mine.read(0, 307), theirs.read(0, 307)
        assert one.serialize().to_pybytes() == other.serialize().to_pybytes()


def test_a_tree_of_nothing(tmp_path: Path) -> None:
    with uproot.recreate(tmp_path / "t.root") as file:
        file.mktree("t", {"x": "i4"})
    with uproot.open(landed(tmp_path / "t.root", "t", tmp_path)) as file:
        assert file["t"].num_entries == 0
        assert file["t"].keys() == ["x"]


def test_an_rntuple_says_what_to_ask_for(tmp_path: Path) -> None:
    path = write_rntuple(tmp_path / "n.root", [columns(10)])
    told = refusals(everything(path))
    assert told["t"].startswith("permanent")
    assert "an RNTuple is not yet an object; ask for its entries" in told["t"]
    with pytest.raises(StorageError, match="RNTuple"):
        open_object(str(path), "t", version=None, scratch=str(tmp_path / "s"))


def test_any_name_that_is_not_too_long(tmp_path: Path) -> None:
    with uproot.recreate(tmp_path / "h.root") as file:
        file["é"] = "x"
        file["n" * 1023] = "x"
        file["good"] = "y"
    listing = everything(tmp_path / "h.root")
    assert [found.name for found in listing.found] == ["good", "é"]
    with uproot.open(landed(tmp_path / "h.root", "é", tmp_path)) as file:
        assert file["é"] == "x"
    (told,) = refusals(listing).values()
    assert "1,025 characters as it is spelled, 1,024 at most" in told


def test_an_object_too_large_to_look_at(hists: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("streams.objects.containers.root.objects.OBJECT_BYTES_MAX", 2000)
    told = refusals(everything(hists))
    assert set(told) >= {"dir/hpt"}
    assert "2,000 at most" in told["dir/hpt"]


def test_a_tree_of_too_many_baskets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("streams.objects.containers.root.trees.BASKETS_MAX", 50)
    told = refusals(everything(HZZ))
    assert told["events"].startswith("permanent")
    assert "baskets, 50 at most" in told["events"]
    assert "ask for its entries" in told["events"]


def test_files_that_are_cut(hists: Path, tmp_path: Path) -> None:
    raw = hists.read_bytes()
    for stop in (4, 50, 150, len(raw) // 2, len(raw) - 1):
        (tmp_path / "cut.root").write_bytes(raw[:stop])
        fails(tmp_path / "cut.root", "data-bad", ["cannot read the ROOT file", "fetch it again"])


def test_a_damaged_object_and_its_neighbours(hists: Path) -> None:
    raw = bytearray(hists.read_bytes())
    with uproot.open(hists) as file:
        key = file.key("dir/hpt")
        raw[key.fSeekKey + key.fKeylen + 20] ^= 0xFF
        tree = file["dir/sub/t"]
        struct.pack_into(">i", raw, int(tree["x"].member("fBasketSeek")[0]), 12345)
    hists.write_bytes(raw)
    listing = everything(hists)
    assert [found.name for found in listing.found] == ["cutflow", "dir/sub/h2", "dir/words"]
    told = refusals(listing)
    assert "cannot read the object 'dir/hpt'" in told["dir/hpt"]
    assert "there is no basket of" in told["dir/sub/t"]
    assert all(line.startswith("data-bad") for line in told.values())


def test_a_directory_that_lies(hists: Path) -> None:
    raw = bytearray(hists.read_bytes())
    with uproot.open(hists) as file:
        start = file.key("dir/words").fSeekKey
    # Not in the record itself, but in the list of keys.
    places = [at for at in range(len(raw)) if raw.startswith(struct.pack(">i", start), at)]
    for at in places[1:] if len(places) > 1 else places:
        raw[at : at + 4] = struct.pack(">i", 200)
    hists.write_bytes(raw)
    line = refusals(everything(hists, "dir/words"))["dir/words"]
    assert line.startswith("data-bad")


def test_a_file_of_many_objects_is_walked_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with uproot.recreate(tmp_path / "h.root") as file:
        for n in range(50):
            file[f"d{n % 3}/h{n}"] = f"text {n}"
    listing = everything(tmp_path / "h.root")
    assert len(listing.found) == 50
    walked = []
    real = KeyHead.read

    def counted(file: object) -> KeyHead:
        walked.append(file)
        return real(file)  # type: ignore[arg-type]

    monkeypatch.setattr(KeyHead, "read", counted)
    for found in listing.found:
        taken(tmp_path / "h.root", found, listing.version, tmp_path / "s")
    assert len(walked) == 51  # once for the table, and once for each file laid out


def test_keys_come_back_as_they_were() -> None:
    for big in (False, True):
        key = RootKey(600, 60, 1, 2, 300, 100, b"TDirectoryFile", b"n" * 300, b"", big)
        raw = b"before" + key.written() + b"after"
        read = RootKey.read(raw, 6)
        assert read.written() == key.written()
        assert read.key_bytes == read.header_bytes == key.header_bytes == len(raw) - 11
        at = 6 + 14
        assert raw[at : at + 2] == len(key.written()).to_bytes(2, "big")
        # Some files' directories tell the length that a key of another class would have.
        other = raw[:at] + (key.header_bytes - 4).to_bytes(2, "big") + raw[at + 2 :]
        read = RootKey.read(other, 6)
        assert (read.key_bytes, read.header_bytes) == (key.header_bytes - 4, key.header_bytes)
        assert read.data_start == 300 + key.header_bytes - 4
    with pytest.raises(ValueError, match="beyond 2 GB"):
        RootKey(200, 60, 1, 2, 1 << 31, 100, b"TH1D", b"h", b"", False).written()


def test_objects_that_point_into_themselves(tmp_path: Path) -> None:
    """Labels of an axis name their class by its place in the record, which counts the key: it must keep its length."""
    identify = uproot.writing.identify
    words = ["no cut", "two muons", "opposite charge"]
    labels = identify.to_THashList([identify.to_TObjString(word) for word in words])
    values = np.arange(5.0)
    axis = identify.to_TAxis("xaxis", "", fNbins=3, fXmin=0.0, fXmax=3.0, fLabels=labels)
    hist = identify.to_TH1x(None, "cuts", values, 3.0, 6.0, 6.0, 1.0, 1.0, np.array([]), axis)
    with uproot.recreate(tmp_path / "h.root") as file:
        file["deep/down/cuts"] = hist
    path = landed(tmp_path / "h.root", "deep/down/cuts", tmp_path)
    with uproot.open(path) as mine, uproot.open(tmp_path / "h.root") as theirs:
        assert mine["deep/down/cuts"].axis().labels() == theirs["deep/down/cuts"].axis().labels() == words
        assert mine.key("deep/down/cuts").fKeylen == theirs.key("deep/down/cuts").fKeylen
