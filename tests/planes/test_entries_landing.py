"""Entries at their destination: the destination half over a real directory, fed with payload records of tables."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path

import awkward as ak
import pyarrow as pa
import pytest
import uproot

from streams.core.names import Destination
from streams.core.ranges import EMPTY, Ranges
from streams.core.records import Landed, PartOpened, TransferProgress
from streams.core.selections import parts
from streams.core.selections.entries import EventSelection
from streams.events.provenance import provenance_of
from streams.events.reading import open_entries
from streams.storage.checksums import adler32, adler32_hex
from tests.events.landing_tables import bits, flat, jagged, nested, pieces
from tests.planes.entries_feed import (
    START,
    Tables,
    arrived,
    as_told,
    everything,
    joined,
    landed,
    manifest_of,
    record,
    records,
)
from tests.planes.feed import Receiver

TABLES: Tables = {"/store/a.root": nested(900), "/store/d/b.root": flat(700)}
BOTH = Ranges([(0, 2)])
SAMPLES = Path(__file__).parents[2] / "streams" / "samples"


@pytest.fixture
def receiver(tmp_path: Path) -> Receiver:
    return Receiver(tmp_path / "b")


def files_of(receiver: Receiver, body: object) -> tuple[Landed, ...]:
    """What the files that are there should be told as."""
    found = []
    for number, item in enumerate(body.items):  # type: ignore[attr-defined]
        content = receiver.bytes_of(item.target)
        found.append(Landed(number, len(content), adler32_hex(adler32(content))))  # type: ignore[arg-type]
    return tuple(found)


@pytest.mark.parametrize("suffix", ["parquet", "arrow"])
def test_items_arrive_in_order(receiver: Receiver, suffix: str) -> None:
    body = manifest_of(TABLES, suffix)
    assert receiver.open(body) == PartOpened(body.manifest, 1, "default", EMPTY)
    for at, one in enumerate(records(body, TABLES, 128)):
        receiver.take([one])
        if at % 3 == 0:
            receiver.sync()
    receiver.sync()
    told = receiver.last(TransferProgress)
    assert (told.verified, told.sealed, told.failed) == (everything(body), BOTH, ())
    assert told.landed == files_of(receiver, body)
    arrived(receiver, body, TABLES)


def test_root_files_are_read_by_uproot(receiver: Receiver) -> None:
    tables = {"/store/a.root": flat(900)}
    body = manifest_of(tables, "root")
    receiver.open(body)
    receiver.take(records(body, tables, 200))
    receiver.sync()
    arrived(receiver, body, tables)


def test_lists_and_words_are_read_by_uproot_to_the_last_bit(receiver: Receiver) -> None:
    table = jagged(900).select(["event", "x", "y", "Muon_pt", "word", "cube"])
    body = manifest_of({"/store/a.root": table}, "root")
    receiver.open(body)
    for one in records(body, {"/store/a.root": table}, 200):
        receiver.take([one])
        receiver.sync()
    assert bits(as_told(landed(receiver, body.items[0]), table)) == bits(table)


@pytest.mark.parametrize("suffix", parts.FORMATS)
@pytest.mark.parametrize(
    ("name", "asked"),
    [
        ("uproot-Zmumu.root", "events"),
        ("uproot-HZZ.root", "events{Muon_*,NMuon,MET_*}"),
        ("nanoAOD_2015_CMS_Open_Data_ttbar.root", "Events{nMuon,Muon_pt,Muon_charge,run,event,HLT_IsoMu2*}"),
    ],
)
def test_the_projects_own_files_land_to_the_last_bit(receiver: Receiver, name: str, asked: str, suffix: str) -> None:
    with open_entries(str(SAMPLES / name), EventSelection.parse(asked)) as entries:
        table = pa.Table.from_batches([entries.read(entries.start, entries.stop)])
        tree = entries.tree
    lfn, selection = f"/store/{name}", str(replace(EventSelection.parse(asked), start=0, stop=len(table)))
    body = manifest_of({lfn: table}, suffix, selection=f"entries:{selection}")
    receiver.open(body)
    came = records(body, {lfn: table}, max(1, len(table) // 7))
    random.Random(3).shuffle(came)
    receiver.take(came)
    receiver.sync()
    (item,) = body.items
    assert receiver.last(TransferProgress).landed == files_of(receiver, body)
    if suffix != "root":
        assert bits(landed(receiver, item)) == bits(table)
        return
    with uproot.open(SAMPLES / name) as source, uproot.open(receiver.root / item.target[1:]) as copy:
        for column in table.column_names:
            one, other = copy[tree][column].array(), source[tree][column].array()
            assert ak.to_layout(one).form.type == ak.to_layout(other).form.type
            if ak.parameters(other).get("__array__") == "string":
                assert one.to_list() == other.to_list()
                continue
            if other.ndim > 1:
                assert ak.num(one).to_list() == ak.num(other).to_list()
            assert ak.to_numpy(ak.flatten(one, None)).tobytes() == ak.to_numpy(ak.flatten(other, None)).tobytes()


@pytest.mark.parametrize("seed", range(4))
def test_entries_arrive_in_any_order_repeated_and_overlapping(receiver: Receiver, seed: int) -> None:
    body = manifest_of(TABLES)
    receiver.open(body)
    came = [
        record(body, item, table, start, stop)
        for item, table in enumerate(TABLES.values())
        for start, stop in pieces(len(table), seed)
        if start < stop
    ]
    random.Random(seed).shuffle(came)
    for at, one in enumerate(came):
        receiver.take([one])
        if at % 4 == seed:
            receiver.sync()
    receiver.sync()
    assert receiver.last(TransferProgress).sealed == BOTH
    arrived(receiver, body, TABLES)


def test_one_record_may_bring_several_items(receiver: Receiver) -> None:
    tables = {f"/store/{n}.root": jagged(40 + n) for n in range(20)}
    body = manifest_of(tables)
    receiver.open(body)
    receiver.take([joined(records(body, tables, 1000))])
    receiver.sync()
    assert receiver.last(TransferProgress).sealed == Ranges([(0, 20)])
    arrived(receiver, body, tables)


def test_the_same_entries_make_the_same_file_whatever_their_order(tmp_path: Path) -> None:
    body = manifest_of(TABLES)
    contents = []
    for seed in range(2):
        receiver = Receiver(tmp_path / str(seed))
        receiver.open(body)
        came = records(body, TABLES, 100 + 57 * seed)
        random.Random(seed).shuffle(came)
        receiver.take(came)
        receiver.sync()
        contents.append([receiver.bytes_of(item.target) for item in body.items])
    assert contents[0] == contents[1]


@pytest.mark.parametrize("suffix", parts.FORMATS)
def test_a_tree_without_entries_lands_as_a_file_without_rows(receiver: Receiver, suffix: str) -> None:
    tables = {"/store/empty.root": flat(0), "/store/other.root": flat(9)}
    body = manifest_of(tables, suffix)
    receiver.open(body)
    receiver.take(records(body, tables, 5)[:1])
    receiver.sync()
    told = receiver.last(TransferProgress)
    assert (told.verified, told.sealed) == (Ranges([(0, 1)]), Ranges.of(0))
    receiver.take(records(body, tables, 5))
    receiver.sync()
    assert receiver.last(TransferProgress).sealed == BOTH
    if suffix != "root":
        arrived(receiver, body, tables)
    found = landed(receiver, body.items[0])
    assert (found.num_rows, found.column_names) == (0, flat(0).column_names)


def test_a_file_says_what_it_holds(receiver: Receiver) -> None:
    body = manifest_of(TABLES)
    receiver.open(body)
    receiver.take(records(body, TABLES, 500))
    receiver.sync()
    item = body.items[0]
    told = provenance_of(str(receiver.root / item.target[1:]))
    assert (told.lfn, told.selection, told.version) == (item.lfn, item.selection, item.version)
    assert (told.tree, told.start, told.stop) == ("Events", START, START + 900)


def test_what_is_for_a_consumer_here_passes_by(receiver: Receiver) -> None:
    body = manifest_of(TABLES)
    receiver.open(body)
    table = TABLES["/store/a.root"]
    receiver.take([record(body, 0, table, 0, 900, destination=Destination("T2_B/zpeak"), last=True)])
    assert receiver.half._due() == ([], None)
    receiver.sync()
    assert not [one for one in receiver.told if isinstance(one, TransferProgress)]
    assert receiver.leftovers() == []


def test_landed_files_are_told_again(receiver: Receiver) -> None:
    body = manifest_of(TABLES)
    receiver.open(body)
    receiver.take(records(body, TABLES, 500))
    receiver.sync()
    expected = files_of(receiver, body)
    before = len(receiver.told)
    receiver.open(body)
    receiver.sync()
    (told,) = (one for one in receiver.told[before:] if isinstance(one, TransferProgress))
    assert told.landed == expected
