"""The project's own ROOT files: read, cut, shuffled, spooled, sealed, and compared with uproot to the last bit."""

from __future__ import annotations

import random
from pathlib import Path

import awkward as ak
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import uproot

from streams.core.selections.entries import EventSelection
from streams.events.batches import pack
from streams.events.provenance import Provenance
from streams.events.reading import open_entries
from streams.events.spool import Spool
from tests.events.landing_tables import bits, seal

SAMPLES = Path(__file__).parents[2] / "streams" / "samples"


def landed(name: str, asked: EventSelection, kind: str, directory: Path) -> tuple[Path, pa.RecordBatch]:
    """The final file, and the entries as they were read in one go."""
    out = directory / "out"
    with open_entries(str(SAMPLES / name), asked) as entries:
        first = entries.start
        cuts = entries.cuts(10_000)
        assert len(cuts) > 1
        random.Random(1).shuffle(cuts)
        with Spool(str(directory / "x.part")) as spool:
            for start, stop in cuts:
                spool.add(start - first, stop - first, pack(entries.read(start, stop), "lz4"))
            about = Provenance("/store/" + name, entries.tree, entries.start, entries.stop)
            assert seal(spool, kind, str(out), about).entries == entries.entries
        return out, entries.read(entries.start, entries.stop)


NANOAOD = "nanoAOD_2015_CMS_Open_Data_ttbar.root"
CASES = [("uproot-HZZ.root", "events"), ("uproot-Zmumu.root", "events"), (NANOAOD, "Events")]
EACH_OF = 4
"""Of NanoAOD's 947 columns one of so many, as ROOT: uproot's work for a tree grows with the square of its branches."""


@pytest.mark.parametrize(("name", "tree_name"), CASES)
def test_as_parquet(tmp_path: Path, name: str, tree_name: str) -> None:
    out, read = landed(name, EventSelection(tree_name), "parquet", tmp_path)
    got = pq.read_table(out)
    assert bits(got) == bits(read)
    with uproot.open(SAMPLES / name) as file:
        tree = file[tree_name]
        copy = ak.from_parquet(out)
        for column in got.schema.names:
            same(copy[column], tree[column].array())


@pytest.mark.parametrize(("name", "tree_name"), CASES)
def test_as_root(tmp_path: Path, name: str, tree_name: str) -> None:
    with uproot.open(SAMPLES / name) as source:
        tree = source[tree_name]
        kinds = tree.typenames(recursive=False)
        columns = tuple(kinds)[:: EACH_OF if name == NANOAOD else 1]
        # The only one of its kind.
        columns = tuple(dict.fromkeys((*columns, *(["event"] if name == NANOAOD else []))))
        assert {kinds[column] for column in columns} == set(kinds.values())
        out, _ = landed(name, EventSelection(tree_name, columns=columns), "root", tmp_path)
        with uproot.open(out) as copy:
            assert {*columns} <= {*copy[tree_name].keys()}
            for column in columns:
                same(copy[tree_name][column].array(), tree[column].array())


def same(one: ak.Array, other: ak.Array) -> None:
    if ak.parameters(other).get("__array__") == "string":
        assert one.to_list() == other.to_list()
        return
    if other.ndim > 1:
        assert ak.num(one).to_list() == ak.num(other).to_list()
    mine, theirs = (np.asarray(ak.flatten(array, axis=None)) for array in (one, other))
    assert mine.dtype == theirs.dtype
    assert mine.tobytes() == theirs.tobytes()
