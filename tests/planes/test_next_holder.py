"""What one holder cannot give, or gives wrong, the destination's plane says of that holder: others have it too."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path

import pytest

from streams.core.channel import DOOR, LOG, Giver
from streams.core.manifest import Manifest
from streams.core.names import Site, Text
from streams.core.ranges import EMPTY, Ranges
from streams.core.records import (
    FailedItems,
    FailureClass,
    ManifestWritten,
    Message,
    PartLost,
    PartOpened,
    Reason,
    Scope,
    SourceFailed,
    TransferProgress,
)
from streams.core.transfer import WRONG, TransferRow, fold
from streams.planes.destination.landing import Landing, Lent
from streams.planes.orders import Fail
from tests.planes.feed import Receiver, Sender, listed
from tests.planes.stage import A, request_of

NOISE = random.Random(9)
D, E = Site("T3_D"), Site("T3_E")
FILES = {f"/store/f{n}": NOISE.randbytes(10_000) for n in range(3)}
GONE = Reason(Scope.SOURCE, FailureClass.PERMANENT, "read", Text("no such file"))


def shared(body: ManifestWritten, *numbers: int) -> ManifestWritten:
    """The same, where D and E have these items, too."""
    items = tuple(replace(item, others=(D, E)) if n in numbers else item for n, item in enumerate(body.items))
    return replace(body, items=items)


def said(receiver: Receiver, since: int = 0) -> list[Message]:
    return [one for one in receiver.told[since:] if isinstance(one, SourceFailed | PartLost)]


def row_of(receiver: Receiver, body: ManifestWritten) -> TransferRow:
    """What a worker folds of what was told."""
    row = None
    for one in receiver.told:
        row = fold(row, one, Manifest(body).index)  # type: ignore[arg-type]
    assert row is not None
    return row


def test_what_a_source_will_never_give_fails_only_where_nobody_else_has_it(
    sender: Sender, receiver: Receiver, tmp_path: Path
) -> None:
    body = shared(listed(tmp_path / "a", FILES), 0)
    for n in (0, 2):
        (tmp_path / f"a/store/f{n}").unlink()
    receiver.open(body)
    records = sender.serve(request_of(body))
    receiver.take(records)
    receiver.take(records)
    receiver.sync()
    (one,) = said(receiver)
    assert isinstance(one, SourceFailed)
    assert (one.source, one.plane, one.request_no, one.items) == (A, LOG, 1, Ranges.of(0))
    assert one.reason.failure_class is FailureClass.PERMANENT
    told = receiver.last(TransferProgress)
    assert (told.sealed, [failed.items for failed in told.failed]) == (Ranges.of(1), [Ranges.of(2)])
    # The same of another request is told again: the first word may have been lost.
    receiver.take(sender.serve(request_of(body, 2)))
    assert len(said(receiver)) == 2
    row = row_of(receiver, body)
    assert row.source_row(A).bad_items == Ranges.of(0)
    assert row.failed_items == Ranges.of(2)


def test_the_next_holder_brings_it(sender: Sender, receiver: Receiver, tmp_path: Path) -> None:
    body = shared(listed(tmp_path / "a", FILES), 0, 1, 2)
    (tmp_path / "a/store/f0").rename(tmp_path / "away")
    receiver.open(body)
    receiver.take(sender.serve(request_of(body)))
    (tmp_path / "away").rename(tmp_path / "a/store/f0")
    receiver.take(sender.serve(request_of(body, 2)), source=D)
    receiver.sync()
    assert receiver.last(TransferProgress).sealed == Ranges.of(0, 1, 2)
    assert receiver.bytes_of("/store/f0") == FILES["/store/f0"]


def test_a_door_says_it_alike(receiver: Receiver, tmp_path: Path) -> None:
    body = shared(listed(tmp_path / "a", FILES), 0)
    receiver.open(body)
    receiver.half.source_failed(DOOR, body.manifest.encode(), A, 7, Ranges.of(0, 1), GONE)
    receiver.sync()
    (one,) = said(receiver)
    assert isinstance(one, SourceFailed)
    assert one == SourceFailed(body.manifest, A, 7, DOOR, Ranges.of(0), GONE, one.at_ms)
    assert receiver.last(TransferProgress).failed == (FailedItems(Ranges.of(1), GONE),)


def test_what_no_holder_will_give_fails_when_the_worker_says_so(receiver: Receiver, tmp_path: Path) -> None:
    body = shared(listed(tmp_path / "a", FILES), 0, 1)
    receiver.half.fail(Fail(body.manifest, (FailedItems(Ranges.of(0), GONE),)))
    assert receiver.told == [], "it is not open, and owed again"
    receiver.open(body)
    receiver.half.fail(Fail(body.manifest, (FailedItems(Ranges.of(0), GONE),)))
    receiver.sync()
    assert receiver.last(TransferProgress).failed == (FailedItems(Ranges.of(0), GONE),)


def test_who_alone_gave_a_file_that_is_not_the_file_is_blamed_and_all_of_a_round_at_once(
    sender: Sender, receiver: Receiver, tmp_path: Path
) -> None:
    body = shared(listed(tmp_path / "a", FILES), 0, 1, 2)
    spoil(tmp_path / "a/store/f0")
    spoil(tmp_path / "a/store/f1")
    receiver.open(body)
    receiver.take(sender.serve(request_of(unversioned(body))))
    receiver.sync()
    one, lost = said(receiver)
    assert isinstance(one, SourceFailed)
    assert isinstance(lost, PartLost)
    assert (one.source, one.items, one.reason.failure_class) == (A, Ranges.of(0, 1), FailureClass.DATA_BAD)
    assert "checksum differs" in one.reason.text
    assert receiver.bytes_of("/store/f2") == FILES["/store/f2"], "what was right is kept"
    row = row_of(receiver, body)
    assert row.source_row(A).bad_items == Ranges.of(0, 1)
    assert (row.live_attempt, row.verified, row.sealed) == (2, EMPTY, Ranges.of(2))
    # The next attempt has it from another.
    for lfn, content in FILES.items():
        (tmp_path / f"a{lfn}").write_bytes(content)
    again = receiver.open(body, 2, sealed=Ranges.of(2))
    assert isinstance(again, PartOpened)
    receiver.take(sender.serve(request_of(unversioned(body), 2)), source=D)
    receiver.sync()
    assert receiver.last(TransferProgress).sealed == Ranges.of(0, 1, 2)
    assert receiver.leftovers() == []


def test_of_several_givers_each_is_passed_by_for_a_while_and_nobody_for_good(
    receiver: Receiver, tmp_path: Path
) -> None:
    body = shared(listed(tmp_path / "a", FILES), 0, 1, 2)
    key, content = body.manifest.encode(), FILES["/store/f0"]
    receiver.open(body)
    receiver.half.take_line(key, Giver(A, DOOR, 3), 0, memoryview(content)[:5_000])
    receiver.half.take_line(key, Giver(E, LOG, 4), 5_000, memoryview(bytes(5_000)))
    receiver.sync()
    first, second, lost = said(receiver)
    assert isinstance(first, SourceFailed)
    assert isinstance(second, SourceFailed)
    assert (first.source, first.plane, first.request_no, first.items) == (A, DOOR, 3, Ranges.of(0))
    assert (second.source, second.plane, second.request_no, second.items) == (E, LOG, 4, Ranges.of(0))
    assert {one.reason.failure_class for one in (first, second)} == {FailureClass.TRANSIENT}
    assert isinstance(lost, PartLost)


def test_who_gives_again_what_is_here_already_is_not_blamed(receiver: Receiver, tmp_path: Path) -> None:
    """Nothing of it was taken: were both blamed, the one whose copy is right would rest."""
    body = shared(listed(tmp_path / "a", FILES), 0, 1, 2)
    key = body.manifest.encode()
    receiver.open(body)
    receiver.half.take_line(key, Giver(A, DOOR, 3), 0, memoryview(bytes(10_000)))
    receiver.half.take_line(key, Giver(D, DOOR, 4), 0, memoryview(FILES["/store/f0"]))
    receiver.sync()
    one, lost = said(receiver)
    assert isinstance(one, SourceFailed)
    assert (one.source, one.request_no, one.items) == (A, 3, Ranges.of(0))
    assert isinstance(lost, PartLost)


def test_what_became_whole_meanwhile_is_sealed_before_the_attempt_ends(
    receiver: Receiver, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    body = listed(tmp_path / "a", FILES)
    key, giver, rounds = body.manifest.encode(), Giver(A, DOOR, 3), list[int]()
    receiver.open(body)
    receiver.half.take_line(key, giver, 0, memoryview(bytes(10_000)))
    real = receiver.half._make_durable

    def slow(landings: list[Landing], lent: list[Lent]) -> None:
        if not rounds:
            receiver.half.take_line(key, giver, 10_000, memoryview(FILES["/store/f1"] + FILES["/store/f2"][:500]))
        rounds.append(1)
        real(landings, lent)

    monkeypatch.setattr(receiver.half, "_make_durable", slow)
    receiver.sync()
    assert receiver.last(TransferProgress).sealed == Ranges.of(1)
    assert receiver.last(PartLost).attempt == 1
    (seed,) = receiver.leftovers()
    assert seed.name.endswith("-1.seed.part"), "of what was wrong; what had begun is small, and comes again"


def test_what_a_door_gave_wrong_is_doubted_where_nobody_else_has_it_too(receiver: Receiver, tmp_path: Path) -> None:
    """No piece of it was checked on its way; by log it is, and then its source is sure to be wrong."""
    body = listed(tmp_path / "a", FILES)
    key = body.manifest.encode()
    receiver.open(body)
    receiver.half.take_line(key, Giver(A, DOOR, 3), 0, memoryview(bytes(10_000)))
    receiver.sync()
    one, lost = said(receiver)
    assert isinstance(one, SourceFailed)
    assert (one.items, one.reason.failure_class, one.reason.phase) == (Ranges.of(0), FailureClass.TRANSIENT, WRONG)
    assert isinstance(lost, PartLost)
    assert row_of(receiver, body).source_row(A).doubted == Ranges.of(0)


def test_nobody_is_blamed_for_what_an_earlier_process_took(sender: Sender, receiver: Receiver, tmp_path: Path) -> None:
    body = shared(listed(tmp_path / "a", FILES), 0, 1, 2)
    key = body.manifest.encode()
    receiver.open(body)
    receiver.half.take_line(key, Giver(D, DOOR, 1), 0, memoryview(bytes(4_000)))
    receiver.sync()
    later = receiver.crash()
    later.open(body, 1, verified=Ranges([(0, 4_000)]))
    later.half.take_line(key, Giver(A, DOOR, 1), 4_000, memoryview(FILES["/store/f0"])[4_000:])
    later.sync()
    (lost,) = said(later)
    assert isinstance(lost, PartLost)


def spoil(path: Path) -> None:
    content = path.read_bytes()
    path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))


def unversioned(body: ManifestWritten) -> ManifestWritten:
    """As who is not the holder is asked."""
    return replace(body, items=tuple(replace(item, version="") for item in body.items))
