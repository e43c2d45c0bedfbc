"""The dispatcher: a record is applied or a dead letter; faults of the environment are raised; planes are told all."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from streams import wire
from streams.core import records as m
from streams.core.intent import Decision
from streams.core.policy import LEASES_MAX
from streams.core.ranges import Ranges
from streams.errors import WireError
from streams.planes import orders
from streams.worker import dispatcher as dispatcher
from streams.worker import effects, rows
from streams.worker.dispatcher import REOPENED_MS
from streams.worker.rows import TableFailed
from streams.worker.scheduler import RECORD_SETTLE_MS
from tests.core import example as x
from tests.worker.rig import ENVIRONMENT, ONE, WHOLE, Rig

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
    record = rig.record(x.body(files=[5, 7, 11]))  # one that this process has not decoded before
    with monkeypatch.context() as patch:
        patch.setattr("streams.wire.versions.Version.at_once", raises(MemoryError()))
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
