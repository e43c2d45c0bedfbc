"""Entries as a ROOT file: what uproot reads of it, bit for bit, and the columns it refuses, by name."""

from __future__ import annotations

import datetime
import json
from pathlib import Path

import awkward as ak
import numpy as np
import pyarrow as pa
import pytest
import uproot

from streams.errors import StorageError
from streams.events import writing
from streams.events.provenance import Provenance
from streams.events.spool import Spool
from streams.events.writing import kind_fault
from tests.events.landing_tables import flat, jagged, nested, payload, pieces, seal


def written(directory: Path, table: pa.Table, tree: str = "Events") -> Path:
    with Spool(str(directory / "x.part")) as spool:
        spool.add(0, 0, payload(table, 0, 0))
        for start, stop in pieces(len(table), 3):
            spool.add(start, stop, payload(table, start, stop))
        seal(spool, "root", str(directory / "out.root"), Provenance("/a/b.root", tree, 0, len(table)))
    return directory / "out.root"


@pytest.mark.parametrize("entries", [2_000, 1, 0])
def test_uproot_reads_the_same_bits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, entries: int) -> None:
    monkeypatch.setattr(writing, "ROW_GROUP_BYTES", 100_000)
    table = jagged(entries)
    with uproot.open(written(tmp_path, table)) as file:
        tree = file["Events"]
        assert tree.num_entries == entries
        assert set(table.schema.names) <= set(tree.keys())
        for name in table.schema.names:
            same(table[name].combine_chunks(), tree[name].array(library="ak"))
        told = json.loads(str(file["transfer2go"]))
        assert told["transfer2go.entries"] == f"0:{entries}"
        assert json.loads(told["transfer2go.columns"]) == table.schema.names


def same(column: pa.Array, got: ak.Array) -> None:
    kind = column.type
    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        assert got.to_list() == column.to_pylist()
        return
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        assert ak.num(got).to_list() == column.value_lengths().to_pylist()
    values = column
    while values.type.num_fields:
        values = values.flatten()
    mine = values.to_numpy(zero_copy_only=False)
    other = np.asarray(ak.flatten(got, axis=None))
    assert other.dtype == mine.dtype
    assert other.tobytes() == mine.tobytes()


def test_a_tree_in_a_directory(tmp_path: Path) -> None:
    with uproot.open(written(tmp_path, flat(10), "deep/in/Events")) as file:
        assert file["deep/in/Events"].num_entries == 10


@pytest.mark.parametrize("name", ["pairs", "deep", "record", "maybe", "map", "raw", "nothing", "words"])
def test_what_a_tree_cannot_hold_is_named(tmp_path: Path, name: str) -> None:
    table = nested(50).select(["run", name])
    with pytest.raises(StorageError, match=f"column '{name}'") as refused:
        written(tmp_path, table)
    assert refused.value.failure_class == "permanent"
    assert "ask for parquet" in str(refused.value)


def test_columns_that_are_named_as_the_lengths_of_others(tmp_path: Path) -> None:
    """NanoAOD has such: they keep their values and types."""
    table = jagged(3).append_column("nMuon_pt", pa.array([1, 2, 3], pa.uint8()))
    table = table.append_column("Muon_pt_", table["Muon_pt"]).append_column("nMuon_pt_", table["run"])
    with uproot.open(written(tmp_path, table)) as file:
        for name in ("nMuon_pt", "Muon_pt", "Muon_pt_", "nMuon_pt_"):
            same(table[name].combine_chunks(), file["Events"][name].array())


def test_what_a_kind_can_hold_is_known_before() -> None:
    assert "column 'pairs' has the type" in str(kind_fault(nested(3).schema, "root"))
    assert kind_fault(nested(3).schema, "parquet") is None
    assert kind_fault(jagged(3).schema, "root") is None


def test_no_date_and_no_identity_of_its_own(tmp_path: Path) -> None:
    """And uproot's own dates are back afterwards."""
    with uproot.open(written(tmp_path, flat(10))) as file:
        assert file.file.uuid.int == 0
    code = uproot._util.datetime_to_code(datetime.datetime(2020, 2, 3))
    assert uproot._util.code_to_datetime(code) == datetime.datetime(2020, 2, 3)
