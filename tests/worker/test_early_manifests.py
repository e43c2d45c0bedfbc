"""Manifests that come early, twice or from the wrong hand: which one counts, where it waits, when it is forgotten."""

from __future__ import annotations

import pytest

from streams import wire
from streams.core import records as m
from streams.core.manifest import Manifest
from streams.worker import dispatcher as dispatcher
from tests.core import example as x
from tests.worker.rig import ONE, Rig


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
    """Of those that came early it keeps the links, some 200 bytes each, until the intent ends."""
    chain = x.chain(2)
    for facts in (
        (*chain, x.body(), x.decided()),
        (x.body(), x.decided(), *chain),
        (chain[1], x.body(), x.decided(), chain[0], *chain),
    ):
        rig = Rig(here)
        rig.hear(*facts)
        assert rig.intent().chain.next_no == 2, "it counts along"
        assert [key for key in rig.tables["waiting"] if not key.endswith(("@link", "@@early"))] == []
        rig.hear(*(x.completed(written.manifest) for written in chain))
        assert rig.intent().ended
        assert rig.tables["waiting"].copy() == {}


@pytest.mark.parametrize("here", [x.A, x.C, x.Site("S_D")], ids=["home", "source", "no part"])
def test_a_row_whose_put_was_lost_finds_its_early_manifests_again(here: x.Site) -> None:
    """Each table has a changelog of its own: what is deleted in a turn may be gone though the row's put is."""
    chain = x.chain(2)
    rig = Rig(here)
    rig.hear(*chain, x.body())
    before = rig.tables["intents"].copy()
    rig.hear(x.decided())
    rig.tables["intents"].clear()
    rig.tables["intents"].update(before)
    rig.sit()
    rig.hear(x.decided(), *(x.completed(written.manifest) for written in chain))
    assert rig.intent().chain.last
    assert rig.intent().ended


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
