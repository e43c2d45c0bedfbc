"""A source that cannot read for now says so in the payload's place, and the destination's plane makes it a fact."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from streams import wire
from streams.core.manifest import Manifest
from streams.core.names import Destination, ManifestId, Text
from streams.core.ranges import EMPTY, Ranges
from streams.core.records import (
    ChunkHeader,
    ChunksRequested,
    FailureClass,
    ManifestWritten,
    PartLost,
    Reason,
    RequestedItem,
    Scope,
    Segment,
    SourceFailed,
    TransferProgress,
)
from streams.core.transfer import TransferRow, fold
from streams.errors import StorageError
from streams.planes.destination.unread import REQUESTS_MAX, UnreadAnswers
from streams.planes.orders import Stop
from streams.planes.source.byte_reader import FileBytes
from streams.planes.source.server import ReadPiece
from streams.storage.checksums import crc32c
from streams.storage.endpoint import Endpoint
from tests.planes.feed import Receiver, Sender, listed
from tests.planes.stage import A, B, request_of

NOISE = random.Random(3)
PAYLOAD = 64 * 1024
AWAY = Reason(Scope.SOURCE, FailureClass.TRANSIENT, "read", Text("the store is away"))


class Moody(FileBytes):
    """Cannot read now what `fault` names an error of."""

    def __init__(self, endpoint: Endpoint) -> None:
        super().__init__(endpoint)
        self.fault: Callable[[RequestedItem], Exception | None] = lambda item: None
        self.tried: list[int] = []

    def take(
        self, request: ChunksRequested, item: RequestedItem, offset: int, length: int, room_bytes: int
    ) -> ReadPiece:
        self.tried.append(item.no)
        fault = self.fault(item)
        if fault is not None:
            raise fault
        return super().take(request, item, offset, length, room_bytes)


@pytest.fixture
def sender(tmp_path: Path) -> Iterator[Sender]:
    one = Sender(tmp_path / "a", PAYLOAD, Moody)
    yield one
    one.close()


def moody(sender: Sender, *unread: int, error: Callable[[], Exception] = lambda: StorageError("hung", "/x")) -> Moody:
    supply = sender.source._supply
    assert isinstance(supply, Moody)
    supply.fault = lambda item: error() if item.no in unread else None
    return supply


def ten(root: Path, size: int = 100) -> tuple[ManifestWritten, dict[str, bytes]]:
    files = {f"/store/u/{n}": NOISE.randbytes(size) for n in range(10)}
    return listed(root / "a", files), files


# the source


@pytest.mark.parametrize(
    ("error", "words"),
    [(lambda: StorageError("hung", "/x"), "hung"), (lambda: ValueError("a defect"), "ValueError: a defect")],
)
def test_what_cannot_be_read_now_is_said_in_its_place(
    sender: Sender, tmp_path: Path, error: Callable[[], Exception], words: str
) -> None:
    body, files = ten(tmp_path)
    supply = moody(sender, 3, error=error)
    asked = Ranges([(0, 320), (350, 360), (380, 1000)])  # of item 3 three ranges: it is tried once
    records = sender.serve(request_of(body, 1, asked))
    unread = [segment for header, _ in records for segment in header.segments if segment.reason]
    assert [(s.item, s.offset, s.length, s.size, s.crc32c) for s in unread] == [
        (3, 0, 20, 0, None),
        (3, 50, 10, 0, None),
        (3, 80, 20, 0, None),
    ]
    reason = unread[0].reason
    assert reason is not None
    assert (reason.scope, reason.failure_class) == (Scope.SOURCE, FailureClass.TRANSIENT)
    assert words in reason.text
    assert supply.tried == [0, 1, 2, 3, *range(4, 10)]
    assert b"".join(payload for _, payload in records) == b"".join(c for n, c in enumerate(files.values()) if n != 3)
    assert [header.last for header, _ in records] == [False] * (len(records) - 1) + [True]
    (served,) = sender.served()
    assert (served.ranges, served.bytes) == (Ranges([(0, 300), (400, 1000)]), 900)


def test_a_request_of_which_nothing_can_be_read_now_is_answered(sender: Sender, tmp_path: Path) -> None:
    body, _ = ten(tmp_path)
    moody(sender, *range(10))
    ((header, payload),) = sender.serve(request_of(body))
    assert header.last
    assert payload == b""
    (served,) = sender.served()
    assert (served.ranges, served.bytes) == (EMPTY, 0)


# the destination


def failures(receiver: Receiver) -> list[SourceFailed]:
    found = [one for one in receiver.told if isinstance(one, SourceFailed)]
    receiver.told[:] = [one for one in receiver.told if not isinstance(one, SourceFailed)]
    return found


def test_items_that_cannot_be_read_now_are_no_failure_and_come_later(
    sender: Sender, receiver: Receiver, tmp_path: Path
) -> None:
    body, files = ten(tmp_path)
    receiver.open(body)
    moody(sender, 3, 7)
    records = sender.serve(request_of(body))
    receiver.take(records)
    receiver.sync()
    told = receiver.last(TransferProgress)
    assert told.sealed == Ranges.of(*(n for n in range(10) if n not in (3, 7)))
    assert not told.failed
    (said,) = failures(receiver)
    assert (said.manifest, said.source, said.request_no, said.plane) == (body.manifest, A, 1, "log")
    assert said.items == Ranges.of(3, 7)
    assert "hung" in said.reason.text
    assert said.at_ms > 1_700_000_000_000

    receiver.take(records)  # the log is read again
    assert failures(receiver) == []
    moody(sender)
    receiver.take(sender.serve(request_of(body, 2, Ranges([(300, 400), (700, 800)]))))
    receiver.sync()
    assert receiver.last(TransferProgress).sealed == Ranges([(0, 10)])
    for lfn, content in files.items():
        assert receiver.bytes_of(lfn) == content
    receiver.take(records)
    assert failures(receiver) == [], "these items are here now"


def test_a_request_that_brings_nothing_is_over(sender: Sender, receiver: Receiver, tmp_path: Path) -> None:
    body, _ = ten(tmp_path)
    receiver.open(body)
    moody(sender, *range(10))
    records = sender.serve(request_of(body, 5, Ranges([(200, 500)])))
    receiver.take(records)
    items, over = failures(receiver)
    assert items.items == Ranges([(2, 5)])
    assert (over.items, over.request_no, over.reason) == (EMPTY, 5, items.reason)
    receiver.take(records)
    assert failures(receiver) == []
    receiver.sync()
    assert not [one for one in receiver.told if isinstance(one, TransferProgress) and one.failed]


def test_the_row_may_ask_again_and_is_not_asked_for_what_came(
    sender: Sender, receiver: Receiver, tmp_path: Path
) -> None:
    """What is said ends just the number, whose good part is told by progress."""
    body, _ = ten(tmp_path)
    manifest = Manifest(body)
    receiver.open(body)
    moody(sender, 3)
    request = request_of(body)
    row = fold(TransferRow(body.manifest, planned=True, items=10, total=1000), request, manifest)
    receiver.take(sender.serve(request))
    receiver.sync()
    for one in receiver.told:
        assert isinstance(one, SourceFailed | TransferProgress) or one == receiver.told[0]
        row = fold(row, one, manifest)  # type: ignore[arg-type]
    (source,) = row.sources
    assert source.outstanding == ()
    assert [unread.items for unread in source.unread] == [Ranges.of(3)]
    assert row.sealed == Ranges([(0, 3), (4, 10)])


def test_hundreds_of_items_are_told_together(sender: Sender, receiver: Receiver, tmp_path: Path) -> None:
    files = {f"/store/{'deep' * 40}/{n}": b"x" for n in range(600)}
    body = listed(tmp_path / "a", files)
    receiver.open(body)
    moody(sender, *range(100, 600))
    records = sender.serve(request_of(body))
    assert len(records) > 3
    receiver.take(records)
    (said,) = failures(receiver)
    assert said.items == Ranges([(100, 600)])


def test_reasons_for_good_fail_the_item_as_ever(sender: Sender, receiver: Receiver, tmp_path: Path) -> None:
    body, _ = ten(tmp_path)
    receiver.open(body)
    for n, kind in enumerate(("permanent", "data-bad", "auth", "quota")):
        moody(sender, n, error=lambda kind=kind: StorageError("no", "/x", failure_class=kind))  # type: ignore[misc]
        receiver.take(sender.serve(request_of(body, n + 1, Ranges([(100 * n, 100 * n + 100)]))))
    receiver.sync()
    told = receiver.last(TransferProgress)
    assert {one.reason.failure_class for one in told.failed} == {*FailureClass} - {FailureClass.TRANSIENT}
    assert failures(receiver) == []


def test_what_is_for_a_consumer_or_not_open_is_not_said(sender: Sender, receiver: Receiver, tmp_path: Path) -> None:
    body, _ = ten(tmp_path)
    receiver.open(body)
    moody(sender, *range(10))
    records = sender.serve(request_of(body))
    theirs = Destination(f"{B}/reader")
    receiver.take((replace(header, destination=theirs), payload) for header, payload in records)
    why = Reason(Scope.POLICY, FailureClass.PERMANENT, "stop", Text("cancelled"))
    receiver.half.stop(Stop(body.manifest, 1, why))
    receiver.take(records)
    assert [type(one) for one in receiver.told[1:]] == [PartLost]


# when it is said


def header_of(*segments: tuple[int, bool], no: int = 1, last: bool = False) -> ChunkHeader:
    """Segments of ten bytes: (item, whether it came)."""
    made = tuple(
        Segment(item, 0, 10, 10, crc32c(b"x" * 10)) if came else Segment(item, 0, 10, 0, None, AWAY)
        for item, came in segments
    )
    start = segments[0][0] * 10
    manifest = ManifestId("T1_A.00000000-0000-0000-0000-000000000000.0.0")
    header = ChunkHeader(manifest, B, no, start, start + 10 * len(segments), made, last)
    wire.encode(header)
    return header


def heard(
    unread: UnreadAnswers, *segments: tuple[int, bool], no: int = 1, last: bool = False
) -> list[tuple[int, Ranges]]:
    header = header_of(*segments, no=no, last=last)
    said = unread.heard(A, header, {item: AWAY for item, came in segments if not came})
    return [(one.request_no, one.items) for one in said]


def test_items_are_said_when_the_run_of_them_ends() -> None:
    unread = UnreadAnswers()
    assert heard(unread, (0, False), (1, False)) == []
    assert heard(unread, (2, False)) == []
    assert heard(unread, (3, True)) == [(1, Ranges([(0, 3)]))]
    assert heard(unread, (4, False), (5, True)) == []
    assert heard(unread, (6, True), last=True) == [(1, Ranges.of(4))]


def test_requests_are_kept_apart_and_only_a_few_are_remembered() -> None:
    unread = UnreadAnswers()
    assert heard(unread, (0, False), no=1) == []
    assert heard(unread, (5, True), no=2, last=True) == []
    assert heard(unread, (1, False), no=1, last=True) == [(1, Ranges([(0, 2)])), (1, EMPTY)]
    for no in range(3, 3 * REQUESTS_MAX):
        heard(unread, (0, False), no=no)
    assert len(unread._requests) == REQUESTS_MAX


def test_many_reasons_become_one() -> None:
    unread = UnreadAnswers()
    reasons = {n: replace(AWAY, text=Text(f"item {n} hangs")) for n in range(3)}
    header = header_of((0, False), (1, False), (2, False), last=True)
    items, over = unread.heard(A, header, reasons)
    assert items.reason.text == "of 3 items, among others: item 0 hangs"
    assert over.items == EMPTY
