"""`transfer2go event` on the real files: what it prints, writes, refuses, and with which code."""

from __future__ import annotations

import json
from decimal import Decimal
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import uproot
from click.testing import CliRunner, Result

from streams.cli import root
from streams.demo.files import samples

HZZ, ZMUMU = (next(path for path in samples() if name in path) for name in ("HZZ", "Zmumu"))


def run(*args: object) -> Result:
    result = CliRunner().invoke(root, ["event", *(str(arg) for arg in args)])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exc_info
    assert "Traceback" not in result.output
    return result


def test_columns_are_those_of_the_file() -> None:
    said = [json.loads(line) for line in run("columns", ZMUMU, "--json").stdout.splitlines()]
    with uproot.open(ZMUMU)["events"] as tree:
        assert [row["column"] for row in said] == tree.keys()
    told = run("columns", HZZ, "events{Muon_P?}")
    assert "2,421 entries of the tree events, 3 columns" in told.stderr
    assert "Muon_Px  list<item: float not null>" in told.stdout


def test_entries_are_shown_by_their_numbers() -> None:
    said = [json.loads(line) for line in run("show", ZMUMU, "[7:2000]{M,Q*}", "-n", 3).stdout.splitlines()]
    with uproot.open(ZMUMU)["events"] as tree:
        expected = tree.arrays(["M", "Q1", "Q2"], entry_start=7, entry_stop=10).to_list()
    assert [row.pop("entry") for row in said] == [7, 8, 9]
    assert said == expected


def test_a_column_named_entry_is_shown_beside_the_number(tmp_path: Path) -> None:
    path = tmp_path / "x.csv"
    path.write_text("entry,_entry,lfn\n70,a,/b\n71,c,/d\n")
    said = [json.loads(line) for line in run("show", path).stdout.splitlines()]
    assert said == [
        {"__entry": 0, "entry": 70, "_entry": "a", "lfn": "/b"},
        {"__entry": 1, "entry": 71, "_entry": "c", "lfn": "/d"},
    ]


@pytest.mark.parametrize("kind", ["parquet", "root"])
def test_a_part_becomes_a_file_with_the_same_values(tmp_path: Path, kind: str) -> None:
    out = tmp_path / f"part.{kind}"
    assert "20 entries, 2 columns" in run("copy", HZZ, "events[100:120]{Muon_Px,MET_px}", out).stdout
    with uproot.open(HZZ)["events"] as tree:
        expected = tree.arrays(["Muon_Px", "MET_px"], entry_start=100, entry_stop=120).to_list()
    if kind == "root":
        with uproot.open(out)["events"] as tree:
            found = tree.arrays(["Muon_Px", "MET_px"]).to_list()
    else:
        found = pq.read_table(out).select(["Muon_Px", "MET_px"]).to_pylist()
    assert found == expected
    assert [path.name for path in tmp_path.iterdir()] == [out.name], "no part stays behind"


@pytest.mark.parametrize(
    ("args", "code", "words"),
    [
        (("show", "nowhere.root"), 3, "no such file"),
        (("show", HZZ, "evnts"), 7, "nearest: events"),
        (("show", HZZ, "{Moun_Px}"), 7, "nearest: Muon_Px"),
        (("show", HZZ, "[0:99999]"), 7, "has 2,421"),
        (("show", HZZ, "[5"), 2, "position 3"),
        (("copy", HZZ, "[:]", "out.txt"), 2, ".parquet"),
        (("copy", HZZ, "[:]", HZZ), 7, "already"),
        (("columns", __file__), 7, "no format"),
    ],
)
def test_what_cannot_be_is_said_in_one_line(args: tuple[str, ...], code: int, words: str) -> None:
    result = run(*args)
    assert (result.exit_code, result.stdout) == (code, "")
    assert words in result.stderr
    assert len(result.stderr.splitlines()) == 1


def test_text_files_are_read_as_the_user_says(tmp_path: Path) -> None:
    path = tmp_path / "x.csv"
    path.write_bytes(b"name;x\nM\xfcnchen;1.50\n")
    refused = run("show", path)
    assert (refused.exit_code, refused.stdout) == (7, "")
    assert "not UTF-8 at byte 9, line 2" in refused.stderr
    assert "encoding=latin-1" in refused.stderr
    assert "fetch it again" not in refused.stderr
    one = run("columns", path, "--encoding", "latin-1")
    assert "whose name holds ';'" in one.stderr
    said = run("show", path, "--encoding", "latin-1", "--separator", ";")
    assert json.loads(said.stdout) == {"entry": 0, "name": "M\u00fcnchen", "x": 1.5}
    assert not said.stderr
    assert run("show", path, "[:];encoding=latin-1;separator=\\;").stdout == said.stdout
    assert run("copy", path, "[:]", tmp_path / "x.parquet", "--encoding", "cp1252", "--separator", ";").exit_code == 0
    assert pq.read_table(tmp_path / "x.parquet").to_pylist() == [{"name": "M\u00fcnchen", "x": 1.5}]
    assert run("show", path, "[:];encoding=latin-1", "--encoding", "cp1252").exit_code == 2
    assert run("show", ZMUMU, "--separator", ";").exit_code == 7


def test_values_are_printed_with_every_digit(tmp_path: Path) -> None:
    columns = {
        "u": pa.array([2**64 - 1], pa.uint64()),
        "d": pa.array([Decimal("1" * 60 + ".5")], pa.decimal256(76, 3)),
        "ns": pa.array([1_700_000_000_123_456_789], pa.timestamp("ns")),
        "bytes": pa.array([b"\x00\xff"]),
        "pairs": pa.array([[("a", 1), ("a", 2)]], pa.map_(pa.string(), pa.int64())),
        "far": pa.array([2**62], pa.timestamp("us")),
        "deep": pa.array([[{"t": -800_000}]], pa.list_(pa.struct([("t", pa.date32())]))),
    }
    pq.write_table(pa.table(columns), tmp_path / "x.parquet")
    said = run("show", tmp_path / "x.parquet").stdout
    assert '"u": 18446744073709551615' in said
    row = json.loads(said)
    assert row["d"] == "1" * 60 + ".500"
    assert row["ns"] == "2023-11-14 22:13:20.123456789"
    assert (row["bytes"], row["pairs"]) == ("00ff", [["a", 1], ["a", 2]])
    assert str(2**62) in row["far"], "beyond any calendar: its number"
    assert row["deep"][0]["t"].startswith("-0221")
