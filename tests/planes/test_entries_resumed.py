"""A successor goes on with entries that an earlier plane was told of, or had sealed; open spools stay few."""

from __future__ import annotations

from pathlib import Path

import pytest

from streams import wire
from streams.core.names import Text
from streams.core.ranges import EMPTY, Ranges
from streams.core.records import FailureClass, PartLost, PartOpened, Reason, Scope, TransferProgress
from streams.planes.destination import entry_parts
from streams.planes.orders import Stop
from streams.storage.endpoint import part_tag
from tests.events.landing_tables import flat, nested
from tests.planes.entries_feed import Tables, arrived, everything, manifest_of, record, records
from tests.planes.feed import Receiver

TABLES: Tables = {"/store/a.root": nested(900), "/store/d/b.root": flat(700)}
BOTH = Ranges([(0, 2)])


@pytest.fixture
def receiver(tmp_path: Path) -> Receiver:
    return Receiver(tmp_path / "b")


def heir_of(receiver: Receiver) -> Receiver:
    """Of a plane that ended: the kernel let go of its locks."""
    receiver.half.leave(range(64))
    return receiver.crash()


def test_a_successor_resumes_from_what_was_told(receiver: Receiver) -> None:
    body = manifest_of(TABLES)
    receiver.open(body)
    came = records(body, TABLES, 100)
    receiver.take(came[3:7])
    receiver.sync()
    told = receiver.last(TransferProgress)
    assert told.verified == Ranges([(300, 700)])
    heir = heir_of(receiver)
    assert heir.open(body, verified=told.verified) == PartOpened(body.manifest, 1, "default", EMPTY)
    heir.take([*came[7:], *came[:3]])
    heir.sync()
    assert heir.last(TransferProgress).sealed == BOTH
    arrived(heir, body, TABLES)


def test_what_was_written_and_never_told_need_not_come_again(receiver: Receiver) -> None:
    tables = {"/store/a.root": flat(900)}
    body = manifest_of(tables)
    receiver.open(body)
    came = records(body, tables, 100)
    receiver.take(came[:8])
    heir = heir_of(receiver)
    heir.open(body)
    heir.take(came[8:])
    heir.sync()
    assert heir.last(TransferProgress).sealed == Ranges.of(0)
    arrived(heir, body, tables)


@pytest.mark.parametrize("told", [0, 3])
def test_what_was_written_and_never_told_is_told_when_only_that_comes_again(receiver: Receiver, told: int) -> None:
    """Less is asked for at once than the spool may hold: of what is asked for nothing is new, and all of it counts."""
    tables = {"/store/a.root": flat(900)}
    body = manifest_of(tables)
    receiver.open(body)
    came = records(body, tables, 100)
    receiver.take(came[:told])
    receiver.sync()
    receiver.take(came[told:8])
    heir = heir_of(receiver)
    heir.open(body, verified=Ranges([(0, 100 * told)]))
    heir.take(came[told : told + 2])
    heir.sync()
    assert heir.last(TransferProgress).verified == Ranges([(0, 800)])
    heir.take(came[8:])
    heir.sync()
    arrived(heir, body, tables)


def test_an_item_that_is_whole_already_is_sealed_at_once(receiver: Receiver) -> None:
    tables = {"/store/a.root": flat(900), "/store/empty.root": flat(0)}
    body = manifest_of(tables)
    receiver.open(body)
    receiver.take(records(body, tables, 500))
    for held in receiver.half._landings[body.manifest.encode()]._held.values():
        held.part.sync()
    heir = heir_of(receiver)
    heir.open(body, verified=everything(body))
    heir.sync()
    told = heir.last(TransferProgress)
    assert told.sealed == BOTH
    assert len(told.landed) == 2
    arrived(heir, body, tables)


def test_what_was_sealed_and_never_told_is_found(receiver: Receiver) -> None:
    body = manifest_of(TABLES)
    receiver.open(body)
    receiver.take(records(body, TABLES, 500))
    receiver.sync()
    sealed = receiver.last(TransferProgress)
    for number, item in enumerate(body.items):  # killed before the spools could be deleted
        path = receiver.root / item.target[1:]
        path.with_name(f".t2g-{part_tag(body.manifest, number, 1)}.part").write_bytes(b"the spool")
    heir = heir_of(receiver)
    opened = heir.open(body)
    assert isinstance(opened, PartOpened)
    assert (opened.present, opened.landed) == (BOTH, sealed.landed)
    assert heir.leftovers() == []


def test_verified_entries_that_are_gone_lose_the_attempt(receiver: Receiver) -> None:
    tables = {"/store/a.root": flat(900), "/store/empty.root": flat(0)}
    body = manifest_of(tables)
    receiver.open(body)
    receiver.take([records(body, tables, 500)[0], records(body, tables, 500)[2]])
    for held in receiver.half._landings[body.manifest.encode()]._held.values():
        held.part.sync()
    heir = heir_of(receiver)
    assert len(heir.leftovers()) == 2
    for part in heir.leftovers():
        part.unlink()
    for verified in (Ranges([(0, 500)]), Ranges([(900, 901)])):
        body = manifest_of(tables)
        lost = heir.open(body, verified=verified)
        assert isinstance(lost, PartLost)
        assert lost.reason.failure_class is FailureClass.TRANSIENT
        assert "verified entries are gone" in lost.reason.text
        heir.open(body, 2)
        heir.half.leave(range(64))


def test_what_an_earlier_landing_sealed_is_told_on(receiver: Receiver) -> None:
    """An order that knows of more on the disk begins a new landing in the same process."""
    body = manifest_of(TABLES)
    receiver.open(body)
    receiver.take(records(body, TABLES, 900)[:1])
    receiver.sync()
    (landed,) = receiver.last(TransferProgress).landed
    other = receiver.crash()
    other.open(body)
    other.take([record(body, 1, TABLES["/store/d/b.root"], 0, 300)])
    other.sync()
    other.half.leave(range(64))
    receiver.open(body, verified=other.last(TransferProgress).verified)
    receiver.take([record(body, 1, TABLES["/store/d/b.root"], 300, 700)])
    receiver.sync()
    told = receiver.last(TransferProgress)
    assert told.sealed == BOTH
    assert told.landed[0] == landed
    assert [one.item for one in told.landed] == [0, 1]


def test_a_stop_deletes_what_a_killed_plane_left(receiver: Receiver) -> None:
    body = manifest_of(TABLES)
    receiver.open(body)
    receiver.take(records(body, TABLES, 500)[:1])
    receiver.sync()
    assert len(receiver.leftovers()) == 2, "the spool, and what grows from it"
    heir = heir_of(receiver)
    why = Reason(Scope.POLICY, FailureClass.PERMANENT, "stop", Text("cancelled by somebody"))
    heir.half.stop(Stop(body.manifest, 1, why, wire.encode(body)))
    assert heir.told == [PartLost(body.manifest, 1, why)]
    assert heir.leftovers() == []


def test_an_older_attempt_is_cleaned_up(receiver: Receiver) -> None:
    body = manifest_of(TABLES)
    receiver.open(body)
    receiver.take(records(body, TABLES, 500)[:1])
    receiver.sync()
    receiver.open(body, 2)
    assert receiver.leftovers() == []
    receiver.take(records(body, TABLES, 500))
    receiver.sync()
    assert receiver.last(TransferProgress).attempt == 2
    arrived(receiver, body, TABLES)


def test_open_spools_stay_few(receiver: Receiver, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(entry_parts, "OPEN_SPOOLS_MAX", 3)
    tables = {f"/store/{n}.root": flat(300 + n) for n in range(12)}
    body = manifest_of(tables)
    receiver.open(body)
    for round_no in range(3):
        for item, table in enumerate(tables.values()):
            receiver.take([record(body, item, table, 100 * round_no, 100 * (round_no + 1) + (round_no == 2) * item)])
            held = receiver.half._landings[body.manifest.encode()]._held.values()
            assert len([one for one in held if one.part._spool is not None]) <= 3
            assert len([one for one in held if one.part._beside is not None]) <= 3
            assert len([one for one in held if one.part._growing is not None]) <= entry_parts.GROWING_MAX
            if item % 5 == 4:
                receiver.sync()
    receiver.sync()
    assert receiver.last(TransferProgress).sealed == Ranges([(0, 12)])
    arrived(receiver, body, tables)


def test_the_final_file_grows_while_entries_come(receiver: Receiver) -> None:
    tables = {f"/store/{n}.root": flat(900) for n in range(4)}
    body = manifest_of(tables)
    receiver.open(body)
    for item, table in enumerate(tables.values()):
        receiver.take([record(body, item, table, 0, 500)])
    receiver.sync()
    held = receiver.half._landings[body.manifest.encode()]._held
    growing = {item: one.part._growing.entries for item, one in held.items() if one.part._growing is not None}
    assert growing == {0: 500, 1: 500}
    receiver.take([record(body, 0, tables["/store/0.root"], 500, 900)])
    receiver.take([record(body, 2, tables["/store/2.root"], 500, 700)])
    receiver.sync()
    assert receiver.last(TransferProgress).sealed == Ranges.of(0)
    assert [item for item, one in held.items() if one.part._growing is not None] == [1, 2]


def test_a_seal_that_would_take_long_goes_in_steps(receiver: Receiver, monkeypatch: pytest.MonkeyPatch) -> None:
    """So that others have their rounds in between: four whole items, written anew after a kill, and one that comes."""
    tables = {f"/store/{n}.root": flat(3_000) for n in range(4)}
    body = manifest_of(tables)
    receiver.open(body)
    receiver.take(records(body, tables, 100))
    for held in receiver.half._landings[body.manifest.encode()]._held.values():
        held.part.sync()
    monkeypatch.setattr(entry_parts, "STEP_BYTES", 20_000)
    heir = heir_of(receiver)
    heir.open(body, verified=everything(body))
    other = manifest_of({"/store/x.root": flat(10)})
    heir.open(other)
    landing = heir.half._landings[body.manifest.encode()]
    rounds = 0
    while landing.progress.sealed != Ranges([(0, 4)]):
        if rounds == 1:
            heir.take([record(other, 0, flat(10), 0, 10, last=True)])
        growing = [one.part._growing for one in landing._held.values() if one.part._growing is not None]
        assert len(growing) <= entry_parts.GROWING_MAX + 1
        assert landing.urgent
        heir.half.sync(heir.half._due()[0])
        rounds += 1
        assert rounds < 40
    assert rounds > 5
    order = [one.manifest for one in heir.told if isinstance(one, TransferProgress) and one.sealed]
    assert order.index(other.manifest) == 0
    arrived(heir, body, tables)
