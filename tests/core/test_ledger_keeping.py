"""I13, I14, I18: what an audit finds of removals, and what it does not find."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streams.auditing.index import open_index
from streams.core import records as m
from streams.core import topics
from streams.core.ledger import keeping_files
from streams.core.ledger.findings import Invariant, LogPosition
from streams.core.ledger.rows import KEEPING, REPLICA
from streams.core.names import Adler32, Block, Dataset, Lfn, Text
from streams.core.records.keeping import ChainSettled, LeavingFile, NotedClaim, ReliedOn, RemovedFiles
from streams.core.selectors import Kind, Selector
from tests.audit.history import DATASET, LATER_MS, WHY, A, B, C, hear, item
from tests.audit.keeping import DISK, INTENT, TAPE, WHOLE, Keepers, lfn
from tests.audit.test_audit_index import OF, judged, ledger_over
from tests.core.test_ledger_order import _interleaved

I13, I14, I18 = Invariant.LAST_COPY, Invariant.CLAIMED, Invariant.REMOVAL


def said(world: Keepers, place: LogPosition) -> m.RemovalDecided:
    step = world.decoded(place, world.at(place)).message
    assert isinstance(step, m.RemovalDecided)
    return step


# What is right.


def test_a_removal_that_stands_is_found_clean() -> None:
    world = Keepers()
    world.removed(A)
    told = world.told()
    assert (told.findings, told.waiting) == ((), ())
    assert told.checked[I13] == 2
    assert told.checked[I18] == 3, "a promise, a removal and its end"


def test_all_leave_in_turn_but_the_last() -> None:
    world = Keepers()
    world.removed(A)
    world.removed(B, by=C)
    assert world.told().findings == ()


def test_what_was_removed_may_land_again_and_leave_again() -> None:
    world = Keepers()
    world.removed(A)
    world.step(world.noting(A, WHOLE))
    world.hold(A, 1, word="again")
    world.step(world.noting(A, ended=("whole",)))
    ask = world.asked(A, 1, words=("again",))
    promise = world.promised(C, ask, 1)
    world.step(removal := world.removing(ask, 1, by=[promise]))
    world.give_up(A, 1, removal=removal, words=("again",))
    assert world.told().findings == ()


def test_a_registration_of_before_words_has_its_record_s_origin_for_one() -> None:
    world = Keepers()
    place = world.hold(A, 7, word="")
    origin = world.decoded(place, world.at(place)).origin
    world.hold(B, 7)
    ask = world.asked(A, 7, words=(f"{origin.incarnation}/{origin.seq}",))
    promise = world.promised(B, ask, 7)
    world.step(removal := world.removing(ask, 7, by=[promise]))
    world.give_up(A, 7, removal=removal, words=(f"{origin.incarnation}/{origin.seq}",))
    assert world.told().findings == ()
    assert world.told().checked[I13] == 1


def test_an_accident_behind_a_promise_is_nobody_s_decision() -> None:
    world = Keepers(A, B)
    world.removed(A)
    world.give_up(B, 1, 2)
    assert world.told().findings == ()


def test_a_move_leaves_what_its_own_claim_covers() -> None:
    world = Keepers()
    world.decide(world.ask(7, B))
    world.step(world.noting(A, replace(WHOLE, lands=False, intent=INTENT)))
    ask = world.asked(A, 1, cause=INTENT)
    promise = world.promised(B, ask, 1)
    world.step(removal := world.removing(ask, 1, by=[promise], cause=INTENT))
    world.give_up(A, 1, removal=removal)
    assert world.told().findings == ()


def test_another_endpoint_of_the_site_stands_for_a_promise() -> None:
    world = Keepers(A, B)
    world.hold(A, 1, word="t", endpoint=TAPE)
    ask = world.asked(A, 1)
    world.step(removal := world.removing(ask, 1, endpoints=(TAPE,)))
    world.give_up(A, 1, removal=removal)
    assert world.told().findings == ()


def test_places_of_a_site_are_copies_of_their_own() -> None:
    world = Keepers(A, B)
    for endpoint in (TAPE, "scratch"):
        world.hold(A, 1, word=endpoint, endpoint=endpoint)
    ask = world.asked(A, 1, copies=2)
    world.step(removal := world.removing(ask, 1, endpoints=(TAPE, "scratch")))
    world.give_up(A, 1, removal=removal)
    asked = world.asked(B, 1, copies=2)
    promise = world.promised(A, asked, 1)
    assert [one.invariant for one in world.told().broken] == []
    world.step(other := world.removing(asked, 1, by=[promise]))
    world.give_up(B, 1, removal=other)
    assert {one.invariant for one in world.told().broken} == {I18}, "two places are left, on one promise"


def test_what_is_removed_for_good_needs_no_promise() -> None:
    world = Keepers(A, B, files=1)
    world.decide(world.ask(7, B))
    for site in (A, B):
        ask = world.asked(site, 1, copies=0, cause=INTENT)
        world.step(removal := world.removing(ask, 1, cause=INTENT))
        world.give_up(site, 1, removal=removal)
    assert world.told().findings == ()


def test_a_removal_for_good_that_serves_no_intent() -> None:
    world = Keepers(A, B, files=1)
    ask = world.asked(A, 1, copies=0)
    place = world.step(removal := world.removing(ask, 1))
    world.give_up(A, 1, removal=removal)
    finding = world.finding()
    assert finding.words == (
        f"RemovalDecided 2 of {A} about {DATASET} removes for good, without a promise, and its ask 1 serves no intent"
    )
    assert finding.records == (place, world.where(A, topics.KEEPING)[0])


def test_refusals_and_asks_that_end_as_kept() -> None:
    world = Keepers()
    ask = world.asked(A)
    world.step(replace(world.promising(B, ask), promised=(), refused=(m.KeptFile(lfn(1), Text("claimed")),)))
    world.step(world.keeping(ask, 1, 2))
    assert world.told().findings == ()


# I13.


def test_two_sites_that_removed_the_last_copies() -> None:
    """Both kept their promise and their ask open: a promise that aborts nothing."""
    world = Keepers(A, B, files=1)
    asks = {site: world.asked(site, 1) for site in (A, B)}
    promises = {site: world.promised(site, asks[other], 1) for site, other in ((A, B), (B, A))}
    places = []
    for site, other in ((A, B), (B, A)):
        removal = world.removing(asks[site], 1, by=[promises[other]])
        places.append(world.step(removal))
        world.give_up(site, 1, removal=removal)
    found = world.told().broken
    by = {one.invariant: one for one in found}
    assert by[I13].words == f"decisions of {A}, {B} leave 0 of 1 copies of {lfn(1)} in {DATASET}"
    ends = world.where(A, topics.REPLICAS, lambda r: isinstance(r, m.FilesLost))
    assert ends[0] in by[I13].records
    asked = [one for one in found if one.words.startswith("RemovalDecided 3")]
    assert [one.words for one in asked] == [
        f"RemovalDecided 3 of {site} about {DATASET} removes {lfn(1)} by its ask 1, which is not open for it: "
        f"{site} promised it in step 2"
        for site in (A, B)
    ]
    assert [one.records[0] for one in asked] == places


def test_fewer_copies_than_were_asked_for() -> None:
    world = Keepers()
    for site, other in ((A, B), (B, C)):
        ask = world.asked(site, 1, copies=2)
        promise = world.promised(other, ask, 1)
        world.step(removal := world.removing(ask, 1, by=[promise]))
        world.give_up(site, 1, removal=removal)
    found = world.told().broken
    assert [one.words for one in found if one.invariant is I13] == [
        f"decisions of {A}, {B} leave 1 of 2 copies of {lfn(1)} in {DATASET}"
    ]
    relies = [one.words for one in found if one.invariant is I18]
    assert relies == [
        f"RemovalDecided {no} of {site} about {DATASET} removes {lfn(1)} and relies on 1 other copies, 2 are asked for"
        for no, site in ((2, A), (3, B))
    ]


def test_copies_of_another_dataset_are_none() -> None:
    """The same LFN there is another file to keep."""
    world = Keepers(A, B, files=1)
    other = m.HeldFile(lfn(1), Block("/Other/R/AOD#b"), 5, Adler32("0000000a"), "v1")
    world.registrars[A].say(m.FilesHeld(Dataset("/Other/R/AOD"), A, (other,), None, DISK, "", "o"))
    ask = world.asked(A, 1)
    world.step(removal := world.removing(ask, 1))
    world.give_up(A, 1, removal=removal)
    world.give_up(B, 1, removal="ab" * 32)
    assert [one.words for one in world.told().broken if one.invariant is I13] == [
        f"decisions of {A}, {B} leave 0 of 1 copies of {lfn(1)} in {DATASET}"
    ]


# I18: asks.


def test_a_removal_by_an_ask_that_nobody_made() -> None:
    world = Keepers()
    ask = world.asking(A, 1)
    promise = world.promised(B, world.asked(A, 2), 2)
    place = world.step(world.removing(replace(ask, no=7), 1, by=[promise]))
    finding = world.finding()
    assert finding.invariant is I18
    assert finding.records == (place,)
    assert finding.words == (
        f"RemovalDecided 2 of {A} about {DATASET} removes {lfn(1)} by its ask 7, which is not open for it: "
        "no ask has that number"
    )


def test_a_removal_of_a_file_that_was_not_asked_for() -> None:
    world = Keepers()
    ask = world.asked(A, 1)
    promise = world.promised(B, ask, 1)
    place = world.step(world.removing(ask, 1, 2, by=[promise]))
    world.give_up(A, 1, removal=said(world, place))
    finding = world.finding()
    assert f"removes {lfn(2)} by its ask 1, which is not open for it: it was not asked for in it" in finding.words
    assert finding.records == (place, *world.where(A, topics.KEEPING)[:1])


ABORTS = {
    "a promise": (lambda w, ask: w.promised(A, w.asked(B, 1), 1), f"{A} promised it in step 2", A),
    "a claim": (lambda w, ask: w.step(w.noting(A, WHOLE)), "claim whole of step 2 covers it", A),
    "another process": (
        lambda w, ask: w.step(w.asking(A, 2, process="q")),
        "another process wrote step 2",
        A,
    ),
    "its end": (lambda w, ask: w.step(w.keeping(ask, 1)), "step 2 keeps it", A),
}


@pytest.mark.parametrize("how", ABORTS)
def test_a_removal_whose_ask_was_aborted(how: str) -> None:
    abort, why, site = ABORTS[how]
    world = Keepers()
    ask = world.asked(A, 1)
    promise = world.promised(C, ask, 1)
    abort(world, ask)
    place = world.step(world.removing(ask, 1, by=[promise], process="q" if how == "another process" else "p"))
    finding = world.finding()
    assert finding.words == (
        f"RemovalDecided 3 of {A} about {DATASET} removes {lfn(1)} by its ask 1, which is not open for it: {why}"
    )
    assert finding.records == (place, world.where(site, topics.KEEPING)[1])


def test_a_claim_of_whatever_process_leaves_other_asks_open() -> None:
    world = Keepers()
    ask = world.asked(A, 1, 2)
    promise = world.promised(B, ask, 1, 2)
    one = NotedClaim("one", DISK, (Selector(Kind.FILE, lfn(1)),))
    world.step(world.noting(A, one, process="planner"))
    world.step(removal := world.removing(ask, 2, by=[promise]))
    world.give_up(A, 2, removal=removal)
    assert world.told().findings == ()


def test_a_removal_of_what_a_live_claim_covers() -> None:
    world = Keepers()
    noted = world.step(world.noting(A, WHOLE))
    ask = world.asked(A, 1)
    promise = world.promised(B, ask, 1)
    place = world.step(world.removing(ask, 1, by=[promise]))
    finding = world.finding()
    assert finding.words.endswith("claim whole of step 1 covers it")
    assert finding.records == (place, noted)


def test_a_removal_before_its_time() -> None:
    world = Keepers()
    ask = world.asked(A, 1, not_before_ms=1000)
    promise = world.promised(B, ask, 1)
    place = world.step(world.removing(ask, 1, by=[promise], at_ms=999))
    finding = world.finding()
    assert finding.words == f"RemovalDecided 2 of {A} about {DATASET} comes 1 ms before its ask 1 allows"
    assert finding.records == (place, world.where(A, topics.KEEPING)[0])


def test_an_ask_by_words_that_nobody_said() -> None:
    world = Keepers()
    ask = world.asked(A, 1, words=("other",))
    promise = world.promised(B, ask, 1)
    world.step(removal := world.removing(ask, 1, by=[promise]))
    world.give_up(A, 1, removal=removal, words=("other",))
    assert world.finding().words == (
        f"RemovalDecided 2 of {A} about {DATASET} removes {lfn(1)} by words that {A} never said"
    )


def test_a_removal_for_an_intent_that_nobody_asked_for() -> None:
    world = Keepers()
    ask = world.asked(A, 1, cause=INTENT)
    promise = world.promised(B, ask, 1)
    place = world.step(removal := world.removing(ask, 1, by=[promise], cause=INTENT))
    world.give_up(A, 1, removal=removal)
    finding = world.finding()
    assert finding.words == f"RemovalDecided 2 of {A} about {DATASET} serves {INTENT}, which nobody asked for"
    assert finding.records == (place,)


# I18: promises.


def test_a_removal_on_no_promise() -> None:
    world = Keepers()
    ask = world.asked(A)
    place = world.step(removal := world.removing(ask, 1, 2))
    world.give_up(A, 1, 2, removal=removal)
    finding = world.finding()
    assert finding.words == (
        f"RemovalDecided 2 of {A} about {DATASET} removes {lfn(1)} (and 1 more files) and relies on 0 other copies, "
        "1 are asked for"
    )
    assert finding.records == (place,)


@pytest.mark.parametrize(
    ("relied", "why"),
    [
        (ReliedOn(B, 9), f"relies on step 9 of {B}, which stands nowhere"),
        (ReliedOn(B, 1), f"relies on step 1 of {B}, which is a ClaimDecided"),
        (ReliedOn(C, 1), f"relies on step 1 of {C}, which answers another ask"),
    ],
)
def test_a_promise_that_does_not_stand_where_it_is_said(relied: ReliedOn, why: str) -> None:
    world = Keepers()
    world.step(world.noting(B, ended=("none",)))
    first = world.asked(A, 2)
    world.promised(C, first, 2)
    ask = world.asked(A, 1)
    group = RemovedFiles((lfn(1),), (relied,))
    place = world.step(replace(world.removing(ask, 1), removed=(group,)))
    world.give_up(A, 1, removal=said(world, place))
    finding = world.finding()
    assert finding.words == f"RemovalDecided 3 of {A} about {DATASET} {why}"
    assert finding.records[0] == place


def test_a_promise_that_does_not_count() -> None:
    """The chain of B is disputed when it promises."""
    world = Keepers()
    world.step(replace(world.noting(B, ended=("none",)), no=3, prev_sha256="ab" * 32))
    ask = world.asked(A, 1)
    promise = world.promised(B, ask, 1)
    place = world.step(removal := world.removing(ask, 1, by=[promise]))
    world.give_up(A, 1, removal=removal)
    relied, _ = sorted(world.told().broken, key=lambda one: one.words)
    assert relied.words == f"RemovalDecided 2 of {A} about {DATASET} relies on step 1 of {B}, which does not count"
    assert relied.records == (place, world.where(B, topics.KEEPING)[1])


def test_a_promise_of_other_files() -> None:
    world = Keepers()
    ask = world.asked(A)
    promise = world.promised(B, ask, 1)
    place = world.step(removal := world.removing(ask, 1, 2, by=[promise]))
    world.give_up(A, 1, 2, removal=removal)
    finding = world.finding()
    assert finding.words == (
        f"RemovalDecided 2 of {A} about {DATASET} removes {lfn(2)} and relies on step 1 of {B}, "
        "which does not promise it"
    )
    assert finding.records == (place, world.where(B, topics.KEEPING)[0])


def test_a_promise_by_who_was_not_asked() -> None:
    world = Keepers()
    ask = world.asked(A, 1, asked=(C,))
    world.promised(B, ask, 1)
    finding = world.finding()
    assert finding.words == f"KeepPromised 1 of {B} about {DATASET} answers ask 1 of {A}, which does not ask {B}"
    assert finding.records == (world.where(B, topics.KEEPING)[0], world.where(A, topics.KEEPING)[0])


def test_a_promise_that_nobody_asked_for() -> None:
    world = Keepers()
    world.promised(B, world.asking(A, 1), 1)
    assert world.finding().words == (f"KeepPromised 1 of {B} about {DATASET} answers ask 1 of {A}, which nobody made")


def test_a_promise_of_what_was_not_asked_for() -> None:
    world = Keepers()
    world.promised(B, world.asked(A, 1), 1, 2)
    assert world.finding().words == (
        f"KeepPromised 1 of {B} about {DATASET} promises {lfn(2)}, for which ask 1 of {A} does not ask"
    )


def test_a_promise_to_an_ask_that_lost_its_race() -> None:
    world = Keepers()
    lost = world.asking(A, 1, process="late")
    world.step(world.noting(A, ended=("none",)))
    world.step(lost)
    world.promised(B, lost, 1)
    assert world.finding().words == (
        f"KeepPromised 1 of {B} about {DATASET} answers ask 1 of {A}, which does not count"
    )


def test_a_promise_of_what_no_plane_had_looked_at() -> None:
    for noted_no in (None, 1):
        world = Keepers()
        ask = world.asked(A, 1)
        promise = world.promising(B, ask, 1)
        if noted_no is not None:
            world.looked(promise, noted_no=noted_no)  # too late: behind the promise
        place = world.step(promise)
        finding = world.finding()
        assert finding.words == (
            f"KeepPromised 1 of {B} about {DATASET} promises {lfn(1)}, which no plane of {B} had found whole for it"
        )
        assert finding.records == (place,)


def test_a_promise_by_who_never_held_the_file() -> None:
    world = Keepers()
    world.hold(A, 3)
    ask = world.asked(A, 3)
    place = world.step(promise := world.looked(world.promising(B, ask, 3)))
    world.step(removal := world.removing(ask, 3, by=[promise]))
    world.give_up(A, 3, removal=removal)
    found = world.told().broken
    assert [one.words for one in found] == [
        f"decisions of {A} leave 0 of 1 copies of {lfn(3)} in {DATASET}",
        f"KeepPromised 1 of {B} about {DATASET} promises {lfn(3)}, which {B} never said that it holds",
    ]
    assert found[1].records == (place,)


def test_a_promise_by_who_had_removed_the_file() -> None:
    world = Keepers()
    world.removed(B, by=C)
    world.promised(B, world.asked(A, 1), 1)
    finding = world.finding()
    assert finding.words == (
        f"KeepPromised 3 of {B} about {DATASET} promises {lfn(1)}, which {B} had removed in step 2"
    )
    assert finding.records == (world.where(B, topics.KEEPING)[2], world.where(B, topics.KEEPING)[1])


def test_an_endpoint_that_stands_for_a_promise_and_does_not_hold_the_file() -> None:
    world = Keepers()
    ask = world.asked(A, 1)
    world.step(removal := world.removing(ask, 1, endpoints=(TAPE,)))
    world.give_up(A, 1, removal=removal)
    assert world.finding().words == (
        f"RemovalDecided 2 of {A} about {DATASET} removes {lfn(1)} and counts {TAPE} for a copy, which does not hold it"
    )
    world = Keepers()
    ask = world.asked(A, 1)
    promise = world.promised(B, ask, 1)
    world.step(removal := world.removing(ask, 1, by=[promise], endpoints=(DISK,)))
    world.give_up(A, 1, removal=removal)
    assert f"counts {DISK} for a copy, from which it removes" in world.finding().words


# I18: ends.


def test_the_end_of_a_removal_that_nobody_decided() -> None:
    world = Keepers()
    world.removed(A, 1)
    place = world.give_up(A, 2, removal="ab" * 32)
    finding = world.finding()
    assert finding.words == f"FilesLost of {A} about {DATASET} says the end of a removal that nobody decided"
    assert finding.records == (place,)


def test_the_end_of_a_removal_that_does_not_count() -> None:
    world = Keepers()
    ask = world.asked(A, 1)
    promise = world.promised(B, ask, 1)
    void = world.removing(ask, 1, by=[promise])
    world.step(world.noting(A, ended=("none",)))
    where = world.step(void)
    place = world.give_up(A, 1, removal=void)
    finding = world.finding()
    assert finding.words == (
        f"FilesLost of {A} about {DATASET} says the end of a removal that is its step 2, "
        "a RemovalDecided that does not count"
    )
    assert finding.records == (place, where)


def test_an_end_of_other_files_words_or_endpoint_than_its_removal() -> None:
    for change, why in (
        ({"numbers": (1, 2)}, f"gives up {lfn(2)}, which removal 2 did not order"),
        ({"words": ("w", "later")}, f"takes back words of {lfn(1)} that the ask of removal 2 does not name"),
        ({"endpoint": TAPE}, f"speaks of {TAPE}, its removal 2 of {DISK}"),
    ):
        world = Keepers()
        world.hold(A, 1, word="later")
        ask = world.asked(A, 1)
        promise = world.promised(B, ask, 1)
        decided = world.step(removal := world.removing(ask, 1, by=[promise]))
        numbers = change.pop("numbers", (1,))
        place = world.give_up(A, *numbers, removal=removal, **change)  # type: ignore[arg-type]
        finding = world.finding()
        assert finding.words == f"FilesLost of {A} about {DATASET} {why}"
        assert finding.records == (place, decided)


def test_a_removal_whose_end_is_not_said_is_open() -> None:
    world = Keepers()
    ask = world.asked(A)
    promise = world.promised(B, ask)
    place = world.step(removal := world.removing(ask, 1, 2, by=[promise]))
    world.give_up(A, 1, removal=removal)
    told = world.told(LATER_MS + 3_600_000)
    assert told.broken == ()
    (note,) = told.notes
    assert note.words.startswith(f"RemovalDecided 2 of {A} about {DATASET} is open since ")
    assert note.words.endswith(": the end of 1 files is not said")
    assert note.records == (place,)
    assert [(r.invariant, r.count) for r in told.waiting if r.invariant is I18] == [(I18, 1)]
    assert world.judge(now_ms=world.clock_ms + 1000).findings == (), "young, it only waits"


def test_what_is_asked_for_waits() -> None:
    world = Keepers()
    ask = world.asked(A)
    world.promised(B, ask, 1)
    told = world.told()
    assert told.findings == ()
    assert [(r.words, r.count) for r in told.waiting] == [("files asked for and neither removed nor kept yet", 2)]
    world.step(world.keeping(ask, 1, 2))
    assert world.told().waiting == ()


# I14.


def test_what_landed_under_a_live_claim_is_taken_back() -> None:
    world = Keepers()
    landed = landed_under(world, WHOLE)
    finding_of = {one.invariant: one for one in world.told().broken}
    assert finding_of[I14].words == (
        f"{B} takes back /store/a in {DATASET}, which landed under claim whole of step 1 that has not ended"
    )
    assert finding_of[I14].records == (landed, world.where(B, topics.KEEPING)[0])
    assert finding_of.keys() == {I14, I18}


def test_what_landed_under_a_claim_that_ended_may_go() -> None:
    world = Keepers()
    landed_under(world, WHOLE, ended=True)
    assert {one.invariant for one in world.told().broken} == {I18}


def test_what_went_by_right_stays_gone_under_a_claim_noted_since() -> None:
    world = Keepers()
    word = landing(world, WHOLE)
    world.step(world.noting(B, ended=("whole",)))
    file = LeavingFile(Lfn("/store/a"), 5, Adler32("0000000a"), "v1", (word,))
    world.step(ask := replace(world.asking(B, 1, endpoint=""), files=(file,)))
    world.step(promise := world.looked(replace(world.promising(A, ask, 1), promised=(file.lfn,))))
    group = RemovedFiles((file.lfn,), (ReliedOn(A, promise.no),))
    world.step(removal := replace(world.removing(ask, 1), removed=(group,)))
    taken = (m.TakenWords((word,)),)
    world.planes[B].say(m.FilesLost(DATASET, B, (file.lfn,), WHY, "", taken, m.step_sha256(removal)))
    world.step(world.noting(B, replace(WHOLE, endpoint="", claim="again")))
    assert world.told().broken == ()


def landing(world: Keepers, claim: NotedClaim) -> str:
    """A transfer to B under a claim; the word of what it landed."""
    world.step(world.noting(B, replace(claim, endpoint="")))
    body = world.ask(1, B)
    world.decide(body)
    (manifest,) = world.write(body, (item("a", 5, "0000000a"),))
    world.transfer(manifest, B)
    return str(manifest.manifest)


def landed_under(world: Keepers, claim: NotedClaim, *, ended: bool = False) -> LogPosition:
    """What landed under a claim is lost, by a removal that nobody decided."""
    word = landing(world, claim)
    if ended:
        world.step(world.noting(B, ended=(claim.claim,)))
    lost = m.FilesLost(DATASET, B, (Lfn("/store/a"),), WHY, "", (m.TakenWords((word,)),), "ab" * 32)
    return world.planes[B].say(lost)


# Chains.


def test_a_lost_race_is_counted_and_no_finding() -> None:
    world = Keepers()
    late = world.noting(A, ended=("late",))
    world.step(world.noting(A, ended=("none",)))
    world.step(late)
    told = world.told()
    assert told.findings == ()
    (count,) = [one for one in told.partitions if (one.site, one.topic) == (A, topics.KEEPING) and one.records]
    assert (count.applied, count.superseded) == (1, 1)


def test_a_step_said_twice_is_a_duplicate() -> None:
    world = Keepers()
    step = world.noting(A, ended=("none",))
    world.step(step)
    world.workers[A].say(step)
    told = world.told()
    assert told.findings == ()
    (count,) = [one for one in told.partitions if (one.site, one.topic) == (A, topics.KEEPING) and one.records]
    assert (count.applied, count.duplicate) == (1, 1)


def test_a_record_that_stands_twice_is_a_duplicate() -> None:
    world = Keepers()
    place = world.step(world.noting(A, ended=("none",)))
    world.append(*place[:3], world.at(place))
    told = world.told()
    (count,) = [one for one in told.partitions if (one.site, one.topic) == (A, topics.KEEPING) and one.records]
    assert (count.applied, count.duplicate) == (1, 1)


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"prev_sha256": "ab" * 32}, "its step 2 (ClaimDecided) continues a step that does not count"),
        ({"no": 4, "prev_sha256": "ab" * 32}, "its step 4 (ClaimDecided) leaves out steps 2 to 3"),
    ],
)
def test_a_broken_digest_and_a_number_left_out(change: dict[str, object], why: str) -> None:
    world = Keepers()
    first = world.step(world.noting(A, ended=("none",)))
    place = world.step(replace(world.noting(A, ended=("other",)), **change))  # type: ignore[arg-type]
    finding = world.finding()
    assert finding.words == (f"the chain of {A} about {DATASET} is disputed: {why}; what counts ends with step 1")
    assert finding.records == (first, place)


def disputed() -> Keepers:
    """A's worker writes on behind a step that lost its race."""
    world = Keepers()
    void = world.noting(A, ended=("void",))
    world.step(world.noting(A, ended=("none",)))
    world.step(void)
    behind = replace(world.noting(A, ended=("behind",)), prev_sha256=m.step_sha256(void))
    world.step(behind)
    return world


def test_nothing_counts_in_a_disputed_chain_until_an_operator_settles_it() -> None:
    world = disputed()
    ask = world.asked(A, 1)
    assert [one.words.split(";")[0] for one in world.told().broken] == [
        f"the chain of {A} about {DATASET} is disputed: its step 2 (ClaimDecided) continues a step that does not count"
    ]
    world.step(ChainSettled(A, DATASET, 9, "ab" * 32, "op", 0, Text("ann"), None, Text("put back")))
    told = world.told()
    assert told.broken == ()
    (note,) = told.notes
    assert note.words.startswith(f"the chain of {A} about {DATASET} was disputed: ")
    assert ask.no == 2
    world.removed(A)
    assert world.told().broken == (), "what comes behind it counts"


def test_a_history_that_only_a_copy_has() -> None:
    """The broker of B was put back to before its promise, on which A relied; then B wrote on."""
    world = Keepers()
    world.step(world.noting(B, ended=("none",)))
    ask = world.asked(A, 1)
    before = world.rows[B]
    promise = world.promised(B, ask, 1)
    world.mirror()
    world.step(removal := world.removing(ask, 1, by=[promise]))
    world.give_up(A, 1, removal=removal)
    _, place = world.where(B, topics.KEEPING)
    world.drop(place)
    world.rows[B] = before
    own = world.writer(B, "worker-0", "worker").say(world.noting(B, ended=("a",), process="q"))
    found = [one for one in world.told().broken if one.invariant is I18]
    assert [one.words for one in found] == [
        f"the chain of {B} about {DATASET} has two histories: step 2 (KeepPromised) stands at {A} and not in the "
        f"journal of {B}, where it has another (ClaimDecided)"
    ]
    assert found[0].records == (own, world.where(A, f"{B}.{topics.KEEPING}")[1])


def test_the_end_of_a_removal_that_only_a_copy_has() -> None:
    """The broker of A was put back to before its removal, whose plane went on."""
    world = Keepers()
    ask = world.asked(A, 1)
    before = world.rows[A]
    promise = world.promised(B, ask, 1)
    place = world.step(removal := world.removing(ask, 1, by=[promise]))
    world.mirror()
    world.drop(place)
    world.rows[A] = before
    world.writer(A, "worker-0", "worker").say(world.noting(A, ended=("a",), process="q"))
    world.give_up(A, 1, removal=removal)
    found = [one for one in world.told().broken if one.invariant in (I13, I14, I18)]
    assert [one.words.partition(" has two histories")[0] for one in found] == [f"the chain of {A} about {DATASET}"]


# Any order, any repeats.


def _removed(world: Keepers) -> None:
    world.removed(A)


def _last_copies(world: Keepers) -> None:
    for site, other in ((A, B), (B, A), (C, A)):
        ask = world.asked(site, 1, 2)
        world.step(world.removing(ask, 1, 2, by=[world.promised(other, ask, 2)]))


def _disputed(world: Keepers) -> None:
    void = world.noting(A, ended=("void",))
    world.step(world.noting(A, ended=("none",)))
    world.step(void)
    world.step(replace(world.noting(A, ended=("behind",)), prev_sha256=m.step_sha256(void)))
    world.removed(B, by=C)


def _strays(world: Keepers) -> None:
    world.removed(A, 1)
    world.give_up(A, 2, removal="ab" * 32)
    world.promised(C, world.asked(B, 2, asked=(A,)), 2)


def _still_open(world: Keepers) -> None:
    ask = world.asked(A, 1)
    world.step(world.removing(ask, 1, by=[world.promised(B, ask, 1)]))


BREAKS = [_removed, _last_copies, _disputed, _strays, _still_open]


def broken(hurt: Callable[[Keepers], None]) -> Keepers:
    world = Keepers()
    hurt(world)
    world.close()
    world.mirror()
    return world


@pytest.mark.parametrize("hurt", BREAKS)
@settings(max_examples=20, deadline=None, derandomize=True)
@given(order=st.lists(st.integers(0, 1000), max_size=200), again=st.lists(st.integers(0, 1000), max_size=5))
def test_any_order_and_any_repeats_judge_alike(
    hurt: Callable[[Keepers], None], order: list[int], again: list[int]
) -> None:
    world = broken(hurt)
    straight = world.judge()
    facts = list(_interleaved(world, order))
    for number in again:  # a partition is read once more from somewhere on
        place, _ = facts[number % len(facts)]
        facts += [(p, r) for p, r in facts if p[:3] == place[:3] and p.offset >= place.offset]
    assert world.judge(facts) == straight


@pytest.mark.parametrize("hurt", BREAKS)
@settings(max_examples=10, deadline=None, derandomize=True)
@given(repeats=st.lists(st.integers(0, 1000), max_size=20))
def test_a_mirror_that_repeats_changes_no_finding(hurt: Callable[[Keepers], None], repeats: list[int]) -> None:
    world = broken(hurt)
    before = [(f.invariant, f.words) for f in world.judge().findings]
    copies = [key for key in world.partitions() if "." in key[1]]
    for number in repeats:
        key = copies[number % len(copies)]
        if log := world.logs[key]:
            world.append(*key, log[number % len(log)][1])
    assert [(f.invariant, f.words) for f in world.judge().findings] == before


@pytest.mark.parametrize("hurt", BREAKS)
@settings(max_examples=6, deadline=None, derandomize=True)
@given(
    order=st.lists(st.integers(0, 1000), max_size=200),
    stops=st.lists(st.tuples(st.integers(0, 1000), st.booleans(), st.booleans()), min_size=1, max_size=3),
)
def test_stopped_after_any_record_and_gone_on_it_judges_alike(
    hurt: Callable[[Keepers], None], order: list[int], stops: list[tuple[int, bool, bool]]
) -> None:
    """Over an index; judged at the stop or not; killed behind it, or not."""
    world = broken(hurt)
    straight = world.judge()
    facts = list(_interleaved(world, order))
    with tempfile.TemporaryDirectory() as made:
        path = Path(made) / "audit"
        for number, is_judged, is_killed in stops:
            with open_index(path, OF) as index:
                ledger = ledger_over(world, index)
                index.go_on(ledger)
                stop = number % (len(facts) + 1)
                for place, rec in facts[:stop]:
                    hear(ledger, place, rec)
                if is_judged:
                    judged(ledger, world)
                index.save(ledger, is_last=not is_killed)
                for place, rec in facts[stop : stop + 40] if is_killed else ():
                    hear(ledger, place, rec)
        with open_index(path, OF) as index:
            ledger = ledger_over(world, index)
            assert index.go_on(ledger)
            for place, rec in facts:
                hear(ledger, place, rec)
            assert judged(ledger, world) == straight
            index.save(ledger)
        with open_index(path, OF) as index:
            ledger = ledger_over(world, index)
            index.go_on(ledger)
            assert judged(ledger, world) == straight, "nothing is new, and nothing is forgotten"


def test_what_a_killed_audit_put_behind_its_cut_is_dropped(tmp_path: Path) -> None:
    world = broken(_strays)
    kept = {topics.KEEPING, topics.REPLICAS, topics.REPLICA_CHECKS}
    facts = sorted(world.facts(), key=lambda one: topics.split(one[0].topic)[1] in kept)
    of_keeping = sum(topics.split(place.topic)[1] not in kept for place, _ in facts)
    with open_index(tmp_path, OF) as index:
        ledger = ledger_over(world, index)
        index.go_on(ledger)
        for number, (place, rec) in enumerate(facts):
            if number == of_keeping:
                index.save(ledger, is_last=False)
            hear(ledger, place, rec)
        assert all(list(index.scan(prefix)) for prefix in (KEEPING, REPLICA))
    with open_index(tmp_path, OF) as index:
        ledger = ledger_over(world, index)
        assert index.go_on(ledger)
        assert not any(list(index.scan(prefix)) for prefix in (KEEPING, REPLICA))


# What cannot be seen.


def test_of_sites_that_were_not_read_nothing_is_said() -> None:
    world = Keepers()
    world.removed(A)
    ask = world.asked(B, 1)
    world.step(world.removing(ask, 1))
    world.close()
    world.mirror()
    for read in ([A], [B], [C], [A, C]):
        told = world.judge(read=read)
        found = [one.words for one in told.broken if one.invariant in (I13, I14, I18)]
        assert found == ([] if B not in read else found)
        assert any(one.invariant is I13 for one in told.unchecked)
    assert [one.invariant for one in world.judge(read=[B]).broken] == [I18]


def test_what_was_written_while_the_audit_read_waits() -> None:
    world = Keepers()
    ask = world.asked(A, 1)
    began_ms = world.clock_ms
    world.step(world.removing(ask, 1, by=[world.promising(B, ask, 1)]))
    world.close()
    world.mirror()
    told = world.judge(now_ms=began_ms)
    assert told.broken == ()
    assert any(one.invariant is I18 and "while the audit was reading" in one.words for one in told.waiting)


def test_files_are_judged_in_slices(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keeping_files, "SLICE_FILES", 1)
    world = Keepers(files=9)
    world.removed(A, *range(1, 10))
    ask = world.asked(B, *range(1, 10))
    world.step(world.removing(ask, *range(1, 10), by=[world.promised(A, ask, *range(1, 10))]))
    found = world.told().broken
    assert [one.words.split(" promises ")[1] for one in found] == [
        f"{lfn(1)} (and 8 more files), which {A} had removed in step 2"
    ]
