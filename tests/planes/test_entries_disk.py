"""Entries on a full disk and in a directory that nobody may write: small real disks, mounted for the test."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from streams.core.ranges import Ranges
from streams.core.records import FailureClass, Scope, TransferProgress
from tests.events.landing_tables import flat, jagged
from tests.planes.entries_feed import Tables, arrived, landed, manifest_of, records
from tests.planes.feed import Receiver
from tests.storage.disks import as_nobody, tmpfs
from tests.system_tools import tool

TABLES: Tables = {"/store/a.root": flat(1_000), "/store/large.root": jagged(60_000), "/store/c.root": flat(1_000)}


@pytest.mark.parametrize(("room", "live"), [("2m", False), ("2m", True), ("5m", True)])
def test_the_item_that_does_not_fit_fails_and_the_others_go_on(tmp_path: Path, room: str, live: bool) -> None:
    """Either its spool has no room, or the final file that grows beside it."""
    with tmpfs(tmp_path / "small", f"size={room}") as disk:
        receiver = Receiver(disk)
        body = manifest_of(TABLES, "arrow")
        receiver.open(body)
        for one in records(body, TABLES, 1_000):
            receiver.take([one])
            if live:
                receiver.sync()
        receiver.sync()
        told = receiver.last(TransferProgress)
        assert told.sealed == Ranges.of(0, 2)
        (failed,) = told.failed
        assert failed.items == Ranges.of(1)
        assert (failed.reason.scope, failed.reason.failure_class) == (Scope.DESTINATION, FailureClass.QUOTA)
        assert "the disk is full" in failed.reason.text
        assert f"2,400,000 bytes are wanted on the disk of {disk}" in failed.reason.text
        assert receiver.leftovers() == []
        assert landed(receiver, body.items[2]).num_rows == 1_000
        receiver.half.leave(range(64))
        receiver.endpoint.close()


def test_a_storage_that_is_mounted_read_only(tmp_path: Path) -> None:
    with tmpfs(tmp_path / "small", "size=5m") as disk:
        receiver = Receiver(disk)
        body = manifest_of(TABLES)
        receiver.open(body)
        receiver.take(records(body, TABLES, 1_000)[:1])
        receiver.sync()
        receiver.half.leave(range(64))
        subprocess.run([tool("mount"), "-o", "remount,ro", str(disk)], check=True)
        other = manifest_of({"/store/x.root": flat(10)})
        receiver.open(other)
        receiver.take(records(other, {"/store/x.root": flat(10)}, 100))
        receiver.sync()
        (failed,) = receiver.last(TransferProgress).failed
        assert failed.reason.failure_class is FailureClass.PERMANENT
        assert "read-only" in failed.reason.text
        receiver.endpoint.close()


def test_a_directory_that_the_worker_may_not_write(tmp_path: Path) -> None:
    tables = {"/store/a.root": flat(1_000)}
    (tmp_path / "b/store").mkdir(parents=True, mode=0o555)
    receiver = Receiver(tmp_path / "b")
    body = manifest_of(tables)
    receiver.open(body)
    with as_nobody():
        receiver.take(records(body, tables, 1_000))
    receiver.sync()
    (failed,) = receiver.last(TransferProgress).failed
    assert failed.reason.failure_class is FailureClass.AUTH
    assert "permission denied" in failed.reason.text


def test_nothing_is_told_of_a_file_before_its_name_is_durable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A directory that cannot be synced: the item waits, and is told once it can."""
    receiver = Receiver(tmp_path / "b")
    tables = {"/store/a.root": flat(1_000)}
    body = manifest_of(tables)
    receiver.open(body)
    receiver.take(records(body, tables, 1_000))
    tree = receiver.endpoint.tree  # type: ignore[attr-defined]
    monkeypatch.setattr(tree, "fsync_directories", lambda paths: {path: OSError(5, "broken") for path in paths})
    receiver.sync()
    assert not [one for one in receiver.told if isinstance(one, TransferProgress) and one.sealed]
    monkeypatch.undo()
    receiver.sync()
    assert receiver.last(TransferProgress).sealed == Ranges.of(0)
    arrived(receiver, body, tables)
