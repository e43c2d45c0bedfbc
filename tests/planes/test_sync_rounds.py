"""When bytes are made durable, and what a round does when storage fails: a real directory behind a moody endpoint."""

from __future__ import annotations

import random
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from streams.core.ranges import Ranges
from streams.core.records import FailureClass, PartLost, Scope, TransferProgress
from streams.errors import StorageError
from streams.planes.destination import coordinator as destination
from streams.planes.destination import landing as landing_module
from streams.storage.endpoint import Part, SealedFile
from streams.storage.posix import PosixEndpoint
from tests.planes.feed import Receiver, Record, Sender, listed
from tests.planes.stage import request_of

NOISE = random.Random(17)
PAYLOAD = 64 * 1024


class Clock:
    now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


class Moody(PosixEndpoint):
    """Raises or answers what `moods` holds next, then behaves."""

    moods: list[Any]

    def seal_group(self, parts: Sequence[Part]) -> list[SealedFile | StorageError]:
        mood = self.moods.pop(0) if self.moods else None
        if isinstance(mood, StorageError):
            return [mood for _ in parts]
        if mood is not None:
            raise mood
        return super().seal_group(parts)


@pytest.fixture
def sender(tmp_path: Path) -> Iterator[Sender]:
    one = Sender(tmp_path / "a", PAYLOAD)
    yield one
    one.close()


def begun(sender: Sender, receiver: Receiver, root: Path, size: int) -> list[Record]:
    body = listed(root / "a", {"/store/x": NOISE.randbytes(size)})
    receiver.open(body)
    return sender.serve(request_of(body))


def test_a_round_is_due_at_the_last_record_or_after_a_pause_or_a_while(sender: Sender, tmp_path: Path) -> None:
    clock = Clock()
    receiver = Receiver(tmp_path / "b", clock)
    records = begun(sender, receiver, tmp_path, 20 * PAYLOAD)
    due = receiver.half._due
    assert due() == ([], None)
    receiver.take(records[:1])
    waiting, wait_s = due()
    assert waiting == []
    assert wait_s == pytest.approx(destination.IDLE_S)
    clock.now_s += destination.IDLE_S
    (landing,) = due()[0]
    receiver.half.sync([landing])
    assert receiver.last(TransferProgress).verified == Ranges([(0, PAYLOAD)])
    assert due() == ([], None)

    started_s = clock.now_s
    for record in records[1:-1]:
        receiver.take([record])
        clock.now_s += 0.2
        if due()[0]:
            break
    assert clock.now_s - started_s == pytest.approx(destination.OLDEST_S)
    receiver.sync()
    assert due() == ([], None)
    receiver.take(records[-1:])
    assert due()[0] == [landing]


def test_a_round_is_due_at_so_many_bytes(sender: Sender, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(landing_module, "SYNC_BYTES", 3 * PAYLOAD)
    receiver = Receiver(tmp_path / "b", Clock())
    records = begun(sender, receiver, tmp_path, 10 * PAYLOAD)
    receiver.take(records[:2])
    assert receiver.half._due()[0] == []
    receiver.take(records[2:3])
    assert len(receiver.half._due()[0]) == 1


def test_the_payload_thread_waits_for_the_disk(sender: Sender, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(destination, "UNSYNCED_BYTES_MAX", 4 * PAYLOAD)
    receiver = Receiver(tmp_path / "b")
    records = begun(sender, receiver, tmp_path, 10 * PAYLOAD)
    taking = threading.Thread(target=receiver.take, args=(records[:6],), daemon=True)
    taking.start()
    taking.join(0.3)
    assert taking.is_alive()
    assert receiver.half._unsynced_bytes == 4 * PAYLOAD
    receiver.sync()
    taking.join(5)
    assert not taking.is_alive()
    receiver.sync()
    assert receiver.half._unsynced_bytes == 0


def moody(tmp_path: Path, *moods: Any, clock: Any = None) -> Receiver:
    receiver = Receiver(tmp_path / "b", clock or Clock())
    endpoint = Moody(str(tmp_path / "b"), name="default")
    endpoint.moods = list(moods)
    receiver.half._endpoint = endpoint
    return receiver


def test_a_seal_that_fails_in_passing_is_tried_again(sender: Sender, tmp_path: Path) -> None:
    clock = Clock()
    receiver = moody(tmp_path, StorageError("the server is busy", "/x"), clock=clock)
    receiver.take(begun(sender, receiver, tmp_path, 3 * PAYLOAD))
    receiver.sync()
    assert not [one for one in receiver.told if isinstance(one, TransferProgress)]
    due, wait_s = receiver.half._due()
    assert due == []
    assert wait_s == pytest.approx(destination.RETRY_S)
    clock.now_s += destination.RETRY_S
    receiver.half.sync(receiver.half._due()[0])
    assert receiver.last(TransferProgress).sealed == Ranges.of(0)


def test_a_defect_in_a_round_gives_the_attempt_up_and_not_the_thread(sender: Sender, tmp_path: Path) -> None:
    receiver = moody(tmp_path, RuntimeError("a defect"))
    thread = threading.Thread(target=receiver.half.run, daemon=True)
    thread.start()
    receiver.take(begun(sender, receiver, tmp_path, 3 * PAYLOAD))
    until = threading.Event()
    for _ in range(500):
        if any(isinstance(one, PartLost) for one in receiver.told):
            break
        until.wait(0.01)
    lost = receiver.last(PartLost)
    assert (lost.reason.scope, lost.reason.failure_class) == (Scope.AGENT, FailureClass.TRANSIENT)
    assert "a defect" in lost.reason.text
    assert thread.is_alive()
    assert receiver.leftovers() == []
    receiver.half.close()
    thread.join(5)
    assert not thread.is_alive()
