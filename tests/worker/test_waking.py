"""A partition that woke asks what is open, and reads nothing that has ended; what an ended intent left is cleared away.

Open rows are found by their entries (`open/KEY`), in two passes and in steps, between which facts are heard.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from streams.core import records as m
from streams.core import topics
from streams.core.channel import LOG, Channel
from streams.core.names import IntentId
from streams.core.policy import Policy
from streams.core.ranges import Ranges
from streams.core.transfer import State
from streams.planes import orders
from streams.worker import rows, turn
from streams.worker.scheduler import RECORD_SETTLE_MS, SLICE_S
from tests.core import example as x
from tests.worker.rig import PARTITIONS, Crash, Rig, requests, same_lane

ONE = x.written()
DONE = x.progress(Ranges([(0, 150)]), Ranges.of(0, 1))
OF_INTENT = topics.partition_of(x.INTENT, PARTITIONS)
OF_TRANSFER = topics.partition_of(x.MANIFEST, PARTITIONS)
INTENT, TRANSFER = rows.open_key(x.INTENT), rows.open_key(x.MANIFEST)
LIFE: tuple[m.Message, ...] = (
    x.body(), x.decided(), ONE, x.planned(ONE), x.reported(), x.opened(), DONE, x.closed(), x.completed(),
)  # fmt: skip
"""From the wish to the end, as the destination hears it."""


def entries(rig: Rig) -> set[str]:
    return {key for table in rig.tables.values() for key in table if key.startswith(rows.OPEN)}


# Entries.


def test_an_open_row_has_an_entry_from_its_first_turn_to_its_end() -> None:
    rig = Rig()
    seen = []
    for fact in LIFE:
        rig.hear(fact)
        seen.append(entries(rig))
    both = {INTENT, TRANSFER}
    assert seen == [{INTENT}] * 3 + [both] * 4 + [{INTENT}, set()]


@pytest.mark.parametrize("here", [x.A, x.B, x.C, x.Site("S_D")])
def test_every_site_with_a_part_in_an_intent_has_an_entry_of_it_until_it_ends(here: x.Site) -> None:
    rig = Rig(here)
    rig.hear(x.body(), x.decided(), ONE)
    assert entries(rig) == ({INTENT} if here != "S_D" else set())
    rig.hear(x.completed())
    assert entries(rig) == set()


def test_an_ended_intent_keeps_its_entry_while_its_transfers_are_being_stopped() -> None:
    rig = Rig()
    rig.hear(x.body(), x.decided(), ONE, x.planned(ONE), x.reported(), x.decided(2, m.Verdict.CANCELLED))
    assert rig.intent().ended
    assert INTENT in entries(rig)
    rig.sit()
    assert [d.verdict for d in rig.take(m.TransferDecided)] == [m.Verdict.CANCELLED]
    rig.hear(x.completed(cancelled=Ranges.of(0, 1)))
    assert INTENT not in entries(rig)


def test_a_decision_that_opens_an_ended_intent_again_puts_its_entry_again() -> None:
    rig = Rig()
    rig.hear(x.body(), x.decided(), ONE, x.completed())
    assert entries(rig) == set()
    rig.hear(x.decided(2, source=x.A, source_no=1))
    assert entries(rig) == {INTENT}


def test_the_entry_is_put_before_its_row_and_deleted_after_it() -> None:
    rig = Rig()
    rig.hear(*LIFE)
    for name, key in (("intents", x.INTENT), ("transfers", x.MANIFEST)):
        writes, entry = rig.tables[name].writes, rows.open_key(key)
        assert writes[:2] == [("put", entry), ("put", key)]
        assert writes[-2:] == [("put", key), ("delete", entry)]


def test_a_process_puts_an_entry_once_and_the_next_one_once_more() -> None:
    """The changelog of an earlier one's put may have died with it; after that each turn costs one put, as ever."""
    rig = Rig()
    facts = LIFE[:6]
    rig.hear(*facts, *facts)
    puts = [key for name in rows.NAMES for what, key in rig.tables[name].writes if what == "put"]
    assert [puts.count(INTENT), puts.count(TRANSFER)] == [1, 1]
    rig.sit()
    rig.hear(*facts, *facts)
    puts = [key for name in rows.NAMES for what, key in rig.tables[name].writes if what == "put"]
    assert [puts.count(INTENT), puts.count(TRANSFER)] == [2, 2]


def test_an_entry_that_another_owner_deleted_meanwhile_is_put_again() -> None:
    rig = Rig()
    rig.hear(*LIFE[:3])
    rig.dispatcher.drop(OF_INTENT)
    del rig.tables["intents"][INTENT]
    rig.scheduler.own(OF_INTENT)
    rig.hear(*LIFE[:3])
    assert entries(rig) == {INTENT}


def test_what_is_known_of_entries_is_forgotten_in_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(turn, "MARKED_MAX", 3)
    rig = Rig()
    manifests = same_lane(5)
    rig.hear(*map(x.planned, manifests))
    assert len(rig.turns._marked) == 3
    rig.hear(x.planned(manifests[0]))
    writes = [key for what, key in rig.tables["transfers"].writes if what == "put"]
    assert writes.count(rows.open_key(manifests[0].manifest)) == 2
    assert writes.count(rows.open_key(manifests[4].manifest)) == 1
    assert entries(rig) == {rows.open_key(w.manifest) for w in manifests}


@pytest.mark.parametrize("table", ["intents", "transfers"])
def test_whatever_a_crash_leaves_an_open_row_has_its_entry(table: str) -> None:
    """A crash at any write of the table: what is there was put up to some moment, and what follows is lost."""
    whole = Rig()
    whole.hear(*LIFE)
    for after in range(len(whole.tables[table].writes)):
        rig = Rig()
        rig.tables[table].left = after
        with pytest.raises(Crash):
            rig.hear(*LIFE)
        assert opened(rig) <= entries(rig)
        rig.sit()
        rig.hear(*LIFE)
        assert rig.snapshot() == whole.snapshot()


def opened(rig: Rig) -> set[str]:
    """Entries that open rows must have."""
    there = set()
    for key in (key for key in rig.tables["intents"] if not key.startswith(rows.OPEN)):
        row = rig.intent(IntentId(key))
        if row.told or (not row.ended and row.concerns(rig.here)):
            there.add(rows.open_key(key))
    for key in (key for key in rig.tables["transfers"] if not key.startswith(rows.OPEN)):
        if rig.transfer(x.ManifestId(key)).state is not State.CLOSED:
            there.add(rows.open_key(key))
    return there


def test_an_entry_too_many_costs_one_look_and_nothing_else() -> None:
    rig = Rig()
    rig.hear(*LIFE)
    before = rig.snapshot()
    never = x.ManifestId(f"{x.INTENT}.0.7")
    for key in (INTENT, rows.open_key(f"{x.A}.00000000-0000-4000-8000-000000000009")):
        rig.tables["intents"][key] = b""
    for key in (TRANSFER, rows.open_key(never)):
        rig.tables["transfers"][key] = b""
    rig.sit()
    assert [o for o in (*rig.log.sent, *rig.plane.told) if not isinstance(o, orders.Assign)] == []
    assert rig.tables["transfers"].reads.count(x.MANIFEST) <= 1 + len(LIFE)
    rig.after(60)
    assert (rig.log.sent, rig.plane.told) == ([], [])
    rig.hear(*LIFE)
    assert {k: v for k, v in rig.tables["intents"].items() if k in before["intents"]} == before["intents"]
    assert INTENT not in entries(rig), "the next turn of the row takes it away"
    assert TRANSFER not in entries(rig)


# Waking.


def woken(rig: Rig, partition: int) -> Iterator[None]:
    rig.forget()
    return rig.dispatcher.waking(partition)


def test_rows_that_have_ended_are_not_read() -> None:
    rig = Rig()
    rig.hear(*LIFE)
    still_open = x.body(intent=IntentId(f"{x.A}.00000000-0000-4000-8000-000000000002"))
    rig.hear(still_open)
    rig.sit(awake=False)
    for table in rig.tables.values():
        table.reads.clear()
    rig.wake_all()
    reads = [key for table in rig.tables.values() for key in table.reads]
    assert set(reads) == {still_open.intent}
    assert len(reads) == 1, "and an open one once"


def test_hundreds_of_ended_rows_make_no_step_of_waking() -> None:
    rig = Rig()
    chain = x.chain(200)
    rig.hear(x.body(), x.decided(), *chain)
    for written in chain:
        rig.hear(x.planned(written), x.closed(x.completed(written.manifest)), x.completed(written.manifest))
    rig.hear(*[x.body()] * 10)
    assert rig.tables["waiting"] == {}
    rig.sit(awake=False)
    assert sum(rig.finish(rig.dispatcher.waking(partition)) for partition in range(PARTITIONS)) == 0


def test_nothing_is_asked_before_every_open_transfer_is_noted() -> None:
    """Requests of before use credit: who is asked before they are all known would be granted what is not there."""
    rig = Rig(policy=Policy(request_bytes=50, credit_bytes=100))
    manifests = same_lane(5, lengths=(150,))
    for written in manifests:
        rig.hear(x.planned(written))
    for written in manifests:
        rig.opened(written.manifest)
    asked = rig.take(m.ChunksRequested)
    rig.hear(*asked)
    assert len(asked) == 2
    rig.sit(awake=False)
    noted = 0
    for _ in woken(rig, 3):
        if not rig.scheduler.is_awake(3):
            noted += 1
            rig.dispatcher.tick()
            assert (rig.log.sent, rig.plane.told) == ([], [])
            assert rig.scheduler.next_due() is None
    assert noted == len(manifests)
    assert rig.scheduler.credit.outstanding(Channel(x.C, LOG, 3)) == 100
    rig.tick()
    for written in manifests:
        rig.opened(written.manifest)
    assert rig.take(m.ChunksRequested) == [], "the credit is in use"


def test_a_fact_heard_between_two_steps_is_folded_and_asked_about_later() -> None:
    """Of a transfer that was noted, of one that is noted later, and of one that is new."""
    manifests = same_lane(3)
    for at in range(6):
        rig = Rig()
        rig.hear(*map(x.planned, manifests[:2]))
        rig.sit(awake=False)
        told = list[x.ManifestId]()
        for step, _ in enumerate(woken(rig, 3)):
            if step == at:
                rig.hear(x.planned(manifests[2]), x.told(1, priority=9, manifest=manifests[0].manifest))
                rig.hear(x.closed(x.completed(manifests[1].manifest)))
                if not rig.scheduler.is_awake(3):
                    assert rig.take(m.TransferReported) == []
                    assert rig.take(orders.Open) == []
        rig.tick()
        told += [order.manifest_id for order in rig.take(orders.Open)]
        late = at >= 3
        wanted = {manifests[0].manifest} if late else {manifests[0].manifest, manifests[2].manifest}
        assert wanted <= set(told)
        if not late:
            assert manifests[1].manifest not in told, "it was closed before anything was asked"
            assert rig.transfer(manifests[2].manifest).state is State.PLANNED
        assert len(told) == len(set(told)), "each once"


def test_an_intents_fact_heard_between_two_steps_is_asked_about_later() -> None:
    rig = Rig()
    same = next(w for w in x.chain(40) if topics.partition_of(w.manifest, PARTITIONS) == OF_INTENT)
    chain = x.chain(same.no + 1)
    rig.hear(x.planned(same))
    rig.sit(awake=False)
    steps = woken(rig, OF_INTENT)
    next(steps)
    rig.hear(x.body(), x.decided(), *chain)
    assert rig.log.sent == []
    rig.finish(steps)
    rig.tick()
    assert [p.body for p in rig.take(m.TransferPlanned)] == chain


def test_a_partition_that_goes_while_it_wakes_is_not_woken() -> None:
    rig = Rig()
    rig.hear(*map(x.planned, same_lane(3)))
    rig.sit(awake=False)
    steps = woken(rig, 3)
    next(steps)
    rig.dispatcher.drop(3)
    rig.finish(steps)
    assert not rig.scheduler.is_awake(3)
    assert 3 not in rig.dispatcher.reads
    rig.after(60)
    assert (rig.log.sent, rig.plane.told) == ([], [])


def test_waking_is_cut_into_steps_however_much_is_open(monkeypatch: pytest.MonkeyPatch) -> None:
    rig = Rig()
    monkeypatch.setattr("streams.worker.dispatcher.STEPS_BETWEEN", 10)
    manifests = same_lane(50)
    rig.hear(*map(x.planned, manifests))
    rig.sit(awake=False)
    first = 0
    steps = woken(rig, 3)
    for _ in steps:
        if rig.scheduler.is_awake(3):
            break
        first += 1
    assert first == 50, "a step for each row that is read"
    assert 4 <= rig.finish(steps) <= 6, "and one for some keys"


def test_what_waking_found_is_asked_in_slices() -> None:
    rig = Rig()
    manifests = same_lane(10)
    rig.hear(*map(x.planned, manifests))
    rig.sit(awake=False)
    rig.row_s = SLICE_S
    rig.finish(woken(rig, 3))
    for _ in manifests[:-1]:
        assert rig.dispatcher.tick()
        assert len(rig.take(orders.Open)) == 1
    rig.tick()
    assert len(rig.take(orders.Open)) == 1


def test_an_open_transfer_is_planned_again_until_it_answers() -> None:
    """Its row may be lost; the plan that says so may be lost too."""
    rig = Rig()
    chain = x.chain(3)
    rig.hear(x.body(), x.decided(), *chain)
    rig.hear(*(x.reported(written.manifest) for written in chain[:2]))
    rig.sit()
    assert [p.manifest for p in rig.take(m.TransferPlanned)] == [w.manifest for w in chain]
    rig.after(RECORD_SETTLE_MS / 1000)
    assert [p.manifest for p in rig.take(m.TransferPlanned)] == [w.manifest for w in chain], "owed until answered"
    rig.hear(x.reported(chain[0].manifest))
    rig.after(RECORD_SETTLE_MS / 1000)
    assert [p.manifest for p in rig.take(m.TransferPlanned)] == [w.manifest for w in chain[1:]]
    rig.hear(x.completed(chain[1].manifest), x.reported(chain[2].manifest))
    rig.after(60)
    assert rig.take(m.TransferPlanned) == []
    assert rig.scheduler._replan == {}


def test_an_open_transfer_that_is_kept_is_not_planned_again() -> None:
    rig = Rig()
    chain = x.chain(4)
    rig.hear(x.body(), x.decided(), *chain)
    rig.hear(*map(x.planned, chain), *(x.reported(written.manifest) for written in chain))
    rig.turns.tables.transfers.delete(chain[1].manifest)
    rig.turns.tables.manifests.delete(chain[2].manifest)
    rig.sit()
    assert [p.manifest for p in rig.take(m.TransferPlanned)] == [w.manifest for w in chain[1:3]]


def test_one_that_is_kept_under_an_older_decision_is_planned_again() -> None:
    rig = Rig()
    rig.hear(x.body(), x.decided(), ONE, x.planned(ONE), x.reported(), x.decided(2, priority=9))
    rig.hear(x.reported(number=2))
    rig.sit()
    assert [(p.manifest, p.decision_no) for p in rig.take(m.TransferPlanned)] == [(ONE.manifest, 2)]


def test_what_a_partition_planned_again_goes_with_it() -> None:
    rig = Rig()
    rig.hear(x.body(), x.decided(), ONE, x.reported())
    rig.sit()
    assert rig.scheduler._replan
    rig.dispatcher.drop(OF_INTENT)
    assert rig.scheduler._replan == {}


def test_a_worker_that_took_over_goes_on_with_requests_where_the_other_was() -> None:
    rig = Rig(policy=Policy(request_bytes=50, credit_bytes=100))
    (one,) = same_lane(1, lengths=(300,))
    rig.hear(x.planned(one))
    rig.opened(one.manifest)
    rig.hear(*rig.take(m.ChunksRequested))
    rig.hear(*rig.take(m.ChunksRequested))
    rig.sit()
    rig.opened(one.manifest)
    assert rig.take(m.ChunksRequested) == []
    rig.hear(x.progress(Ranges([(0, 50)]), manifest=one.manifest))
    assert requests(rig.take(m.ChunksRequested)) == [(one.manifest, 3)]


# What an ended intent leaves is deleted some at a time.


def bodies(rig: Rig) -> int:
    return sum(1 for key in rig.tables["waiting"] if key.startswith(x.INTENT) and "@@" not in key)


def other(no: int, partition: int = OF_INTENT) -> m.TransferIntent:
    """A wish of another intent of the same partition."""
    names = (IntentId(f"{x.A}.00000000-0000-4000-8001-{n:012d}") for n in range(1_000))
    return x.body(intent=[name for name in names if topics.partition_of(name, PARTITIONS) == partition][no])


def test_an_ended_intents_bodies_are_deleted_some_a_turn() -> None:
    rig = Rig()
    rig.hear(x.body(), x.decided(), *x.chain(100))
    assert bodies(rig) == 100
    left = []
    rig.hear(x.decided(2, m.Verdict.CANCELLED))
    for no in range(5):
        left.append(bodies(rig))
        rig.hear(other(no))
    assert left == [68, 36, 4, 0, 0]
    assert rig.tables["waiting"] == {}, "nor is it noted any more what there was"


def test_a_turn_of_another_partition_deletes_nothing() -> None:
    rig = Rig()
    rig.hear(x.body(), x.decided(), *x.chain(100), x.decided(2, m.Verdict.CANCELLED))
    left = bodies(rig)
    rig.hear(other(0, partition=(OF_INTENT + 1) % PARTITIONS))
    assert bodies(rig) == left


def test_early_manifests_are_deleted_as_well_some_a_turn() -> None:
    rig = Rig()
    chain = x.chain(101)
    rig.hear(x.body(), *chain[1:])
    assert bodies(rig) == 200, "with what chains them"
    rig.hear(x.decided(1, m.Verdict.REFUSED))
    for no in range(4):
        assert bodies(rig) == max(0, 200 - 64 * (no + 1))
        rig.hear(other(no))
    assert rig.tables["waiting"] == {}


def test_counted_ones_their_early_places_and_rivals_all_go() -> None:
    rig = Rig()
    chain = x.chain(50)
    rivals = [x.written(no, [x.item(900 + no, 7)]) for no in range(1, 30)]
    rig.hear(*chain, *rivals, x.body(), x.decided(), x.decided(2, m.Verdict.CANCELLED))
    for no in range(10):
        rig.hear(other(no))
    assert rig.tables["waiting"] == {}


def test_two_intents_that_ended_are_both_cleared_away() -> None:
    rig = Rig()
    wish = other(0)
    rig.hear(x.body(), x.decided(), *x.chain(40), wish, x.decided(wish=wish))
    previous = None
    for no in range(40):
        previous = x.written(no, prev=previous, last=no == 39, intent=wish.intent)
        rig.hear(previous)
    rig.hear(x.decided(2, m.Verdict.CANCELLED), x.decided(2, m.Verdict.CANCELLED, wish=wish))
    for no in range(1, 3):
        rig.hear(other(no))
    assert rig.tables["waiting"] == {}


@pytest.mark.parametrize("turns", range(4))
def test_who_takes_over_between_two_turns_deletes_the_rest(turns: int) -> None:
    rig = Rig()
    rig.hear(x.body(), x.decided(), *x.chain(100), x.decided(2, m.Verdict.CANCELLED))
    for no in range(turns):
        rig.hear(other(no))
    left = bodies(rig)
    rig.sit(awake=False)
    rig.hear(other(9))
    assert bodies(rig) == left, "not known yet"
    rig.wake_all()
    assert bodies(rig) == left, "waking writes nothing"
    for no in range(4):
        rig.hear(other(no))
        assert bodies(rig) == max(0, left - 32 * (no + 1))
    assert rig.tables["waiting"] == {}


def test_a_crash_at_any_write_of_the_clearing_away_leaves_nothing_in_the_end() -> None:
    facts = (x.body(), x.decided(), *x.chain(40), *x.chain(3)[1:])
    whole = Rig()
    whole.hear(*facts)
    at = len(whole.tables["waiting"].writes)
    ends = (x.decided(2, m.Verdict.CANCELLED), other(0), other(1))
    whole.hear(*ends)
    assert whole.tables["waiting"] == {}
    crashes = 0
    for after in range(at, len(whole.tables["waiting"].writes)):
        rig = Rig()
        rig.tables["waiting"].left = after
        with pytest.raises(Crash):
            rig.hear(*facts, *ends)
        crashes += 1
        rig.sit()
        rig.hear(*ends, other(2), other(3))
        assert rig.tables["waiting"] == {}, f"crash after {after} writes"
        assert rig.intent().state == "cancelled"
    assert crashes > 40


@pytest.mark.parametrize("dropped", [OF_INTENT, (OF_INTENT + 1) % PARTITIONS])
def test_a_partition_that_went_elsewhere_is_cleared_by_its_new_owner_only(dropped: int) -> None:
    rig = Rig()
    rig.hear(x.body(), x.decided(), *x.chain(100), x.decided(2, m.Verdict.CANCELLED))
    rig.dispatcher.drop(dropped)
    left = bodies(rig)
    rig.hear(other(0))
    assert bodies(rig) == (left if dropped == OF_INTENT else left - 32)


def test_a_manifest_heard_while_its_intent_is_cleared_away_is_not_kept() -> None:
    rig = Rig()
    chain = x.chain(100)
    rig.hear(x.body(), x.decided(), *chain, x.decided(2, m.Verdict.CANCELLED))
    rig.hear(*chain)
    assert rig.tables["waiting"] == {}, "and each turn of it goes on with the rest"


def test_an_intent_that_was_opened_again_keeps_what_it_has_since() -> None:
    rig = Rig()
    rig.hear(x.body(), x.decided(), *x.chain(100), x.decided(2, m.Verdict.CANCELLED))
    again = x.chain(2, source_no=1, source=x.A)
    rig.hear(x.decided(3, source=x.A, source_no=1), *again, other(0), other(1), other(2))
    assert [rig.waiting(written.manifest, x.A) for written in again] == again
    assert bodies(rig) == 2
