"""Manifests of entries, from a real catalogue and real files, good and bad."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import uproot

from streams import wire
from streams.core.commands import WriteManifests
from streams.core.manifest import Manifest
from streams.core.names import LFN_BYTES_MAX, Adler32, Block, Dataset, IntentId, Lfn, Site, Text
from streams.core.policy import Policy
from streams.core.records import (
    FailureClass,
    FilesHeld,
    HeldFile,
    Item,
    ManifestWritten,
    Message,
    Reason,
    Scope,
    TransferIntent,
    Unit,
)
from streams.core.selections.parts import canonical, target_of
from streams.core.selectors import parse
from streams.errors import Temporary
from streams.planes.inventory import entry_items
from streams.planes.inventory import manifest_writer as listing
from streams.planes.inventory.manifest_writer import ManifestWriter
from streams.planes.source import open_files
from streams.planes.source.open_files import OpenFileCache
from streams.storage import open_endpoint
from streams.views import rows
from streams.views.catalogue import Catalogue
from streams.views.folding import Changes
from tests.events.event_files import HZZ, NANOAOD, ZMUMU
from tests.planes.entry_feed import EntrySender, put_sample, unpacked
from tests.planes.stage import A, B, request_of

DATASET = Dataset("/Listed/Here/RAW")
BLOCK = Block(f"{DATASET}#b1")
INTENT = IntentId("T1_A.00000000-0000-0000-0000-000000000001")


class Desk:
    """A catalogue of files under `root`, and the writer over a secondary of it."""

    def __init__(self, tmp_path: Path, policy: Policy) -> None:
        self.root = tmp_path / "storage"
        (self.root / "store").mkdir(parents=True)
        (tmp_path / "scratch").mkdir()
        self.db: Any = rows.open_primary(str(tmp_path / "view"))
        self.endpoint = open_endpoint(f"file://{self.root}")
        self.told: list[ManifestWritten] = []
        self.now_s = 0.0
        self.writer = ManifestWriter(
            A,
            policy,
            lambda: Catalogue.open_secondary(str(tmp_path / "view"), str(tmp_path / "scratch")),
            self._tell,
            lambda: self.endpoint,
            64 * 1024,
            OpenFileCache(),
            lambda intents: (),
            lambda: self.now_s,
        )

    def _tell(self, message: Message) -> None:
        wire.encode(message)
        assert isinstance(message, ManifestWritten)
        self.told.append(message)

    def hold(self, lfns: list[str], site: Site = A) -> None:
        changes = Changes(self.db)
        files = []
        for lfn in lfns:
            path = self.root / lfn[1:]
            version = self.endpoint.stat(lfn).version if path.exists() else "gone"
            files.append(HeldFile(Lfn(lfn), BLOCK, 10, Adler32("00000001"), version))
        changes.hold(FilesHeld(DATASET, site, tuple(files)), str(len(files)))
        changes.write()

    def command(self, selection: str, *names: str, form: str | None = None) -> WriteManifests:
        selectors = tuple(map(parse, names or (DATASET,)))
        body = TransferIntent(INTENT, Text("me"), selectors, (B,), selection=canonical(selection), format=form)
        return WriteManifests(body, 0, 0, "", "")

    def write(self, selection: str, *names: str, form: str | None = None) -> list[Item]:
        """All items, of as many commands as it takes."""
        command = self.command(selection, *names, form=form)
        first = len(self.told)
        self.now_s += 60.0
        while first == len(self.told) or not self.told[-1].last:
            if len(self.told) > first:
                after = self.told[-1]
                command = replace(command, no=after.no + 1, prev_sha256=Manifest(after).sha256, cursor=after.cursor)
            assert self.writer.write(command)
        return [item for body in self.told[first:] for item in body.items]


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    yield (one := Desk(tmp_path, Policy()))
    one.db.close()
    one.endpoint.close()


def flat(path: Path, entries: int, name: str = "t") -> str:
    with uproot.recreate(path) as file:
        tree = file.mktree(name, {"pt": "f4", "eta": "f4", "n": "i4"})
        if entries:
            tree.extend({"pt": np.ones(entries, "f4"), "eta": np.ones(entries, "f4"), "n": np.arange(entries)})
    return f"/store/{path.name}"


def why(item: Item) -> Reason:
    assert item.reason is not None
    assert (item.length, item.bytes, item.reason.scope, item.reason.phase) == (0, 0, Scope.SOURCE, "list")
    return item.reason


def test_tree_and_range_are_resolved_and_the_part_is_filed_apart(desk: Desk) -> None:
    desk.hold([put_sample(desk.root, ZMUMU), put_sample(desk.root, HZZ)])
    (zmumu,) = desk.write("entries:[10:]{p*1,M}", "/store/uproot-Zmumu.root")
    assert zmumu.selection == "entries:events[10:2304]{M,p*1}"
    assert (zmumu.length, zmumu.holder, zmumu.adler32) == (2294, A, None)
    assert zmumu.version == desk.endpoint.stat(zmumu.lfn).version
    assert (zmumu.dataset, zmumu.block) == ("/Listed/Here/RAW-PART", "/Listed/Here/RAW-PART#b1")
    assert zmumu.target == target_of(zmumu.lfn, zmumu.selection, "parquet")
    assert desk.told[-1].unit is Unit.ENTRIES
    (root,) = desk.write("entries:[10:]{p*1,M}", "/store/uproot-Zmumu.root", form="root")
    assert root.target.endswith(".root")


@pytest.mark.parametrize(
    ("sample", "columns"), [(ZMUMU, ""), (HZZ, ""), (NANOAOD, "{Muon_*,Jet_pt}"), (NANOAOD, "")], ids=str
)
def test_the_estimate_is_near_what_is_sent(desk: Desk, sample: Path, columns: str) -> None:
    desk.hold([put_sample(desk.root, sample)])
    tree = "Events" if sample == NANOAOD else ""
    (item,) = desk.write(f"entries:{tree}{columns}?" if tree or columns else "entries:[:]?")
    sender = EntrySender(desk.root, codec="none")
    records = sender.serve(request_of(desk.told[-1]))
    sender.close()
    sent = sum(len(payload) for _, payload in records)
    assert sum(length for _, length, _ in unpacked(records)[0]) == item.length
    assert 0.5 < item.bytes / sent < 2


def test_bad_files_have_reasons_and_good_ones_flow(desk: Desk) -> None:
    store = desk.root / "store"
    good = [flat(store / "a-good.root", 50), flat(store / "z-good.root", 0)]
    (store / "not.root").write_bytes(b"hello world" * 100)
    whole = (store / "a-good.root").read_bytes()
    (store / "cut.root").write_bytes(whole[:1200])
    (store / "odd.bin").write_bytes(b"?" * 50)
    flat(store / "tree.root", 5, name="other")
    with uproot.recreate(store / "column.root") as file:
        file["t"] = {"Pt": np.ones(5)}
    bad = [f"/store/{name}" for name in ("not.root", "cut.root", "odd.bin", "tree.root", "column.root", "gone.root")]
    desk.hold(good + bad)
    items = {item.lfn.rpartition("/")[2]: item for item in desk.write("entries:t{pt}")}
    assert len(items) == 8
    assert (items["a-good.root"].length, items["a-good.root"].selection) == (50, "entries:t[0:50]{pt}")
    assert (items["z-good.root"].length, items["z-good.root"].selection) == (1, "entries:t{pt}")
    words = {
        "not.root": (FailureClass.DATA_BAD, "not a ROOT file: it begins with"),
        "cut.root": (FailureClass.DATA_BAD, "cut.root"),
        "odd.bin": (FailureClass.PERMANENT, "no format of entries is known"),
        "tree.root": (FailureClass.PERMANENT, "no tree 't'; there are other"),
        "column.root": (FailureClass.PERMANENT, "no column 'pt'; nearest: Pt"),
        "gone.root": (FailureClass.PERMANENT, "no such file"),
    }
    for name, (failure_class, text) in words.items():
        reason = why(items[name])
        assert reason.failure_class is failure_class, reason
        assert text in reason.text, reason
        assert items[name].holder == A
    assert len({item.target for item in items.values()}) == len(items)


def test_ranges_beyond_the_end_and_globs_of_nothing(desk: Desk) -> None:
    lfn = flat(desk.root / "store/a.root", 50)
    desk.hold([lfn])
    (item,) = desk.write("entries:t[40:60]")
    assert "entries 40 to 60 are asked for, the tree 't' has 50" in why(item).text
    (item,) = desk.write("entries:t{Muon_*}", lfn)
    assert "no column matches 'Muon_*'" in why(item).text
    (item,) = desk.write("entries:t[50:]", str(BLOCK))
    assert (item.length, item.reason) == (1, None)


def test_a_file_of_another_site_says_whom_to_name_and_one_of_nobody_as_ever(desk: Desk) -> None:
    desk.hold(["/store/theirs.root"], B)
    theirs, nobody = desk.write("entries:t", DATASET, "/store/never/heard/of.root")
    reason = why(theirs)
    assert (reason.failure_class, theirs.holder) == (FailureClass.PERMANENT, None)
    assert f"{B} holds it" in reason.text
    assert f"name {B} as the source" in reason.text
    assert why(nobody).text == "no site holds it"


def test_a_replaced_file_is_not_listed_as_if_it_were_the_registered_one(desk: Desk) -> None:
    lfn = flat(desk.root / "store/a.root", 50)
    desk.hold([lfn])
    flat(desk.root / "store/a.root", 60)
    (item,) = desk.write("entries:t")
    assert why(item).failure_class is FailureClass.DATA_BAD
    assert "since it was listed" in why(item).text


def test_a_link_out_of_the_root_is_not_followed(desk: Desk, tmp_path: Path) -> None:
    flat(tmp_path / "secret.root", 5)
    (desk.root / "store/link.root").symlink_to(tmp_path / "secret.root")
    changes = Changes(desk.db)
    stat = (tmp_path / "secret.root").stat()
    version = f"{stat.st_size}:{stat.st_mtime_ns}:{stat.st_ino}"
    held = HeldFile(Lfn("/store/link.root"), BLOCK, 1, Adler32("00000001"), version)
    changes.hold(FilesHeld(DATASET, A, (held,)), "w")
    changes.write()
    (item,) = desk.write("entries:t")
    assert "symbolic link" in why(item).text


def test_a_name_that_would_become_too_long_is_cut(desk: Desk) -> None:
    deep = "/".join(["d" * 200] * 5)
    lfn = f"/{deep}/x.root"
    path = desk.root / lfn[1:]
    path.parent.mkdir(parents=True)
    flat(path, 5)
    desk.hold([lfn])
    (item,) = desk.write("entries:t")
    assert item.reason is None
    assert item.target.startswith(lfn[:900])
    assert item.target.endswith(".parquet")
    assert len(item.target) <= LFN_BYTES_MAX


def test_a_dataset_is_cut_by_items_and_chained_and_comes_out_the_same_again(desk: Desk, tmp_path: Path) -> None:
    lfns = []
    for n in range(150):
        pq.write_table(pa.table({"a": list(range(n % 3))}), desk.root / f"store/{n:03}.parquet")
        lfns.append(f"/store/{n:03}.parquet")
    desk.hold(lfns)
    items = desk.write("entries:[:]")
    assert [item.lfn for item in items] == lfns
    assert [item.length for item in items] == [max(1, n % 3) for n in range(150)]
    assert [len(body.items) for body in desk.told] == [1, 4, 16, 64, 64, 1]
    for before, after in itertools.pairwise(desk.told):
        assert after.prev_sha256 == Manifest(before).sha256
    first = [wire.encode(body) for body in desk.told]
    desk.write("entries:[:]")
    assert [wire.encode(body) for body in desk.told[6:]] == first


def test_a_manifest_ends_by_bytes_not_by_entries_and_no_file_is_opened_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    desk = Desk(tmp_path, Policy(manifest_bytes=100_000))
    desk.hold([flat(desk.root / f"store/{n}.root", 3000) for n in range(7)])
    opened: list[str] = []
    real = entry_items.open_item

    def counted(endpoint: Any, lfn: str, version: str, selection: Any) -> Any:
        opened.append(lfn)
        return real(endpoint, lfn, version, selection)

    monkeypatch.setattr(entry_items, "open_item", counted)
    items = desk.write("entries:t")
    assert all(36_000 < item.bytes < 40_000 for item in items)
    assert [len(body.items) for body in desk.told] == [1, 2, 2, 2]
    assert sorted(opened) == [f"/store/{n}.root" for n in range(7)]
    desk.db.close()


def test_what_may_work_later_writes_no_manifest_now(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    desk.hold([flat(desk.root / f"store/{n}.root", 30) for n in range(3)])
    real = entry_items.open_item

    def moody(endpoint: Any, lfn: str, version: str, selection: Any) -> Any:
        if lfn == "/store/1.root":
            raise open_files.put_in_words(MemoryError(), lfn)
        return real(endpoint, lfn, version, selection)

    monkeypatch.setattr(entry_items, "open_item", moody)
    command = desk.command("entries:t")
    with pytest.raises(Temporary, match="no memory"):
        desk.writer.write(command)
    (first,) = desk.told
    assert [item.lfn for item in first.items] == ["/store/0.root"]
    monkeypatch.setattr(entry_items, "open_item", real)
    then = replace(command, no=1, prev_sha256=Manifest(first).sha256, cursor=first.cursor)
    assert desk.writer.write(then) == 1
    assert [(item.lfn, item.reason) for item in desk.told[1].items] == [
        ("/store/1.root", None),
        ("/store/2.root", None),
    ]


def test_one_command_writes_for_so_long_and_waits_to_be_asked(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listing, "ENTRY_ITEMS_MAX", 8)
    for n in range(40):
        pq.write_table(pa.table({"a": [n]}), desk.root / f"store/{n:03}.parquet")
    desk.hold([f"/store/{n:03}.parquet" for n in range(40)])
    tell = desk.writer._publish

    def slow(message: Message) -> None:
        desk.now_s += 3.0
        tell(message)

    desk.writer._publish = slow
    assert desk.writer.write(desk.command("entries:[:]")) == 2
    assert not desk.told[-1].last


def test_a_site_without_the_libraries_says_what_to_install(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    desk.hold([flat(desk.root / "store/a.root", 5)])
    monkeypatch.setitem(sys.modules, "streams.events.reading", None)
    (item,) = desk.write("entries:t")
    assert "this site cannot read entries" in why(item).text
    assert "install transfer2go[events] at the source" in why(item).text
