"""I8: a row is put on every turn, changed or not, since its changelog may have died with a worker."""

from __future__ import annotations

import pytest

from streams import wire
from streams.core import records as m
from streams.core.manifest import Manifest
from streams.core.ranges import Ranges
from streams.worker import dispatcher as dispatcher
from streams.worker import rows
from tests.core import example as x
from tests.worker.rig import ONE, Rig


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
