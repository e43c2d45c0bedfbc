"""Entries that cannot land, or not this time: each with its class and a reason in words, the others going on."""

from __future__ import annotations

import errno
import fcntl
import logging
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from streams.core.names import Lfn
from streams.core.ranges import Ranges
from streams.core.records import FailedItems, FailureClass, PartLost, PartOpened, Scope, TransferProgress
from streams.events.final_files.parquet import ParquetFile
from streams.planes.destination import coordinator as destination
from streams.storage.checksums import crc32c
from tests.events.landing_tables import flat, jagged, nested
from tests.planes.entries_feed import Tables, arrived, manifest_of, record, records
from tests.planes.feed import Receiver, Record

TABLES: Tables = {"/store/a.root": jagged(900), "/store/d/b.root": flat(700)}
BOTH = Ranges([(0, 2)])
ROOT = Path(__file__).parents[2]


@pytest.fixture
def receiver(tmp_path: Path) -> Receiver:
    return Receiver(tmp_path / "b")


def one_failure(receiver: Receiver) -> FailedItems:
    told = receiver.last(TransferProgress)
    (failed,) = told.failed
    return failed


def with_payload(one: Record, payload: bytes, **changed: object) -> Record:
    header, _ = one
    told = {"size": len(payload), "crc32c": crc32c(payload), **changed}
    return replace(header, segments=(replace(header.segments[0], **told),)), payload  # type: ignore[arg-type]


def test_bad_payloads_are_refused_and_taken_when_they_come_again(
    receiver: Receiver, caplog: pytest.LogCaptureFixture
) -> None:
    body = manifest_of(TABLES)
    receiver.open(body)
    came = records(body, TABLES, 1000)
    (header, payload), table = came[0], TABLES["/store/a.root"]
    bad = [
        with_payload(came[0], payload, crc32c=1),
        with_payload(came[0], b"not a batch at all"),
        with_payload(came[0], payload[:-100]),
        with_payload(came[0], record(body, 0, table, 0, 899)[1]),
        with_payload(came[0], record(body, 0, table, 0, 0)[1]),
        (replace(header, segments=(replace(header.segments[0], item=7),)), payload),
        (replace(header, segments=(replace(header.segments[0], offset=1),)), payload),
    ]
    with caplog.at_level(logging.WARNING, "streams.planes"):
        receiver.take(bad)
    (landing,) = receiver.half._landings.values()
    assert landing.refused == len(bad)
    assert len([one for one in caplog.records if "is refused" in one.message]) == 1
    receiver.sync()
    assert not [one for one in receiver.told if isinstance(one, TransferProgress) and (one.verified or one.failed)]
    receiver.take(came)
    receiver.sync()
    assert receiver.last(TransferProgress).sealed == BOTH
    arrived(receiver, body, TABLES)


def test_a_schema_that_changes_within_an_item_fails_it(receiver: Receiver) -> None:
    body = manifest_of(TABLES)
    receiver.open(body)
    receiver.take(records(body, TABLES, 500)[:1])
    receiver.take([record(body, 0, flat(900), 500, 900)])
    receiver.take(records(body, TABLES, 500)[1:])
    receiver.sync()
    failed = one_failure(receiver)
    assert (failed.items, failed.reason.failure_class) == (Ranges.of(0), FailureClass.DATA_BAD)
    assert "the schema changed within the item: 8 columns instead of 14" in failed.reason.text
    assert f"{receiver.root}/store/a.root." in failed.reason.text, "a user knows the target, not the part"
    assert receiver.last(TransferProgress).sealed == Ranges.of(1)
    assert receiver.leftovers() == []


def test_what_a_root_file_cannot_hold_fails_the_item(receiver: Receiver) -> None:
    maybe = pa.table({"n": pa.array(range(700)), "maybe": pa.array([None, *range(699)], pa.int32())})
    tables = {"/store/a.root": nested(900), "/store/b.root": maybe, "/store/c.root": flat(10)}
    body = manifest_of(tables, "root")
    receiver.open(body)
    receiver.take(records(body, tables, 300))
    receiver.sync()
    told = receiver.last(TransferProgress)
    assert told.sealed == Ranges.of(2)
    first, second = told.failed
    assert {one.reason.failure_class for one in (first, second)} == {FailureClass.PERMANENT}
    assert "column 'pairs' has the type" in first.reason.text
    assert "ask for parquet" in first.reason.text
    assert "column 'maybe' has missing values" in second.reason.text
    assert receiver.leftovers() == []


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"selection": "entries:Events[3:"}, "the item's selection cannot be read: the range is not closed"),
        ({"selection": "objects:hist"}, "'objects:hist' means no entries"),
        ({"selection": "entries:Events[0:17]"}, "has not the item's 900 entries"),
        ({"target": Lfn("/store/a.root.0123456789ab.csv")}, "entries do not land as 'csv'"),
    ],
)
def test_an_item_that_makes_no_sense_fails_alone(receiver: Receiver, changed: dict[str, str], words: str) -> None:
    good = manifest_of(TABLES)
    bad = {key: value for key, value in changed.items() if key != "selection"}
    item = replace(good.items[0], **bad, selection=changed.get("selection", good.items[0].selection))
    body = replace(good, items=(item, good.items[1]))
    opened = receiver.open(body)
    assert isinstance(opened, PartOpened)
    (failed,) = opened.failed
    assert (failed.items, failed.reason.failure_class) == (Ranges.of(0), FailureClass.PERMANENT)
    assert words in failed.reason.text
    receiver.take(records(body, TABLES, 500))
    receiver.sync()
    assert receiver.last(TransferProgress).sealed == Ranges.of(1)


def test_an_equal_file_is_found_and_told(receiver: Receiver) -> None:
    body = manifest_of(TABLES)
    receiver.open(body)
    receiver.take(records(body, TABLES, 500))
    receiver.sync()
    landed = receiver.last(TransferProgress).landed
    again = manifest_of(TABLES)
    assert again.manifest != body.manifest
    opened = receiver.open(again)
    assert isinstance(opened, PartOpened)
    assert (opened.present, opened.landed, opened.failed) == (BOTH, landed, ())
    assert receiver.leftovers() == []


def test_different_files_are_left_as_they_are(receiver: Receiver, tmp_path: Path) -> None:
    tables = {f"/store/{n}.root": flat(50 + n) for n in range(5)}
    old = manifest_of(tables, version="6:1:1")
    receiver.open(old)
    receiver.take(records(old, tables, 500))
    receiver.sync()
    body = manifest_of(tables)
    assert [item.target for item in body.items] == [item.target for item in old.items]
    paths = [receiver.root / item.target[1:] for item in body.items]
    paths[1].write_bytes(b"anything")
    pq.write_table(flat(3), paths[2])
    paths[3].unlink()
    paths[4].write_bytes(paths[4].read_bytes()[:-20])
    before = [path.read_bytes() for path in paths if path.exists()]
    opened = receiver.open(body)
    assert isinstance(opened, PartOpened)
    assert Ranges.of(0, 1, 2, 4) == Ranges(span for one in opened.failed for span in one.items)
    for failed in opened.failed:
        assert failed.reason.failure_class is FailureClass.PERMANENT
        assert "a different file is already at the destination" in failed.reason.text
    assert "of /store/0.root (6:1:1)" in opened.failed[0].reason.text
    receiver.take(records(body, tables, 500))
    receiver.sync()
    assert receiver.last(TransferProgress).sealed == Ranges.of(3)
    paths[3].unlink()
    assert [path.read_bytes() for path in paths if path.exists()] == before


def test_a_different_file_that_comes_while_entries_do(receiver: Receiver) -> None:
    body = manifest_of(TABLES)
    receiver.open(body)
    receiver.take(records(body, TABLES, 500)[:2])
    path = receiver.root / body.items[0].target[1:]
    path.write_bytes(b"anything")
    receiver.sync()
    failed = one_failure(receiver)
    assert (failed.items, failed.reason.failure_class) == (Ranges.of(0), FailureClass.PERMANENT)
    assert "a different file is already at the destination" in failed.reason.text
    assert path.read_bytes() == b"anything"
    assert receiver.leftovers() == []


def test_two_transfers_of_the_same_entries_both_end_sealed(receiver: Receiver) -> None:
    first, second = manifest_of(TABLES), manifest_of(TABLES)
    for body in (first, second):
        receiver.open(body)
        receiver.take(records(body, TABLES, 500))
    receiver.sync()
    told = {one.manifest: one for one in receiver.told if isinstance(one, TransferProgress)}
    assert told[first.manifest].sealed == told[second.manifest].sealed == BOTH
    assert told[first.manifest].landed == told[second.manifest].landed
    arrived(receiver, first, TABLES)


@pytest.mark.parametrize("name", ["*.part", "*.final.part"])
def test_a_part_that_somebody_deletes(receiver: Receiver, name: str) -> None:
    """Without the spool the attempt is lost; what grew from it is written again."""
    body = manifest_of(TABLES)
    receiver.open(body)
    receiver.take(records(body, TABLES, 500)[:1])
    receiver.sync()
    for path in receiver.root.rglob(f".t2g-{name}"):
        if name == "*.final.part" or ".final." not in path.name:
            path.unlink()
    receiver.take(records(body, TABLES, 500)[1:])
    receiver.sync()
    if name == "*.part":
        lost = receiver.last(PartLost)
        assert (lost.attempt, lost.reason.failure_class) == (1, FailureClass.TRANSIENT)
        assert "the part file is gone" in lost.reason.text
        receiver.open(body, 2)
        receiver.take(records(body, TABLES, 500))
    receiver.sync()
    receiver.sync()
    assert receiver.last(TransferProgress).sealed == BOTH
    arrived(receiver, body, TABLES)


def test_a_spool_that_another_process_has_open(receiver: Receiver) -> None:
    """A plane that was paused past its session: the next attempt has a spool of its own."""
    body = manifest_of(TABLES)
    receiver.open(body)
    receiver.take(records(body, TABLES, 500)[:1])
    receiver.sync()
    known = receiver.last(TransferProgress).verified
    heir = Receiver(receiver.root)
    lost = heir.open(body, verified=known)
    assert isinstance(lost, PartLost)
    assert lost.reason.failure_class is FailureClass.TRANSIENT
    assert "another process is writing this part" in lost.reason.text
    heir.open(body, 2)
    heir.take(records(body, TABLES, 500))
    heir.sync()
    assert heir.last(TransferProgress).sealed == BOTH
    receiver.take(records(body, TABLES, 500)[1:])  # the paused one goes on, and finds what its heir sealed
    receiver.sync()
    assert receiver.last(TransferProgress).landed == heir.last(TransferProgress).landed
    arrived(heir, body, TABLES)


def test_a_lock_that_is_held_in_passing_is_tried_again(tmp_path: Path) -> None:
    now_s = [50.0]
    receiver = Receiver(tmp_path / "b", lambda: now_s[0])
    tables = {"/store/a.root": flat(900)}
    body = manifest_of(tables)
    receiver.open(body)
    receiver.take(records(body, tables, 500)[:1])
    (part,) = receiver.leftovers()
    receiver.half._landings[body.manifest.encode()]._held[0].part.sleep()
    with part.open("rb") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        receiver.sync()
        assert not [one for one in receiver.told if isinstance(one, TransferProgress)]
    now_s[0] += destination.RETRY_S
    receiver.half.sync(receiver.half._due()[0])
    assert receiver.last(TransferProgress).verified == Ranges([(0, 500)])


def test_a_name_that_leads_out_of_the_root_is_never_written(receiver: Receiver, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (receiver.root / "store").symlink_to(tmp_path / "out")
    body = manifest_of({"/store/a.root": flat(10)})
    opened = receiver.open(body)
    assert isinstance(opened, PartOpened)
    (failed,) = opened.failed
    assert failed.reason.failure_class is FailureClass.PERMANENT
    assert "leads out of the storage root" in failed.reason.text
    assert list((tmp_path / "out").iterdir()) == []


def test_a_directory_that_is_a_file(receiver: Receiver) -> None:
    (receiver.root / "store").mkdir()
    (receiver.root / "store/d").write_bytes(b"")
    body = manifest_of(TABLES)
    receiver.open(body)
    receiver.take(records(body, TABLES, 500))
    receiver.sync()
    told = receiver.last(TransferProgress)
    (failed,) = told.failed
    assert (failed.items, failed.reason.failure_class) == (Ranges.of(1), FailureClass.PERMANENT)
    assert failed.reason.scope is Scope.DESTINATION
    assert told.sealed == Ranges.of(0)


def test_what_a_library_stumbles_over_fails_the_item_alone(receiver: Receiver, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = ParquetFile.write

    def stumbling(self: ParquetFile, table: pa.Table) -> None:
        if table.num_columns == len(TABLES["/store/a.root"].schema):
            raise IndexError("out of something")
        whole(self, table)

    monkeypatch.setattr(ParquetFile, "write", stumbling)
    body = manifest_of(TABLES)
    receiver.open(body)
    receiver.take(records(body, TABLES, 500))
    receiver.sync()
    failed = one_failure(receiver)
    assert (failed.items, failed.reason.failure_class) == (Ranges.of(0), FailureClass.PERMANENT)
    assert "cannot be written as parquet: IndexError: out of something" in failed.reason.text
    assert receiver.last(TransferProgress).sealed == Ranges.of(1)


def test_a_spool_that_cannot_be_synced_when_it_is_closed_for_a_while(
    receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    tables = {"/store/a.root": flat(900)}
    body = manifest_of(tables)
    receiver.open(body)
    receiver.take(records(body, tables, 500)[:1])

    def broken(_: int) -> None:
        raise OSError(errno.EIO, "broken")

    with monkeypatch.context() as patched:
        patched.setattr(os, "fdatasync", broken)
        receiver.half._landings[body.manifest.encode()]._held[0].part.sleep()
    receiver.sync()
    lost = receiver.last(PartLost)
    assert "cannot sync: the disk reports an input/output error" in lost.reason.text


def test_a_site_of_bytes_never_imports_what_entries_need() -> None:
    code = "import sys; import streams.planes.host.child; print([n for n in ('pyarrow', 'uproot') if n in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env={"PYTHONPATH": str(ROOT)}, capture_output=True)
    assert done.stdout.strip() == b"[]", done.stderr


def test_a_site_without_the_libraries_says_so(receiver: Receiver, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "streams.planes.destination.entry_parts", None)
    opened = receiver.open(manifest_of(TABLES))
    assert isinstance(opened, PartOpened)
    (failed,) = opened.failed
    assert (failed.items, failed.reason.failure_class) == (BOTH, FailureClass.PERMANENT)
    assert "install transfer2go[events] there" in failed.reason.text
