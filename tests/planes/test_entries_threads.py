"""Entries with the threads of a plane at work together: payload in, a sync thread, and orders in between."""

from __future__ import annotations

import logging
import random
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from streams.core.names import Lfn, ManifestId, Text
from streams.core.ranges import Ranges
from streams.core.records import FailureClass, Item, PartLost, Reason, Scope, TransferProgress
from streams.events import writing
from streams.planes.destination import coordinator as destination
from streams.planes.destination import landing as landing_module
from streams.planes.orders import Stop
from tests.events.landing_tables import flat, jagged
from tests.planes.entries_feed import arrived, manifest_of, record, records
from tests.planes.feed import Receiver


@pytest.fixture
def receiver(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> Iterator[Receiver]:
    """With a running sync thread, tiny rounds and tiny row groups."""
    monkeypatch.setattr(landing_module, "SYNC_BYTES", 20_000)
    monkeypatch.setattr(destination, "UNSYNCED_BYTES_MAX", 60_000)
    monkeypatch.setattr(destination, "IDLE_S", 0.01)
    monkeypatch.setattr(writing, "ROW_GROUP_BYTES", 60_000)
    one = Receiver(tmp_path / "b")
    thread = threading.Thread(target=one.half.run, daemon=True)
    thread.start()
    yield one
    assert thread.is_alive()
    one.half.close()
    thread.join(10)
    here = [record for record in caplog.records if record.name.startswith("streams.planes")]
    assert not [record for record in here if record.levelno >= logging.ERROR]


def until(match: Callable[[], bool]) -> None:
    end_s = time.monotonic() + 20
    while not match():
        assert time.monotonic() < end_s
        time.sleep(0.005)


def _apart(item: Item, number: int) -> Item:
    """Else a transfer could find what one before it had sealed."""
    return replace(item, target=Lfn(item.target.replace("/store/", f"/store/{number}/")))


def sealed(receiver: Receiver, manifest: ManifestId) -> Ranges:
    told = [one for one in receiver.told if isinstance(one, TransferProgress) and one.manifest == manifest]
    return told[-1].sealed if told else Ranges()


@pytest.mark.parametrize("seed", range(3))
def test_entries_come_while_files_grow(receiver: Receiver, seed: int) -> None:
    tables = {f"/store/{n}.root": jagged(3_000) if n % 2 else flat(4_000) for n in range(4)}
    body = manifest_of(tables)
    receiver.open(body)
    came = records(body, tables, 150)
    if seed:
        random.Random(seed).shuffle(came)
    receiver.take(came)
    until(lambda: sealed(receiver, body.manifest) == Ranges([(0, 4)]))
    arrived(receiver, body, tables)


def test_items_fail_and_transfers_stop_in_the_middle(receiver: Receiver) -> None:
    """Each of them closes a part that the sync thread may be at work with."""
    tables = {f"/store/{n}.root": jagged(2_000) for n in range(6)}
    bodies = [manifest_of(tables) for _ in range(3)]
    bodies = [replace(body, items=tuple(_apart(item, n) for item in body.items)) for n, body in enumerate(bodies)]
    why = Reason(Scope.POLICY, FailureClass.PERMANENT, "stop", Text("cancelled by somebody"))
    for number, body in enumerate(bodies):
        receiver.open(body)
        came = records(body, tables, 100)
        spoilt = record(body, 3, flat(2_000), 1_500, 1_600)
        random.Random(number).shuffle(came)
        taking = threading.Thread(target=receiver.take, args=([*came[:60], spoilt, *came[60:]],))
        taking.start()
        if number < 2:
            time.sleep(0.02 + 0.05 * number)
            receiver.half.stop(Stop(body.manifest, 1, why))
        taking.join(20)
        assert not taking.is_alive()
    assert [one.manifest for one in receiver.told if isinstance(one, PartLost)] == [one.manifest for one in bodies[:2]]
    last = bodies[2].manifest
    until(lambda: sealed(receiver, last) == Ranges.of(0, 1, 2, 4, 5) and bool(receiver.last(TransferProgress).failed))
    told = receiver.last(TransferProgress)
    assert [(one.items, one.reason.failure_class) for one in told.failed] == [(Ranges.of(3), FailureClass.DATA_BAD)]
    until(lambda: receiver.half._unsynced_bytes == 0)
    assert receiver.leftovers() == []
