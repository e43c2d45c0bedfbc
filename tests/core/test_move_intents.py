"""A move is a copy that ends behind the last words of the sites that its files leave, in any order."""

from __future__ import annotations

from dataclasses import replace
from itertools import permutations

import pytest

from streams.client.intent_snapshot import IntentFold
from streams.client.snapshot_json import from_plain, to_plain
from streams.core import records as m
from streams.core.intent import State
from streams.core.names import Destination, Site, Text
from streams.core.routing import Holders, decide
from tests.core import example as x
from tests.core.folded import row, seen

BODY = replace(x.body(), source=x.C, verb=m.Verb.MOVE, release_from=(x.C,))
DECIDED = x.decided(wish=BODY)
COPIED = (BODY, DECIDED, x.written(), x.completed())
GONE = x.removed(0, 2, site=x.C)


def test_it_ends_when_its_source_has_said_its_last_word_in_whatever_order_that_is_heard() -> None:
    assert row(*COPIED).state is State.ACTIVE
    assert row(*COPIED, replace(GONE, last=False)).state is State.ACTIVE
    told = set()
    for facts in permutations((*COPIED, GONE)):
        assert seen(*facts).state is State.DONE
        if facts.index(COPIED[2]) > facts.index(DECIDED):  # a row keeps no manifest of before
            found = row(*facts)
            assert found.state is State.DONE
            told.add(repr(found))
    assert len(told) == 1
    assert row(BODY, DECIDED, GONE).state is State.ACTIVE, "what it brings is not there yet"


@pytest.mark.parametrize(
    ("kept", "gone", "outcome", "exit_code"), [(0, 2, "done", 0), (1, 1, "partly", 8), (2, 0, "partly", 8)]
)
def test_what_stays_at_its_source_is_told_and_counts_as_no_arrival(
    kept: int, gone: int, outcome: str, exit_code: int
) -> None:
    found = seen(*COPIED, x.removed(0, gone, kept, site=x.C))
    assert (found.ended, found.outcome, found.exit_code) == (True, outcome, exit_code)
    assert (found.files, found.arrived) == (2, 2)
    ((site, leaving),) = ((one.destination, one) for one in found.leaving)
    assert (site, leaving.arrived, leaving.failed) == (x.C, gone, kept)
    assert [one.destination for one in found.destinations] == [x.B]
    assert len(found.unfinished) == bool(kept)
    assert from_plain(to_plain(found)) == found


def test_all_has_arrived_before_it_ends() -> None:
    fold = IntentFold(x.INTENT)
    for fact in COPIED[:-1]:
        fold.hear(fact, 1000)
        assert not fold.head.landed
    fold.hear(COPIED[-1], 1000)
    assert (fold.head.landed, fold.head.ended, fold.head.leaving) == (True, False, (x.C,))


def test_one_that_is_cancelled_has_ended_whatever_its_source_says() -> None:
    cancelled = x.decided(2, m.Verdict.CANCELLED, wish=BODY)
    assert row(*COPIED, cancelled).state is State.CANCELLED
    assert row(*COPIED, GONE, cancelled).state is State.DONE, "all had been done"


def test_the_sites_that_its_files_leave_play_a_part_in_it() -> None:
    other = replace(BODY, source=None, release_from=(Site("S_D"),))
    assert row(other, x.decided(wish=other)).concerns(Site("S_D"))
    assert row(*COPIED, GONE).leaving == (x.C,), "also when its body is let go"


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"release_from": ()}, "release_from: 0 given, must be 1 to 1000"),
        ({"release_from": (x.C, x.C)}, "release_from: one is named twice"),
        ({"release_from": (x.B,)}, f"release_from: {x.B} is a destination too"),
        ({"selection": "objects:h*"}, "selection: of a copy only"),
        ({"repair": True}, "repair: of a copy only"),
        ({"copies": 0}, "copies: 0, and one at least must be kept"),
        ({"destinations": (Destination("S_B/ann"),)}, "destinations: S_B/ann keeps no files"),
    ],
)
def test_what_a_move_may_not_say(change: dict[str, object], why: str) -> None:
    assert m.fault(replace(BODY, **change)) == why  # type: ignore[arg-type]
    assert m.fault(BODY) is None
    assert m.fault(replace(BODY, copies=2, open=True)) is None


def test_files_leave_sites_by_moves_and_removals_only() -> None:
    assert m.fault(replace(x.body(), release_from=(x.C,))) == "release_from: of a move only"
    assert m.fault(replace(x.removal(), release_from=(x.C,))) == "release_from: of a copy only"
    assert m.leaving_sites(x.body()) == ()
    assert m.leaving_sites(x.removal()) == (x.B,)
    assert m.leaving_sites(BODY) == (x.C,)


def test_an_owner_is_who_asks_from_whatever_machine_unless_another_is_named() -> None:
    asked = replace(BODY, requester=Text("ann@desk.example.org"))
    assert m.owner_of(asked) == "ann"
    assert m.owner_of(replace(asked, owner=Text("higgs"))) == "higgs"


def test_a_home_refuses_a_move_from_a_site_that_is_none() -> None:
    strange = replace(BODY, release_from=(Site("S_X"),))
    known = Holders(2, {x.C: (2, 20)}, ())
    decided = decide(strange, known, (x.A, x.B, x.C), (), waited=False)
    assert decided is not None
    assert decided.verdict is m.Verdict.REFUSED
    accepted = decide(BODY, known, (x.A, x.B, x.C), (), waited=False)
    assert accepted is not None
    assert (accepted.verdict, accepted.source) == (m.Verdict.ACCEPTED, x.C)
