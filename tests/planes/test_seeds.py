"""A whole that was not the file is a seed: a door's sums tell what of it is wrong, and only that comes again."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from streams.core.channel import DOOR, LOG
from streams.core.names import Text
from streams.core.ranges import EMPTY, Ranges
from streams.core.records import FailureClass, PartLost, Reason, Scope
from streams.core.transfer import WRONG
from streams.doors.client import DoorConnection
from streams.doors.connection import DoorFault
from streams.doors.sums import BLOCK_BYTES
from streams.planes.orders import Stop
from streams.storage.posix_part import PosixPart
from tests.planes.ends import MIB, Ends, FlippingWay
from tests.planes.feed import Sender
from tests.planes.stage import A, request_of

GONE = Reason(Scope.AGENT, FailureClass.TRANSIENT, "stop", Text("begun anew"))
HEADS = 64 * 1024
"""What a door says beside the bytes asked for: heads, and the sums of few blocks."""


@contextlib.contextmanager
def flipping(ends: Ends, at: int) -> Iterator[FlippingWay]:
    way = FlippingWay(ends.door.port, at)
    try:
        yield way
    finally:
        way.close()


def lost(ends: Ends, attempt: int = 1) -> PartLost:
    def found() -> PartLost | None:
        return next((one for one in ends.told if isinstance(one, PartLost) and one.attempt == attempt), None)

    ends.wait(found)
    answer = found()
    assert answer is not None
    return answer


def leftovers(ends: Ends) -> list[str]:
    return sorted(path.name for path in ends.root_b.rglob(".t2g-*.part"))


def adopted(ends: Ends, attempt: int) -> Ranges:
    return next(one for one in reversed(ends.progress()) if one.attempt == attempt).adopted


def missing(ends: Ends) -> Ranges:
    return Ranges([(0, ends.total)]) - ends.manifest.line.ranges_of(ends.sealed())


def test_a_bit_that_flips_on_its_way_costs_a_block(ends_of: Callable[..., Ends]) -> None:
    ends = ends_of(100 * MIB + 3)
    with flipping(ends, MIB) as way:
        ends.pulls.offered(ends.offer(1, way.port))
        assert lost(ends).reason.phase == WRONG
        (one,) = ends.failed()
        assert (one.source, one.plane, one.request_no, one.items) == (A, DOOR, 1, Ranges.of(0))
        assert (one.reason.failure_class, one.reason.phase) == (FailureClass.TRANSIENT, WRONG)
        assert [name.endswith("-1.seed.part") for name in leftovers(ends)] == [True]
        before = way.passed
        ends.open(2)
        ends.pulls.offered(ends.offer(2, way.port))
        ends.wait_whole()
        assert BLOCK_BYTES <= way.passed - before <= BLOCK_BYTES + HEADS
    told = adopted(ends, 2)
    assert told.size == ends.total - BLOCK_BYTES
    assert all(start % BLOCK_BYTES == 0 for start, _ in told)
    assert leftovers(ends) == []


def test_of_a_large_file_beside_it_what_had_come_is_adopted_too(ends_of: Callable[..., Ends]) -> None:
    ends = ends_of(16 * MIB, 1000, 40 * MIB)
    first = 16 * MIB + 1000
    ends.pulls.offered(ends.offer(1, ranges=Ranges([(first, first + 30 * MIB)])))
    ends.wait(lambda: any(one.verified.size == 30 * MIB for one in ends.progress()))
    with flipping(ends, MIB) as way:
        ends.pulls.offered(ends.offer(2, way.port, Ranges([(0, 16 * MIB)])))
        lost(ends)
        assert [one.items for one in ends.failed()] == [Ranges.of(0)]
        before = way.passed
        ends.open(2)
        ends.pulls.offered(ends.offer(3, way.port))
        ends.wait_whole()
        came = 1000 + BLOCK_BYTES + 40 * MIB - 3 * BLOCK_BYTES
        assert came <= way.passed - before <= came + HEADS
    assert adopted(ends, 2).covers(first, first + 3 * BLOCK_BYTES)
    assert leftovers(ends) == []


def test_a_copy_that_differs_by_its_own_sums_is_known_without_fetching_it_again(ends_of: Callable[..., Ends]) -> None:
    ends = ends_of(30 * MIB)
    path = next(path for path in ends.root_a.rglob("f0000"))
    spoil(path, 12 * MIB)
    ends.unversioned()
    with flipping(ends, -1) as way:
        ends.pulls.offered(ends.offer(1, way.port))
        lost(ends)
        before = way.passed
        ends.open(2)
        ends.pulls.offered(ends.offer(2, way.port))
        lost(ends, 2)
        assert way.passed - before <= HEADS
    doubted, sure = ends.failed()
    assert doubted.reason.failure_class is FailureClass.TRANSIENT
    assert (sure.source, sure.plane, sure.request_no, sure.items) == (A, DOOR, 2, Ranges.of(0))
    assert (sure.reason.failure_class, sure.reason.phase) == (FailureClass.DATA_BAD, WRONG)


def test_of_a_door_without_sums_all_comes_again(ends_of: Callable[..., Ends], monkeypatch: pytest.MonkeyPatch) -> None:
    def sums(self: DoorConnection, token: str, start: int, stop: int) -> None:
        raise DoorFault("the door answers 404", self.where, status=404)

    monkeypatch.setattr(DoorConnection, "sums", sums)
    ends = ends_of(20 * MIB)
    with flipping(ends, MIB) as way:
        ends.pulls.offered(ends.offer(1, way.port))
        lost(ends)
        before = way.passed
        ends.open(2)
        ends.pulls.offered(ends.offer(2, way.port))
        ends.wait_whole()
        assert way.passed - before >= 20 * MIB
    assert adopted(ends, 2) == EMPTY


def test_the_log_of_another_writes_over_a_seed(ends_of: Callable[..., Ends], tmp_path: Path) -> None:
    ends = ends_of(10 * MIB)
    with flipping(ends, MIB) as way:
        ends.pulls.offered(ends.offer(1, way.port))
        lost(ends)
    ends.open(2)
    sender = Sender(ends.root_a)
    try:
        for header, payload in sender.serve(request_of(ends.body, 1)):
            ends.destination.take(LOG, header.manifest.encode(), A, header, payload)
    finally:
        sender.close()
    ends.wait_whole()
    assert leftovers(ends) == []


def test_a_transfer_that_is_stopped_leaves_no_seed(ends_of: Callable[..., Ends]) -> None:
    ends = ends_of(10 * MIB)
    with flipping(ends, MIB) as way:
        ends.pulls.offered(ends.offer(1, way.port))
        why = lost(ends).reason
    assert leftovers(ends) != []
    ends.destination.stop(Stop(ends.body.manifest, 2, why, ends.framed))
    assert leftovers(ends) == []


def test_an_item_that_failed_meanwhile_leaves_no_seed(ends_of: Callable[..., Ends]) -> None:
    ends = ends_of(10 * MIB, 1000)
    with flipping(ends, MIB) as way:
        ends.pulls.offered(ends.offer(1, way.port))
        lost(ends)
    ends.open(2, failed=Ranges.of(0))
    assert leftovers(ends) == []


def test_after_a_disk_error_nothing_is_a_seed(ends_of: Callable[..., Ends], monkeypatch: pytest.MonkeyPatch) -> None:
    """What can be read may not be what the disk has."""

    def failing(part: PosixPart) -> None:
        raise OSError(5, "Input/output error")

    ends = ends_of(10 * MIB)
    monkeypatch.setattr(PosixPart, "fdatasync", failing)
    with flipping(ends, MIB) as way:
        ends.pulls.offered(ends.offer(1, way.port))
        lost(ends)
    assert leftovers(ends) == []


def test_a_plane_that_was_killed_behind_its_progress_goes_on_with_what_it_adopted(ends_of: Callable[..., Ends]) -> None:
    ends = ends_of(100 * MIB)
    with flipping(ends, MIB) as way:
        ends.pulls.offered(ends.offer(1, way.port))
        lost(ends)
        ends.open(2)
        ends.pulls.offered(ends.offer(2, way.port, Ranges([(0, 30 * MIB)])))
        ends.wait(lambda: any(one.attempt == 2 and one.verified.size >= 30 * MIB for one in ends.progress()))
        ends.restart(2, verified=Ranges([(0, 30 * MIB)]))
        ends.pulls.offered(ends.offer(3, way.port, Ranges([(30 * MIB, 100 * MIB)])))
        ends.wait_whole()


def test_a_damaged_file_is_a_seed_and_stays_until_the_whole_one_takes_its_place(ends_of: Callable[..., Ends]) -> None:
    ends = ends_of(40 * MIB, 1000)
    ends.destination.stop(Stop(ends.body.manifest, 1, GONE, ends.framed))
    damaged = ends.files["/data/f0000"][: 12 * MIB] + b"damaged" + ends.files["/data/f0000"][12 * MIB + 7 :]
    target = ends.root_b / "data/f0000"
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_bytes(damaged)
    ends.open(2)
    assert [failed.items for failed in ends.opened(2).failed] == [Ranges.of(0)], "another file is not replaced unasked"
    ends.destination.stop(Stop(ends.body.manifest, 2, GONE, ends.framed))
    ends.open(3, repair=True)
    assert ends.opened(3).failed == ()
    with flipping(ends, -1) as way:
        ends.pulls.offered(ends.offer(1, way.port))
        ends.wait_whole()
        assert BLOCK_BYTES <= way.passed <= BLOCK_BYTES + HEADS
    assert adopted(ends, 3).size == 40 * MIB - BLOCK_BYTES
    assert leftovers(ends) == []


def test_a_repair_whose_source_is_wrong_leaves_the_damaged_file(ends_of: Callable[..., Ends]) -> None:
    ends = ends_of(20 * MIB)
    ends.destination.stop(Stop(ends.body.manifest, 1, GONE, ends.framed))
    target = ends.root_b / "data/f0000"
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_bytes(b"damaged")
    ends.open(2, repair=True)
    with flipping(ends, MIB) as way:
        ends.pulls.offered(ends.offer(1, way.port))
        lost(ends, 2)
        assert target.read_bytes() == b"damaged"
        before = way.passed
        ends.open(3, repair=True)
        ends.pulls.offered(ends.offer(2, way.port))
        ends.wait_whole()
        assert way.passed - before <= BLOCK_BYTES + HEADS, "the attempt before is the better seed"
    assert leftovers(ends) == []


def spoil(path: Path, at: int) -> None:
    with path.open("r+b") as file:
        file.seek(at)
        (bit,) = file.read(1)
        file.seek(at)
        file.write(bytes([bit ^ 1]))
