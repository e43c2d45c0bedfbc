"""The destination half over a real directory, fed with what a real source half sends."""

from __future__ import annotations

import logging
import random
from dataclasses import replace
from pathlib import Path

import pytest

from streams import wire
from streams.core.names import Adler32, Lfn, Text
from streams.core.ranges import EMPTY, Ranges
from streams.core.records import (
    FailureClass,
    ManifestWritten,
    PartLost,
    PartOpened,
    Reason,
    Scope,
    TransferProgress,
)
from streams.planes.orders import Stop
from tests.planes.feed import Receiver, Record, Sender, listed
from tests.planes.stage import manifest_of, request_of

NOISE = random.Random(7)
SIZES = (0, 1, 100, 4096, 65536, 65537, 300_000)


def some_files() -> dict[str, bytes]:
    """Every awkward size, and the same base name in several directories."""
    return {f"/store/d{n}/same.root": NOISE.randbytes(size) for n, size in enumerate(SIZES)}


def spoilt(record: Record) -> Record:
    header, payload = record
    return header, payload[:-1] + bytes([payload[-1] ^ 1])


def arrived(receiver: Receiver, files: dict[str, bytes]) -> None:
    for lfn, content in files.items():
        assert receiver.bytes_of(lfn) == content
    assert receiver.leftovers() == []


def test_every_size_arrives_out_of_order_and_repeated(sender: Sender, receiver: Receiver, tmp_path: Path) -> None:
    files = some_files()
    body = listed(tmp_path / "a", files)
    opened = receiver.open(body)
    assert opened == PartOpened(body.manifest, 1, "default", EMPTY)
    records = sender.serve(request_of(body)) * 2
    NOISE.shuffle(records)
    for at, record in enumerate(records):
        receiver.take([record])
        if at % 3 == 0:
            receiver.sync()
    receiver.sync()
    told = receiver.last(TransferProgress)
    assert told.sealed == Ranges([(0, len(files))])
    assert told.verified == Ranges([(0, sum(SIZES))])
    assert not told.failed
    arrived(receiver, files)


def test_empty_files_need_no_bytes(receiver: Receiver, tmp_path: Path) -> None:
    files = {"/store/empty/a": b"", "/store/empty/b": b""}
    body = listed(tmp_path / "a", files)
    receiver.open(body)
    receiver.sync()
    assert receiver.last(TransferProgress).sealed == Ranges([(0, 2)])
    arrived(receiver, files)


def test_nothing_is_told_before_a_sync(sender: Sender, receiver: Receiver, tmp_path: Path) -> None:
    body = listed(tmp_path / "a", {"/store/x": NOISE.randbytes(200_000)})
    receiver.open(body)
    receiver.take(sender.serve(request_of(body)))
    assert not [one for one in receiver.told if isinstance(one, TransferProgress)]
    assert not (receiver.root / "store/x").exists()


def test_a_corrupted_chunk_is_dropped_said_once_and_taken_when_it_comes_again(
    sender: Sender, receiver: Receiver, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    files = {"/store/x": NOISE.randbytes(300_000)}
    body = listed(tmp_path / "a", files)
    receiver.open(body)
    records = sender.serve(request_of(body))
    with caplog.at_level(logging.WARNING, "streams.planes"):
        receiver.take([spoilt(records[1]), *records[2:], spoilt(records[0])])
    assert len([one for one in caplog.records if "is refused" in one.message]) == 1
    receiver.sync()
    told = receiver.last(TransferProgress)
    assert told.verified == Ranges([(2 * 65536, 300_000)])
    assert not told.sealed
    assert not told.failed
    receiver.take(sender.serve(request_of(body, 2, Ranges([(0, 2 * 65536)]))))
    receiver.sync()
    assert receiver.last(TransferProgress).sealed == Ranges.of(0)
    arrived(receiver, files)


def test_segments_that_do_not_fit_the_manifest_are_refused(sender: Sender, receiver: Receiver, tmp_path: Path) -> None:
    body = listed(tmp_path / "a", {"/store/x": b"x" * 1000})
    receiver.open(body)
    ((header, payload),) = sender.serve(request_of(body))
    (segment,) = header.segments
    for wrong in (replace(segment, item=1), replace(segment, offset=1), replace(segment, length=999)):
        receiver.take([(replace(header, segments=(wrong,)), payload)])
    receiver.sync()
    assert not [one for one in receiver.told if isinstance(one, TransferProgress)]


def test_what_was_told_and_is_asked_for_again_is_told_again(sender: Sender, receiver: Receiver, tmp_path: Path) -> None:
    body = listed(tmp_path / "a", {"/store/x": NOISE.randbytes(100_000), "/store/y": NOISE.randbytes(100)})
    receiver.open(body)
    records = sender.serve(request_of(body))
    receiver.take(records)
    receiver.sync()
    first = receiver.last(TransferProgress)
    receiver.told.clear()
    receiver.sync()
    assert receiver.told == []
    receiver.take(records[-1:])
    receiver.sync()
    assert receiver.told == [first]
    receiver.told.clear()
    assert receiver.open(body) == PartOpened(body.manifest, 1, "default", EMPTY)
    receiver.sync()
    assert receiver.told[1:] == [first]


def test_a_file_that_is_there_needs_no_bytes_and_a_different_one_fails(
    sender: Sender, receiver: Receiver, tmp_path: Path
) -> None:
    files = {f"/store/p/{n}": NOISE.randbytes(5000) for n in range(3)}
    body = listed(tmp_path / "a", files)
    for lfn, content in (("/store/p/0", files["/store/p/0"]), ("/store/p/2", b"something else")):
        path = receiver.root / lfn[1:]
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    opened = receiver.open(body)
    assert isinstance(opened, PartOpened)
    assert opened.present == Ranges.of(0)
    (failed,) = opened.failed
    assert failed.items == Ranges.of(2)
    assert failed.reason.failure_class is FailureClass.PERMANENT
    assert "a different file is already at the destination" in failed.reason.text
    receiver.take(sender.serve(request_of(body)))
    receiver.sync()
    told = receiver.last(TransferProgress)
    assert told.sealed == Ranges([(0, 2)])
    assert told.failed == opened.failed
    assert receiver.bytes_of("/store/p/2") == b"something else"
    assert receiver.leftovers() == []


def with_wrong_adler(body: ManifestWritten) -> ManifestWritten:
    return replace(body, items=(replace(body.items[0], adler32=Adler32("00000001")), *body.items[1:]))


def test_a_wrong_checksum_fails_the_item_and_not_its_neighbour(
    sender: Sender, receiver: Receiver, tmp_path: Path
) -> None:
    files = {"/store/bad": NOISE.randbytes(10_000), "/store/good": NOISE.randbytes(10_000)}
    body = with_wrong_adler(listed(tmp_path / "a", files))
    receiver.open(body)
    receiver.take(sender.serve(request_of(body)))
    receiver.sync()
    told = receiver.last(TransferProgress)
    assert told.sealed == Ranges.of(1)
    (failed,) = told.failed
    assert failed.items == Ranges.of(0)
    assert failed.reason.failure_class is FailureClass.DATA_BAD
    assert "checksum differs: expected 00000001, file has " in failed.reason.text
    assert not (receiver.root / "store/bad").exists()
    assert receiver.leftovers() == []


def test_a_successor_resumes_from_what_was_told(sender: Sender, receiver: Receiver, tmp_path: Path) -> None:
    files = {"/store/r/big": NOISE.randbytes(300_000), "/store/r/small": NOISE.randbytes(10)}
    body = listed(tmp_path / "a", files)
    receiver.open(body)
    records = sender.serve(request_of(body))
    receiver.take(records[1:3])
    receiver.sync()
    told = receiver.last(TransferProgress)
    receiver.take(records[3:4])  # written, never synced: the successor must not trust it
    heir = receiver.crash()
    assert heir.open(body, verified=told.verified) == PartOpened(body.manifest, 1, "default", EMPTY)
    heir.take([records[0], *records[3:]])
    heir.sync()
    assert heir.last(TransferProgress).sealed == Ranges([(0, 2)])
    arrived(heir, files)


def test_a_successor_seals_what_was_verified_and_finds_what_was_sealed(
    sender: Sender, receiver: Receiver, tmp_path: Path
) -> None:
    files = {"/store/r/one": NOISE.randbytes(70_000), "/store/r/two": NOISE.randbytes(70_000)}
    body = listed(tmp_path / "a", files)
    receiver.open(body)
    records = sender.serve(request_of(body))
    landing = next(iter(receiver.half._landings.values()))
    receiver.take(records)
    receiver.endpoint.seal_group([landing._held[0].part])  # killed after the first seal, before it could be told
    receiver.endpoint.sync_group([landing._held[1].part])
    heir = receiver.crash()
    opened = heir.open(body, verified=Ranges([(0, 140_000)]))
    assert isinstance(opened, PartOpened)
    assert opened.present == Ranges.of(0)
    heir.sync()
    assert heir.last(TransferProgress).sealed == Ranges([(0, 2)])
    arrived(heir, files)


def test_a_lost_part_is_said_and_the_next_attempt_starts_anew(
    sender: Sender, receiver: Receiver, tmp_path: Path
) -> None:
    files = {"/store/l/x": NOISE.randbytes(200_000)}
    body = listed(tmp_path / "a", files)
    receiver.open(body)
    records = sender.serve(request_of(body))
    receiver.take(records[:2])
    receiver.sync()
    told = receiver.last(TransferProgress)
    for part in receiver.leftovers():
        part.unlink()
    heir = receiver.crash()
    lost = heir.open(body, verified=told.verified)
    assert isinstance(lost, PartLost)
    assert lost.attempt == 1
    assert "gone" in lost.reason.text
    heir.open(body, 2)
    heir.take(records)
    heir.sync()
    assert heir.last(TransferProgress).attempt == 2
    arrived(heir, files)


def test_a_part_that_vanishes_while_written_loses_the_attempt(
    sender: Sender, receiver: Receiver, tmp_path: Path
) -> None:
    body = listed(tmp_path / "a", {"/store/v/x": NOISE.randbytes(200_000)})
    receiver.open(body)
    records = sender.serve(request_of(body))
    receiver.take(records[:1])
    for part in receiver.leftovers():
        part.unlink()
    receiver.take(records[1:])
    receiver.sync()
    lost = receiver.last(PartLost)
    assert lost.attempt == 1
    assert not receiver.half.is_open(body.manifest.encode())


def test_an_older_attempt_is_ignored_and_its_parts_are_cleaned_up(
    sender: Sender, receiver: Receiver, tmp_path: Path
) -> None:
    files = {"/store/o/x": NOISE.randbytes(200_000)}
    body = listed(tmp_path / "a", files)
    receiver.open(body)
    records = sender.serve(request_of(body))
    receiver.take(records[:1])
    receiver.open(body, 2)
    assert receiver.leftovers() == []
    receiver.order(body, 1)
    receiver.take(records)
    receiver.sync()
    assert receiver.last(TransferProgress).attempt == 2
    arrived(receiver, files)


def test_stop_deletes_the_parts_and_passes_its_reason_on(sender: Sender, receiver: Receiver, tmp_path: Path) -> None:
    body = listed(tmp_path / "a", {"/store/s/x": NOISE.randbytes(200_000), "/store/s/y": b"y" * 100})
    receiver.open(body)
    records = sender.serve(request_of(body))
    receiver.take(records[:1])
    why = Reason(Scope.POLICY, FailureClass.PERMANENT, "stop", Text("cancelled by somebody"))
    receiver.half.stop(Stop(body.manifest, 1, why))
    assert receiver.told[-1] == PartLost(body.manifest, 1, why)
    assert receiver.leftovers() == []
    receiver.take(records)
    receiver.sync()
    assert receiver.told[-1] == PartLost(body.manifest, 1, why)
    assert not (receiver.root / "store/s/y").exists()
    receiver.half.stop(Stop(body.manifest, 1, why))  # asked again: answered again
    assert len([one for one in receiver.told if isinstance(one, PartLost)]) == 2


def test_stop_deletes_what_a_killed_plane_left(sender: Sender, receiver: Receiver, tmp_path: Path) -> None:
    body = listed(tmp_path / "a", {"/store/s/x": NOISE.randbytes(200_000)})
    receiver.open(body)
    receiver.take(sender.serve(request_of(body))[:1])
    heir = receiver.crash()
    why = Reason(Scope.POLICY, FailureClass.PERMANENT, "stop", Text("cancelled by somebody"))
    heir.half.stop(Stop(body.manifest, 1, why, wire.encode(body)))
    assert heir.told == [PartLost(body.manifest, 1, why)]
    assert heir.leftovers() == []


def test_a_partition_that_goes_away_leaves_its_parts_to_the_next_owner(
    sender: Sender, receiver: Receiver, tmp_path: Path
) -> None:
    files = {"/store/k/x": NOISE.randbytes(200_000)}
    body = listed(tmp_path / "a", files)
    receiver.open(body)
    records = sender.serve(request_of(body))
    receiver.take(records[:2])
    receiver.sync()
    told = receiver.last(TransferProgress)
    receiver.half.leave(range(64))
    assert not receiver.half.is_open(body.manifest.encode())
    assert len(receiver.leftovers()) == 1
    other = receiver.crash()
    other.open(body, verified=told.verified)
    other.take(records[2:])
    other.sync()
    arrived(other, files)


def test_an_open_that_knows_more_of_the_disk_is_believed(sender: Sender, receiver: Receiver, tmp_path: Path) -> None:
    files = {"/store/m/x": NOISE.randbytes(200_000)}
    body = listed(tmp_path / "a", files)
    receiver.open(body)
    records = sender.serve(request_of(body))
    other = receiver.crash()
    other.open(body)
    other.take(records[:2])
    other.sync()
    receiver.open(body, verified=other.last(TransferProgress).verified)
    receiver.take(records[2:])
    receiver.sync()
    assert receiver.last(TransferProgress).sealed == Ranges.of(0)
    arrived(receiver, files)


def test_hundreds_of_different_failures_fit_one_record(receiver: Receiver, tmp_path: Path) -> None:
    files = {f"/store/{'long' * 40}/{n}": b"x" for n in range(1000)}
    body = listed(tmp_path / "a", files)
    for n in range(1000):
        path = receiver.root / f"store/{'long' * 40}/{n}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"y")
    opened = receiver.open(body)
    assert isinstance(opened, PartOpened)
    assert sum(one.items.size for one in opened.failed) == 1000
    assert "several reasons" in opened.failed[-1].reason.text


def test_items_of_the_row_that_ended_are_left_alone(sender: Sender, receiver: Receiver, tmp_path: Path) -> None:
    files = {f"/store/e/{n}": NOISE.randbytes(100) for n in range(3)}
    body = listed(tmp_path / "a", files)
    receiver.open(body, failed=Ranges.of(1))
    receiver.take(sender.serve(request_of(body)))
    receiver.sync()
    assert receiver.last(TransferProgress).sealed == Ranges.of(0, 2)
    assert not (receiver.root / "store/e/1").exists()


def test_two_transfers_of_the_same_file_both_end_sealed(sender: Sender, receiver: Receiver, tmp_path: Path) -> None:
    files = {"/store/t/x": NOISE.randbytes(100_000)}
    first = listed(tmp_path / "a", files)
    second = manifest_of(tmp_path / "a", files)
    receiver.open(first)
    receiver.open(second)
    for body in (first, second):
        receiver.take(sender.serve(request_of(body)))
    receiver.sync()
    told = {one.manifest: one for one in receiver.told if isinstance(one, TransferProgress)}
    assert told[first.manifest].sealed == told[second.manifest].sealed == Ranges.of(0)
    arrived(receiver, files)


def test_a_name_that_leads_out_of_the_root_is_never_written(receiver: Receiver, tmp_path: Path) -> None:
    (receiver.root / "store").symlink_to(tmp_path)
    body = listed(tmp_path / "a", {"/store/out": b"x"})
    assert Lfn("/store/out") == body.items[0].target
    opened = receiver.open(body)
    assert isinstance(opened, PartOpened)
    (failed,) = opened.failed
    assert failed.reason.failure_class is FailureClass.PERMANENT
    assert not (tmp_path / "out").exists()
