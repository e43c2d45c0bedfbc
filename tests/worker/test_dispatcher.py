"""The dispatcher: every record is applied or a dead letter; old facts ask for nothing; what is owed is carried out."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from streams import wire
from streams.core import commands as c
from streams.core import records as m
from streams.core import transfer as transfers
from streams.core.intent import Decision
from streams.core.manifest import Manifest
from streams.core.policy import LEASES_MAX, Policy
from streams.core.ranges import Ranges
from streams.errors import WireError
from streams.planes import orders
from streams.worker import dispatcher as dispatcher
from streams.worker import effects, rows
from streams.worker.completions import WAITING_MAX, Completions
from streams.worker.dispatcher import REOPENED_MS
from streams.worker.effects import at_once
from streams.worker.rows import TableFailed
from streams.worker.scheduler import OPEN_SETTLE_MS, RECORD_SETTLE_MS, SLICE_S
from tests.core import example as x
from tests.worker.rig import PARTITIONS, Rig

ONE = x.written()
WHOLE = Ranges([(0, 150)])
DONE = x.progress(WHOLE, Ranges.of(0, 1))


# I6: nothing silent.


def test_a_contradiction_is_a_dead_letter_and_the_next_record_is_applied() -> None:
    rig = Rig(x.A)
    rig.hear(x.body(), x.body(priority=9), x.decided())
    (letter,) = rig.letters
    assert "another body is already known" in letter.reason
    assert letter.topic == "transfer-intents"
    assert letter.value == wire.encode(x.body(priority=9)), "kept whole"
    assert rig.intent().decision == Decision(1, m.Verdict.ACCEPTED, x.C, 0, 5)
    assert rig.intent().body == x.body()
    assert rig.dispatcher.counts == {"applied": 2, "dead": 1}


@pytest.mark.parametrize(
    "change",
    [
        {"value": b"\x00\x00\x00\x03\xe7junk"},
        {"value": b""},
        {"value": None},
        {"key": b"another"},
        {"key": None},
        {"headers": None},
        {"headers": [("t2g-origin", b"x")]},
        {"topic": "manifests"},
        {"topic": "S_Z.transfer-intents"},
        {"topic": "nonsense"},
    ],
    ids=str,
)
def test_an_unreadable_record_is_a_dead_letter_and_the_next_record_is_applied(change: dict[str, Any]) -> None:
    rig = Rig(x.A)
    record = rig.record(x.body())
    letter = rig.dispatcher.hear(**{**record, **change})
    assert letter is not None
    assert letter.reason
    assert (letter.partition, letter.offset) == (record["partition"], record["offset"])
    assert rig.tables["intents"] == {}
    rig.hear(x.body())
    assert rig.intent().body == x.body()
    assert rig.dispatcher.counts == {"applied": 1, "dead": 1}


TABLES = pytest.mark.parametrize("table", ["intents", "transfers", "manifests", "waiting"])
FIRST = {"intents": x.body(), "transfers": x.planned(ONE), "manifests": x.planned(ONE), "waiting": ONE}
"""Each reads and puts the table of its name."""


@TABLES
@pytest.mark.parametrize("error", [KeyError("no such field"), RuntimeError("impossible"), AssertionError()], ids=repr)
def test_a_turn_that_throws_is_a_dead_letter_and_the_next_record_is_applied(
    table: str, error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    monkeypatch.setattr(dispatcher.log, "exception", lambda what, **_: said.append(what))
    rig = Rig()
    rig.tables[table].broken = error
    rig.hear(FIRST[table])
    (letter,) = rig.letters
    assert f"the turn failed: {type(error).__name__}: {error}".strip() in letter.reason
    assert letter.value == wire.encode(FIRST[table]), "kept whole"
    assert said == ["a turn failed"], "with its traceback: it is a fault of ours"
    rig.hear(FIRST[table])
    assert rig.tables[table], "applied now"
    assert rig.dispatcher.counts == {"applied": 1, "dead": 1}


def raises(error: Exception) -> Callable[..., object]:
    def act(*_: object, **__: object) -> object:
        raise error

    return act


ENVIRONMENT = pytest.mark.parametrize(
    "error", [TableFailed("a table cannot be written"), OSError("disk full"), MemoryError()], ids=repr
)


@TABLES
@ENVIRONMENT
@pytest.mark.parametrize("fault", ["broken", "unreadable"])
def test_what_the_environment_breaks_is_raised_and_the_record_heard_again_is_applied(
    table: str, error: Exception, fault: str
) -> None:
    rig = Rig()
    setattr(rig.tables[table], fault, error)
    record = rig.record(FIRST[table])
    with pytest.raises(type(error)):
        rig.dispatcher.hear(**record)
    assert rig.dispatcher.counts == {"applied": 0, "dead": 0}, "no fault of the record's"
    assert rig.dispatcher.hear(**record) is None
    other = Rig()
    other.hear(FIRST[table])
    assert rig.snapshot() == other.snapshot(), "as if it had never happened"
    assert rig.dispatcher.counts == {"applied": 1, "dead": 0}


def test_memory_that_is_short_at_the_gate_is_no_fault_of_the_records(monkeypatch: pytest.MonkeyPatch) -> None:
    rig = Rig()
    record = rig.record(x.body())
    with monkeypatch.context() as patch:
        patch.setattr("streams.wire.gate.fastavro.schemaless_reader", raises(MemoryError()))
        with pytest.raises(MemoryError):
            rig.dispatcher.hear(**record)
    assert rig.dispatcher.hear(**record) is None
    assert rig.dispatcher.counts == {"applied": 1, "dead": 0}


@ENVIRONMENT
def test_what_the_environment_breaks_is_raised_by_effects_too(error: Exception) -> None:
    """Carrying out reads tables: what was asked for is owed still, by whoever hears the record again."""
    rig = Rig()
    rig.hear(x.body(), x.decided())
    rig.log.broken = error
    with pytest.raises(type(error)):
        rig.hear(ONE)
    rig.log.broken = None
    rig.sit()
    rig.forget()
    rig.hear(ONE)
    rig.after(RECORD_SETTLE_MS / 1000)
    assert [p.manifest for p in rig.take(m.TransferPlanned)] == [x.MANIFEST]
    rig.hear(x.planned(ONE))
    rig.opened()
    rig.forget()
    rig.dispatcher.plane_restarted()
    rig.tables["manifests"].unreadable = error
    with pytest.raises(type(error)):
        rig.after(0)


@ENVIRONMENT
@pytest.mark.parametrize("table", ["intents", "transfers"])
def test_what_the_environment_breaks_is_raised_while_asking(table: str, error: Exception) -> None:
    rig = Rig()
    rig.hear(x.body(), x.decided(), ONE, x.planned(ONE))
    rig.tables[table].unreadable = error
    with pytest.raises(type(error)):
        rig.after(60)


@ENVIRONMENT
@pytest.mark.parametrize("table", ["transfers", "manifests", "waiting"])
def test_what_the_environment_breaks_is_raised_while_waking(table: str, error: Exception) -> None:
    rig = Rig()
    rig.hear(x.body(), x.decided(), *x.chain(40))
    rig.hear(x.decided(2, m.Verdict.CANCELLED), x.planned(ONE))
    rig.sit(awake=False)
    rig.tables[table].unreadable = error
    with pytest.raises(type(error)):
        rig.wake_all()


def test_what_is_the_environment_is_one_list() -> None:
    assert set(effects.ENVIRONMENT) == {TableFailed, OSError, MemoryError}
    assert TableFailed is rows.TableFailed


def test_a_refused_row_is_a_dead_letter_with_the_tables_words() -> None:
    rig = Rig()
    rig.tables["transfers"].broken = WireError("a row of 1,000,000 bytes, over 900,000")
    rig.hear(x.opened())
    assert rig.letters[0].reason == "a row of 1,000,000 bytes, over 900,000"


def test_a_message_nobody_hears_here_is_a_dead_letter() -> None:
    rig = Rig(x.A)
    rig.hear(m.FilesHeld(x.DATASET, x.A, (m.HeldFile(x.lfn(0), x.BLOCK, 1, x.item(0, 1).adler32, ""),)))  # type: ignore[arg-type]
    assert "no agent hears this here" in rig.letters[0].reason


def test_a_dead_letter_is_handed_back_whatever_the_log_takes_and_stops_nothing() -> None:
    """Who hears publishes it until it is in the log: dead_letters.py."""
    rig = Rig(x.A)
    rig.log.full = True
    letter = rig.dispatcher.hear(**{**rig.record(x.body()), "value": b"?"})
    assert letter is not None
    assert wire.decode_value(m.DeadLetter, wire.encode(letter)).value == b"?"
    rig.hear(x.body())
    assert rig.intent().body == x.body()
    assert rig.dispatcher.counts == {"applied": 1, "dead": 1}
    rig.log.full = False
    rig.after(60)
    assert [s for s in rig.log.sent if isinstance(s, m.DeadLetter)] == [], "the dispatcher sends none itself"


def test_an_effect_that_throws_loses_no_record() -> None:
    """The fact is folded and put: what could not be carried out is owed again, and is no fault of the record."""
    rig = Rig(x.B)
    rig.hear(x.body(), x.decided())
    rig.log.broken = RuntimeError("cannot schedule new futures after shutdown")
    rig.hear(ONE)
    rig.log.broken = None
    assert rig.letters == []
    assert rig.intent().chain.next_no == 1
    rig.after(1)
    assert [p.manifest for p in rig.take(m.TransferPlanned)] == [x.MANIFEST]


# I8: the row is put on every turn, changed or not: its changelog may have died with a worker.


def test_a_repeated_fact_puts_the_row_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("streams.worker.turn.INDEXED_MIN", 1)
    rig = Rig()
    rig.hear(x.body(), x.decided(), ONE)
    rig.hear(x.planned(ONE), x.opened())
    before = rig.snapshot()
    for fact in (x.body(), x.decided(), ONE, x.planned(ONE), x.opened()):
        puts = {name: table.puts for name, table in rig.tables.items()}
        rig.hear(fact)
        table = "transfers" if isinstance(fact, m.TransferPlanned | m.PartOpened) else "intents"
        assert rig.tables[table].puts == puts[table] + 1, type(fact).__name__
        if fact is ONE:
            assert rig.tables["waiting"].puts == puts["waiting"] + 1
        if isinstance(fact, m.TransferPlanned):
            assert rig.tables["manifests"].puts == puts["manifests"] + 2, "body and index"
    assert rig.snapshot() == before


def test_a_repeated_manifest_that_waits_is_put_again() -> None:
    rig = Rig()
    rig.hear(ONE)
    first = list(rig.tables["waiting"].writes)
    rig.tables["waiting"].writes.clear()
    rig.hear(ONE)
    assert len(first) == 3, "it, what chains it, and its name"
    assert rig.tables["waiting"].writes == first, "each time"


def test_a_contradiction_puts_the_row_again_too() -> None:
    rig = Rig(x.A)
    rig.hear(x.body())
    puts = rig.tables["intents"].puts
    rig.hear(x.body(priority=9))
    assert rig.tables["intents"].puts == puts + 1


def test_what_a_lost_changelog_took_is_put_again_by_repeats() -> None:
    rig = Rig()
    facts = (x.body(), x.decided(), ONE)
    rig.hear(*facts)
    before = rig.snapshot()
    for name in ("intents", "waiting"):
        rig.tables[name].clear()
        rig.sit()
        rig.hear(*facts)
        assert rig.snapshot() == before, name
    rig.hear(x.planned(ONE), x.opened(), x.progress(Ranges([(0, 20)])))
    before = rig.snapshot()
    for name in ("transfers", "manifests"):
        rig.tables[name].clear()
        rig.sit()
        rig.hear(x.planned(ONE), x.opened(), x.progress(Ranges([(0, 20)])))
        assert rig.snapshot() == before, name


FACTS = (x.body(), x.decided(), ONE, x.planned(ONE), x.opened())
SAID = (
    FACTS,
    (ONE, *FACTS),
    (ONE, x.body(), x.decided(), x.planned(ONE)),
    (x.body(), ONE, ONE),
    (x.body(), *x.chain(3)[1:]),
    (*x.chain(3), x.body(), x.decided()),
)


@pytest.mark.parametrize("facts", SAID, ids=range(len(SAID)))
def test_what_a_process_puts_is_whole_without_what_an_earlier_one_put(facts: tuple[m.Message, ...]) -> None:
    """The changelog of the earlier one's puts may have died with it, though its local store has them still.

    Who takes over later has the changelog only: what was put since, by the process that heard the same facts again.
    """
    rig = Rig()
    rig.hear(*facts)
    for table in rig.tables.values():
        table.writes.clear()
    rig.sit()
    rig.hear(*facts)
    for table in rig.tables.values():
        put = {key for what, key in table.writes if what == "put"}
        for key in set(table.snapshot()) - put:
            del table[key]
    rig.sit()
    rig.hear(x.decided())
    for written in (fact for fact in facts if isinstance(fact, m.ManifestWritten)):
        if written.no < rig.intent().chain.next_no:
            assert rig.waiting(written.manifest) == written, "what counts is kept"
    other = Rig()
    other.hear(*facts, x.decided())
    assert rig.intent() == other.intent()
    assert rig.tables["intents"] == other.tables["intents"]
    assert rig.tables["transfers"] == other.tables["transfers"]
    assert rig.tables["manifests"] == other.tables["manifests"]


@pytest.mark.parametrize("lost", [x.MANIFEST, rows.index_key(x.MANIFEST)])
def test_of_a_manifest_and_its_index_the_one_that_is_lost_is_made_again_by_the_plan(
    lost: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("streams.worker.turn.INDEXED_MIN", 1)
    rig = Rig()
    rig.hear(x.planned(ONE), x.opened())
    before = rig.snapshot()
    del rig.tables["manifests"][lost]
    rig.sit()
    rig.hear(x.planned(ONE))
    assert rig.snapshot() == before
    assert rig.turns.body(x.MANIFEST) == wire.encode(ONE)
    assert rig.index() == Manifest(ONE).index


def test_what_early_manifests_lost_with_a_changelog_is_put_again_by_repeats() -> None:
    chain = x.chain(3)
    for before_it in range(4):
        rig = Rig()
        rig.hear(*chain[:before_it], x.body(), x.decided(), *chain[before_it:])
        rig.tables["waiting"].clear()
        rig.sit()
        rig.hear(*chain)
        assert [rig.waiting(written.manifest) for written in chain] == chain


def test_a_manifest_of_which_a_crash_left_no_link_is_chained_when_heard_again() -> None:
    first, second = x.chain(2)
    rig = Rig()
    rig.hear(x.body(), second)
    (link,) = [key for key in rig.tables["waiting"] if key.endswith("@link")]
    del rig.tables["waiting"][link]
    rig.sit()
    rig.hear(x.decided(), second, first)
    assert rig.intent().chain.last
    assert [p.body for p in rig.take(m.TransferPlanned)] == [first, second]


# Old facts ask for nothing.


def test_catching_up_asks_nothing_until_awake() -> None:
    rig = Rig(awake=False)
    rig.hear(x.body(), x.decided(), ONE, x.planned(ONE), x.opened(), x.reported(), x.told(1))
    rig.after(60)
    assert (rig.log.sent, rig.plane.told) == ([], [])
    rig.wake_all()
    assert [p.manifest for p in rig.take(m.TransferPlanned)] == [x.MANIFEST], "planned again, once"
    assert [o.attempt for o in rig.take(orders.Open)] == [1]
    assert len(rig.take(m.TransferReported)) == 1
    rig.after(1)
    assert rig.take(m.TransferPlanned) == []


def test_a_partition_that_is_not_owned_asks_nothing() -> None:
    rig = Rig(awake=False)
    for partition in range(PARTITIONS):
        rig.dispatcher.drop(partition)
    rig.hear(x.body(), x.decided(), ONE, x.planned(ONE), x.opened())
    rig.after(60)
    assert rig.log.sent == []
    assert [o for o in rig.plane.told if not isinstance(o, orders.Assign)] == []


def test_waking_reads_payload_from_before_the_oldest_open_request() -> None:
    rig = Rig(policy=Policy(lease_s=20), awake=False)
    rig.hear(x.planned(ONE), x.opened(), x.requested(1, Ranges([(0, 10)]), until_ms=500_000))
    rig.wake_all()
    reads = rig.take(orders.Assign)[-1].partitions
    partition = rig.record(x.opened())["partition"]
    assert reads[partition] == 500_000 - 20_000 - 60_000
    assert [reads[p] for p in range(PARTITIONS) if p != partition] == [None] * (PARTITIONS - 1), "from the end"


def test_a_dropped_partition_is_read_no_more() -> None:
    rig = Rig()
    rig.dispatcher.reads[3] = 0
    rig.dispatcher.drop(3)
    (order,) = rig.take(orders.Assign)
    assert set(order.partitions) == set(range(PARTITIONS)) - {3}
    rig.dispatcher.drop(3)
    assert rig.take(orders.Assign) == [], "it was not read"


def test_closed_and_ended_rows_ask_for_nothing_when_waking() -> None:
    rig = Rig(awake=False)
    rig.hear(x.body(), x.decided(), ONE, x.completed(), x.planned(ONE), DONE, x.closed())
    rig.wake_all()
    rig.after(30)
    assert rig.log.sent == []
    assert [o for o in rig.plane.told if not isinstance(o, orders.Assign | orders.Forget)] == []


# Manifests that come early, and from the wrong hand.


def test_a_manifest_heard_before_its_decision_waits_for_it() -> None:
    rig = Rig()
    chain = x.chain(3)
    rig.hear(*chain)
    assert rig.take(m.TransferPlanned) == []
    rig.hear(x.body(), x.decided())
    assert rig.intent().chain.next_no == 3
    assert [p.body for p in rig.take(m.TransferPlanned)] == chain


def test_a_wrong_writers_manifest_does_not_take_the_right_ones_place() -> None:
    rig = Rig()
    wrong = x.written(items=[x.item(7, 7, holder=x.A)], source=x.A)
    rig.hear(wrong, ONE, x.decided())
    assert [p.body for p in rig.take(m.TransferPlanned)] == [ONE]
    rig.hear(wrong)
    assert rig.intent().chain.next_no == 1
    assert rig.letters == [], "superseded, not refused"


def test_a_wrong_chains_manifest_does_not_take_the_right_ones_place() -> None:
    """Two planes of the source wrote: the first of a number counts, and what continues it, not another."""
    first = x.written(0, last=False)
    rival = x.written(0, [x.item(7, 7)], last=False)
    behind_rival = x.written(1, [x.item(8, 8)], prev=rival)
    second = x.written(1, prev=first)
    early, late = Rig(), Rig()
    early.hear(x.decided(), first, rival, behind_rival, second)
    late.hear(first, rival, behind_rival, second, x.decided())
    assert early.intent() == late.intent()
    assert late.intent().chain.last, "the right chain is whole"
    assert [p.body for p in late.take(m.TransferPlanned)] == [first, second]


def test_of_two_manifests_of_one_number_the_first_is_planned_in_any_order_with_its_decision() -> None:
    rival = x.written(items=[x.item(7, 7)])
    for facts in ((ONE, rival, x.decided()), (x.decided(), ONE, rival), (ONE, x.decided(), rival)):
        rig = Rig()
        rig.hear(*facts)
        assert [p.body for p in rig.take(m.TransferPlanned)] == [ONE]


def test_of_two_plans_of_one_manifest_the_first_is_stored() -> None:
    rig = Rig()
    rival = x.written(items=[x.item(7, 7)])
    rig.hear(x.planned(ONE), x.planned(rival, 2))
    assert rig.turns.manifest(x.MANIFEST).body == ONE  # type: ignore[union-attr]
    assert rig.transfer().items == 2
    assert rig.turns.body(x.MANIFEST) == wire.encode(ONE)
    assert rig.index() == Manifest(ONE).index


def test_a_manifest_is_kept_until_its_own_completion_is_heard_and_then_forgotten() -> None:
    rig = Rig()
    wish = x.body(destinations=(x.B, x.C))
    chain = x.chain(2)
    rig.hear(wish, x.decided(wish=wish), *chain)
    rig.hear(x.completed(chain[0].manifest, x.C))
    assert [rig.waiting(written.manifest) for written in chain] == chain, "another destination's needs no body here"
    rig.hear(x.completed(chain[0].manifest))
    assert [rig.waiting(written.manifest) for written in chain] == [None, chain[1]]
    assert len(rig.tables["waiting"]) == 1
    rig.hear(chain[0])
    assert len(rig.tables["waiting"]) == 1, "nor does a late repeat bring it back"
    rig.hear(x.completed(chain[1].manifest))
    assert rig.tables["waiting"] == {}
    assert rig.intent().state == "active", "though the intent goes on elsewhere"
    rig.hear(x.completed(chain[1].manifest, x.C))
    assert rig.intent().state == "done"
    rig.hear(*chain)
    assert rig.tables["waiting"] == {}, "late repeats are not kept"


def test_an_early_manifest_is_forgotten_with_its_own_completion_too() -> None:
    rig = Rig()
    wish = x.body(destinations=(x.B, x.C))
    chain = x.chain(2)
    rig.hear(*chain, wish, x.decided(wish=wish))
    assert [rig.waiting(written.manifest) for written in chain] == chain
    for written in chain:
        rig.hear(x.completed(written.manifest))
        assert rig.waiting(written.manifest) is None
    assert rig.tables["waiting"] == {}


def test_a_completion_heard_before_its_manifest_leaves_nothing_to_keep() -> None:
    chain = x.chain(2)
    wish = x.body(destinations=(x.B, x.C))
    for facts in (
        (wish, x.decided(wish=wish), x.completed(chain[0].manifest), *chain),
        (wish, x.completed(chain[0].manifest), *chain, x.decided(wish=wish)),
        (*chain, x.completed(chain[0].manifest), wish, x.decided(wish=wish)),
    ):
        rig = Rig()
        rig.hear(*facts)
        assert rig.intent().chain.last
        assert [rig.waiting(written.manifest) for written in chain] == [None, chain[1]]
        assert not [key for key in rig.tables["waiting"] if key.startswith(chain[0].manifest) and "@@" not in key]


@pytest.mark.parametrize("here", [x.A, x.C, x.Site("S_D")], ids=["home", "source", "no part"])
def test_a_site_that_is_no_destination_of_an_intent_keeps_no_manifests_of_it(here: x.Site) -> None:
    chain = x.chain(2)
    for facts in (
        (*chain, x.body(), x.decided()),
        (x.body(), x.decided(), *chain),
        (chain[1], x.body(), x.decided(), chain[0], *chain),
    ):
        rig = Rig(here)
        rig.hear(*facts)
        assert rig.intent().chain.next_no == 2, "it counts along"
        assert rig.tables["waiting"] == {}


def test_an_early_manifest_stays_where_it_is_and_its_place_names_it() -> None:
    """A full one is a quarter of a megabyte: when it counts, its bytes are not put a second time."""
    rig = Rig()
    first, second = x.chain(2)
    rig.hear(second)
    here = f"{second.manifest}@{x.C}"
    early = f"{here}@{second.prev_sha256}"
    waiting = rig.tables["waiting"]
    assert waiting[early] == wire.encode(second)
    assert f"{early}@link" in waiting
    assert here not in waiting
    rig.hear(x.body(), x.decided())
    assert here not in waiting, "it does not count yet"
    waiting.writes.clear()
    rig.hear(first)
    assert waiting[here] == early.encode()
    assert ("put", early) not in waiting.writes
    assert waiting[early] == wire.encode(second)
    assert rig.turns.waiting_body(second.manifest, x.C) == wire.encode(second)


# A transfer's walk, as a worker lives it.


def test_one_transfer_from_plan_to_close() -> None:
    rig = Rig()
    rig.hear(x.body(), x.decided(), ONE)
    (plan,) = rig.take(m.TransferPlanned)
    rig.hear(plan)
    (order,) = rig.take(orders.Open)
    assert (order.manifest_id, order.attempt) == (x.MANIFEST, 1)
    assert order.manifest == wire.encode(ONE)
    (said,) = rig.take(m.TransferReported)
    assert (said.decision_no, said.waits_for) == (1, "its part files to be opened")
    rig.hear(said)
    rig.opened()
    (asked,) = rig.take(m.ChunksRequested)
    assert (asked.source, asked.ranges, asked.until_ms) == (x.C, WHOLE, rig.now_ms + 20_000)
    assert [i.version for i in asked.items] == ["v0", "v1"]
    rig.hear(asked)
    rig.hear(DONE, writer=rig.plane.writer)
    held, done = rig.log.sent
    assert isinstance(held, m.FilesHeld)
    assert isinstance(done, m.CompletionRecord)
    assert done.ended is m.Ended.DONE
    of_held, of_done = rig.log.acks[-2:]
    of_held(None)
    assert rig.take(m.TransferClosed) == [], "not before all is acknowledged"
    of_done(None)
    (closed,) = rig.take(m.TransferClosed)
    assert closed.completion == done
    rig.forget()
    rig.hear(closed, done)
    assert rig.take(orders.Forget) == [orders.Forget(x.MANIFEST)]
    assert rig.transfer().state is transfers.State.CLOSED
    assert (rig.tables["manifests"], rig.tables["waiting"]) == ({}, {})
    assert rig.intent().state == "done"
    assert not [key for table in rig.tables.values() for key in table if key.startswith(rows.OPEN)]
    rig.after(60)
    assert (rig.log.sent, rig.plane.told) == ([], []), "and nothing is owed for ever after"


def test_a_close_whose_record_was_lost_is_owed_again() -> None:
    rig = Rig()
    rig.hear(x.planned(ONE), DONE)
    of_held, of_done = rig.log.acks[-2:]
    of_held(RuntimeError("broker away"))
    of_done(None)
    assert rig.take(m.TransferClosed) == []
    rig.forget()
    rig.after(0)
    assert [type(s) for s in rig.log.sent] == [m.FilesHeld, m.CompletionRecord]
    for acknowledged in rig.log.acks[-2:]:
        acknowledged(None)
    assert len(rig.take(m.TransferClosed)) == 1
    rig.forget()
    rig.log.acks[-1](RuntimeError("broker away"))
    rig.after(0)
    assert len(rig.take(m.CompletionRecord)) == 1, "the whole, when its end was lost"


def test_a_large_manifest_is_closed_off_the_loop() -> None:
    rig = Rig()
    large = x.written(items=[x.item(n, 10) for n in range(200)])
    done = x.progress(Ranges([(0, 2000)]), Ranges([(0, 200)]))
    rig.hear(x.planned(large))
    aside: list[Callable[[], None]] = []
    rig.effects.aside = lambda act: len(aside) < 1 and not aside.append(act)
    rig.hear(done)
    assert rig.take(m.CompletionRecord) == []
    (act,) = aside
    rig.log.full = True
    act()
    rig.log.full = False
    aside.clear()
    rig.after(0)
    assert len(aside) == 1, "what could not be sent is owed again"
    aside[0]()
    assert len(rig.take(m.CompletionRecord)) == 1
    assert sum(len(held.files) for held in rig.take(m.FilesHeld)) == 200
    for acknowledged in rig.log.acks[-2:]:
        acknowledged(None)
    assert len(rig.take(m.TransferClosed)) == 1


def test_a_close_that_nobody_can_take_is_offered_again() -> None:
    rig = Rig()
    rig.hear(x.planned(x.written(items=[x.item(n, 10) for n in range(200)])))
    rig.effects.aside = lambda act: False
    rig.hear(x.progress(Ranges([(0, 2000)]), Ranges([(0, 200)])))
    rig.effects.aside = at_once
    rig.after(0.2)
    assert len(rig.take(m.CompletionRecord)) == 1


@ENVIRONMENT
def test_what_the_environment_breaks_aside_is_raised_by_the_next_command(error: Exception) -> None:
    rig = Rig()
    rig.hear(x.planned(x.written(items=[x.item(n, 10) for n in range(200)])))
    rig.log.broken = error
    rig.hear(x.progress(Ranges([(0, 2000)]), Ranges([(0, 200)])))
    rig.log.broken = None
    with pytest.raises(type(error)):
        rig.after(0)


def test_a_whole_buffer_that_is_given_up_is_heard_of_in_slices() -> None:
    rig = Rig()
    rig.effects.lost.extend(c.PlanTransfer(x.MANIFEST, x.C, 1, 5) for _ in range(100))
    elapsed = iter(range(10_000))
    rig.scheduler._elapsed_s = lambda: next(elapsed) * SLICE_S / 10
    assert rig.dispatcher.tick(), "more is due"
    assert 80 < len(rig.effects.lost) < 100
    assert rig.tick() > 5
    assert not rig.effects.lost


def test_the_thread_that_closes_goes_on_in_order_and_ends_behind_what_waits() -> None:
    closing, done, hold = Completions(), list[int](), threading.Event()
    closing.start()
    assert closing(lambda: (hold.wait(10), None)[1])
    taken = [closing(lambda n=n: done.append(n)) for n in range(WAITING_MAX + 2)]  # type: ignore[misc]
    assert taken[: WAITING_MAX - 1] == [True] * (WAITING_MAX - 1)
    assert not taken[-1], "more waits than it holds"
    hold.set()
    closing.stop()
    assert done == [n for n, took in enumerate(taken) if took]


def test_a_manifest_of_nothing_closes_at_once() -> None:
    rig = Rig()
    rig.hear(x.planned(x.written(items=[])))
    assert [d.ended for d in rig.take(m.CompletionRecord)] == [m.Ended.DONE]
    rig.log.acks[-1](None)
    assert len(rig.take(m.TransferClosed)) == 1


def test_another_workers_plane_does_not_open_parts_for_us() -> None:
    rig = Rig()
    rig.hear(x.planned(ONE))
    rig.take(orders.Open)
    rig.hear(x.opened(), writer="plane-1-1")
    assert rig.take(m.ChunksRequested) == []
    rig.after(OPEN_SETTLE_MS / 1000)
    assert len(rig.take(orders.Open)) == 1, "ours is asked to"
    rig.opened()
    assert len(rig.take(m.ChunksRequested)) == 1


def test_a_lost_part_is_opened_again_and_asked_for_from_the_start() -> None:
    rig = Rig()
    rig.hear(x.planned(ONE))
    rig.opened()
    rig.hear(*rig.take(m.ChunksRequested), x.progress(Ranges([(0, 50)])))
    rig.forget()
    rig.hear(x.lost())
    (order,) = rig.take(orders.Open)
    assert (order.attempt, order.verified) == (2, Ranges())
    rig.opened(attempt=2)
    (asked,) = rig.take(m.ChunksRequested)
    assert (asked.request_no, asked.attempt, asked.ranges) == (2, 2, WHOLE)


def test_a_lease_is_proposed_to_expire_and_the_range_asked_again() -> None:
    rig = Rig()
    rig.hear(x.planned(ONE))
    rig.opened()
    rig.hear(*rig.take(m.ChunksRequested))
    rig.after(19.9)
    assert rig.take(m.LeaseExpired) == []
    rig.after(0.1)
    (lease,) = rig.take(m.LeaseExpired)
    assert (lease.source, lease.request_no) == (x.C, 1)
    assert rig.take(m.ChunksRequested) == [], "a timer proposes; the fact decides"
    rig.hear(lease)
    (asked,) = rig.take(m.ChunksRequested)
    assert (asked.request_no, asked.ranges) == (2, WHOLE)


def test_a_lease_lasts_while_payload_of_its_partition_comes_but_not_for_ever() -> None:
    """On a slow link what was asked for is on its way behind other payload; asked again, it would come twice."""
    rig = Rig()
    rig.hear(x.planned(ONE))
    rig.opened()
    (asked,) = rig.take(m.ChunksRequested)
    rig.hear(asked)
    rig.after(15)
    rig.hear(x.progress(Ranges([(0, 10)])))
    rig.after(19.9)
    assert rig.take(m.LeaseExpired) == []
    rig.after(0.1)
    assert len(rig.take(m.LeaseExpired)) == 1
    rig.forget()
    for verified in range(11, 30):
        rig.hear(x.progress(Ranges([(0, verified)])))
        rig.after(10)
    assert rig.now_ms > asked.until_ms + (LEASES_MAX - 1) * 20_000
    assert rig.take(m.LeaseExpired)


def test_a_cancelled_transfer_is_stopped_and_ends_cancelled() -> None:
    rig = Rig()
    rig.hear(x.body(), x.decided(), ONE, x.planned(ONE), x.reported())
    rig.opened()
    rig.forget()
    rig.hear(x.decided(2, m.Verdict.CANCELLED))
    (told,) = rig.take(m.TransferDecided)
    assert told.verdict is m.Verdict.CANCELLED
    rig.hear(told)
    (stop,) = rig.take(orders.Stop)
    assert (stop.attempt, stop.reason.phase) == (1, "stop")
    assert [r.decision_no for r in rig.take(m.TransferReported)] == [2], "answered: no need to tell again"
    assert (stop.manifest_id, stop.manifest) == (x.MANIFEST, wire.encode(ONE))
    rig.hear(m.PartLost(x.MANIFEST, stop.attempt, stop.reason))
    done = rig.closes()
    assert (done.ended, done.cancelled) == (m.Ended.CANCELLED, Ranges.of(0, 1))


# A last word that a late fact could change is fixed before anybody else hears it.

PARTLY = x.progress(Ranges([(0, 100)]), Ranges.of(0), (x.failed("gone", 1),))
NOT_FINAL = pytest.mark.parametrize(
    ("facts", "ended"),
    [
        ((PARTLY,), m.Ended.PARTLY),
        ((x.progress(failed=(x.failed("gone", 0, 1),)),), m.Ended.FAILED),
        ((PARTLY, DONE), m.Ended.DONE),
        ((x.told(2, m.Verdict.CANCELLED), x.lost(stopped=True)), m.Ended.CANCELLED),
    ],
    ids=["partly", "failed", "failed once", "stopped"],
)


@NOT_FINAL
def test_a_last_word_that_is_not_final_is_fixed_then_published_then_closed(
    facts: tuple[m.Message, ...], ended: m.Ended
) -> None:
    rig = Rig()
    rig.log.full = True  # the first word of "failed once" is never said
    rig.hear(x.planned(ONE), *facts[:-1])
    rig.log.full = False
    rig.after(0)
    rig.forget()
    rig.hear(facts[-1])
    rig.after(0.2)
    (fixed,) = rig.take(m.TransferClosed)
    assert (fixed.acknowledged, fixed.completion.ended) == (False, ended)
    assert rig.transfer().state is transfers.State.COMPLETE
    rig.after(60)
    assert rig.take(m.CompletionRecord) == [], "not said before it is heard"
    assert set(rig.take(m.TransferClosed)) == {fixed}, "only fixed, again and again"
    rig.forget()
    rig.hear(fixed)
    assert rig.transfer().state is transfers.State.CLOSING
    assert rig.take(orders.Forget) == []
    assert rig.take(m.CompletionRecord) == [fixed.completion]
    assert rig.take(m.TransferClosed) == [], "not before all is acknowledged"
    held = rig.take(m.FilesHeld)
    assert sum(len(h.files) for h in held) == fixed.completion.sealed.size
    acks = rig.log.acks[-1 - len(held) :]
    for ack in acks[:-1]:
        ack(None)
        assert rig.take(m.TransferClosed) == []
    acks[-1](None)
    (closed,) = rig.take(m.TransferClosed)
    assert closed == m.TransferClosed(x.MANIFEST, fixed.completion, acknowledged=True)
    rig.hear(closed)
    assert rig.transfer().state is transfers.State.CLOSED
    assert rig.take(orders.Forget) == [orders.Forget(x.MANIFEST)]
    assert rig.tables["manifests"] == {}
    rig.forget()
    rig.after(60)
    assert (rig.log.sent, rig.plane.told) == ([], [])


def test_a_final_last_word_needs_no_fixing() -> None:
    rig = Rig()
    rig.hear(x.planned(ONE), DONE)
    assert [d.ended for d in rig.take(m.CompletionRecord)] == [m.Ended.DONE]
    assert rig.take(m.TransferClosed) == []


def test_what_is_heard_after_the_last_word_was_fixed_changes_it_no_more() -> None:
    rig = Rig()
    rig.hear(x.planned(ONE), PARTLY)
    (fixed,) = rig.take(m.TransferClosed)
    rig.hear(fixed)
    (said,) = rig.take(m.CompletionRecord)
    rig.hear(DONE, x.opened(2), x.closed(acknowledged=False), x.told(3, m.Verdict.CANCELLED))
    rig.sit()
    rig.after(2)
    words = rig.take(m.CompletionRecord)
    assert words
    assert set(words) == {said}
    assert rig.take(orders.Open) == []
    rig.hear(x.planned(ONE))
    assert said in rig.take(m.CompletionRecord), "what is fixed answers a plan"


def test_what_seals_an_item_before_the_word_is_fixed_is_in_it() -> None:
    rig = Rig()
    rig.hear(x.planned(ONE), PARTLY)
    assert [f.completion.ended for f in rig.take(m.TransferClosed)] == [m.Ended.PARTLY]
    rig.hear(DONE)
    rig.after(RECORD_SETTLE_MS / 1000)
    (fixed,) = rig.take(m.TransferClosed)
    assert (fixed.acknowledged, fixed.completion.ended) == (False, m.Ended.DONE)


def test_of_two_words_that_were_to_be_fixed_the_first_in_the_log_is_said() -> None:
    """A worker that was thought dead said one, its successor another: every worker says what stands first."""
    one, two = (x.completed(failed=(x.failed(text, 1),)) for text in ("gone", "away"))
    rig = Rig()
    rig.hear(x.planned(ONE), PARTLY)
    rig.forget()
    rig.hear(x.closed(one, acknowledged=False), x.closed(two, acknowledged=False))
    assert set(rig.take(m.CompletionRecord)) == {one}
    rig.hear(x.closed(two))
    assert rig.transfer().completion == one


def test_a_closing_transfer_whose_completion_was_lost_says_it_again() -> None:
    rig = Rig()
    rig.hear(x.planned(ONE), PARTLY)
    rig.hear(*rig.take(m.TransferClosed))
    said = rig.take(m.CompletionRecord)
    rig.log.acks[-1](RuntimeError("broker away"))
    rig.log.acks[-2](None)
    assert rig.take(m.TransferClosed) == []
    rig.after(2)
    assert rig.take(m.CompletionRecord) == said


def test_a_file_already_there_completes_without_bytes() -> None:
    rig = Rig()
    rig.hear(x.planned(ONE))
    rig.hear(x.opened(present=Ranges.of(0, 1)), writer=rig.plane.writer)
    assert rig.take(m.ChunksRequested) == []
    assert [d.ended for d in rig.take(m.CompletionRecord)] == [m.Ended.DONE]


# Settling: what was sent and not heard back is not sent again for a while, then it is.


@pytest.mark.parametrize(
    ("facts", "kind", "settle_s"),
    [
        ((x.body(), x.decided(), ONE), m.TransferPlanned, 30.0),
        ((x.planned(ONE),), orders.Open, 10.0),
        ((x.planned(ONE), x.told(2, m.Verdict.CANCELLED)), orders.Stop, 2.0),
        ((x.planned(ONE), DONE), m.CompletionRecord, 30.0),
        ((x.planned(ONE), PARTLY), m.TransferClosed, 30.0),
        ((x.planned(ONE), x.closed(acknowledged=False)), m.CompletionRecord, 30.0),
        ((x.body(), x.decided(), ONE, x.reported(), x.decided(2, m.Verdict.CANCELLED)), m.TransferDecided, 30.0),
    ],
)
def test_what_was_sent_settles_before_it_is_sent_again(
    facts: tuple[m.Message, ...], kind: type, settle_s: float
) -> None:
    rig = Rig(policy=Policy(settle_s=2.0))
    rig.hear(*facts[:-1])
    rig.forget()
    rig.hear(facts[-1])
    assert len(rig.take(kind)) == 1
    rig.hear(facts[-1])
    rig.after(settle_s - 0.1)
    assert rig.take(kind) == []
    rig.after(0.1)
    assert len(rig.take(kind)) == 1
    rig.after(settle_s)
    assert len(rig.take(kind)) == 1


@pytest.mark.parametrize(
    ("facts", "kind"),
    [
        ((x.body(), x.decided(), ONE), m.TransferPlanned),
        ((x.planned(ONE),), m.TransferReported),
        ((x.planned(ONE), x.opened()), m.ChunksRequested),
        ((x.planned(ONE), PARTLY), m.TransferClosed),
        ((x.body(), x.decided(), ONE, x.reported(), x.decided(2, m.Verdict.CANCELLED)), m.TransferDecided),
    ],
)
def test_what_the_publisher_gave_up_is_owed_again_at_once(facts: tuple[m.Message, ...], kind: type) -> None:
    rig = Rig()
    rig.hear(*facts[:-1])
    rig.forget()
    rig.hear(facts[-1], writer=rig.plane.writer)
    (said,) = rig.take(kind)
    for acknowledged in rig.log.acks:
        acknowledged(RuntimeError("broker away"))
    rig.after(0)
    assert rig.take(kind) == [said]


def test_what_could_not_be_taken_is_offered_again_soon() -> None:
    rig = Rig()
    rig.log.full = rig.plane.full = True
    rig.hear(x.body(), x.decided(), ONE, x.planned(ONE))
    rig.log.full = rig.plane.full = False
    rig.after(0.2)
    assert len(rig.take(m.TransferPlanned)) == 1
    assert len(rig.take(orders.Open)) == 1


def test_a_report_that_could_not_be_sent_is_sent_later() -> None:
    rig = Rig()
    rig.hear(x.planned(ONE))
    rig.take(m.TransferReported)
    rig.log.full = True
    rig.after(3)
    rig.opened()
    rig.log.full = False
    rig.after(3)
    assert [r.state for r in rig.take(m.TransferReported)] == ["active"]


# A new plane.


def test_a_new_plane_is_told_everything_again() -> None:
    rig = Rig()
    rig.hear(x.planned(ONE))
    rig.opened()
    rig.hear(*rig.take(m.ChunksRequested), x.progress(Ranges([(0, 50)])))
    serve = m.ChunksRequested(
        x.ManifestId(f"{x.INTENT}.0.9"), x.A, x.B, 1, 1, "log",
        (m.RequestedItem(0, x.lfn(9), 0, 5, ""),), Ranges([(0, 5)]), rig.now_ms + 9_000,
    )  # fmt: skip
    rig.hear(serve)
    rig.forget()
    rig.plane.writer = "plane-0-2"
    rig.dispatcher.plane_restarted()
    (assign,) = rig.take(orders.Assign)
    partition = rig.record(x.opened())["partition"]
    assert assign.partitions[partition] == rig.now_ms - REOPENED_MS, "what is in flight is read again"
    longest = replace(serve, until_ms=rig.now_ms + LEASES_MAX * 9_000)
    assert [o.request for o in rig.take(orders.Serve)] == [longest]
    rig.dispatcher.tick()
    (order,) = rig.take(orders.Open)
    assert (order.attempt, order.verified) == (1, Ranges([(0, 50)])), "at once, without settling"
    rig.hear(x.opened(), writer="plane-0-1")
    rig.hear(x.progress(Ranges([(0, 60)])))
    assert rig.take(m.ChunksRequested) == [], "the old plane's word opens nothing"


def test_a_new_plane_is_told_what_to_write() -> None:
    rig = Rig(x.C)
    rig.hear(x.body(), x.decided())
    assert len(rig.take(orders.Write)) == 1
    rig.dispatcher.plane_restarted()
    rig.dispatcher.tick()
    assert len(rig.take(orders.Write)) == 1


# Serving others.


def serving(until_ms: int, no: int = 1) -> m.ChunksRequested:
    items = (m.RequestedItem(0, x.lfn(0), 0, 150, "v0"),)
    return m.ChunksRequested(x.MANIFEST, x.B, x.C, no, 1, "log", items, WHOLE, until_ms)


def test_a_request_is_served_once_within_its_lease() -> None:
    rig = Rig(x.C)
    rig.hear(serving(rig.now_ms + 5_000), serving(rig.now_ms + 5_000), serving(rig.now_ms + 5_000, 2))
    assert [o.request.request_no for o in rig.take(orders.Serve)] == [1, 2]
    rig.hear(serving(rig.now_ms, 3))
    assert rig.take(orders.Serve) == [], "its lease is over"
    rig.hear(m.ChunksServed(x.MANIFEST, x.C, x.B, 1, WHOLE, 150))
    assert [r.request_no for r in rig.dispatcher.serving.values()] == [2]
    rig.now_ms += LEASES_MAX * 5_000 - 1
    rig.dispatcher.forget_expired()
    assert rig.dispatcher.serving, "its payload may wait behind other payload: the destination waits too"
    rig.now_ms += 1
    rig.dispatcher.forget_expired()
    assert rig.dispatcher.serving == {}


def test_a_site_that_is_its_own_source_serves_itself() -> None:
    rig = Rig(x.B)
    items = [x.item(0, 150, holder=x.B)]
    rig.hear(x.planned(x.written(items=items)))
    rig.opened()
    (asked,) = rig.take(m.ChunksRequested)
    assert asked.source == x.B
    rig.hear(asked)
    longest = replace(asked, until_ms=rig.now_ms + LEASES_MAX * 20_000)
    assert [o.request for o in rig.take(orders.Serve)] == [longest]
    assert rig.transfer().source_row(x.B).requested == 1
