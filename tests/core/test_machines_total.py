"""The two transition tables are total, and the states are those the diagrams draw."""

from __future__ import annotations

from dataclasses import replace
from itertools import permutations, product
from typing import get_args

import pytest

from streams.core import completion
from streams.core import intent as intents
from streams.core import records as m
from streams.core import transfer as transfers
from streams.core.chain import Chain
from streams.core.intent import IntentRow
from streams.core.manifest import Manifest
from streams.core.ranges import Ranges
from streams.core.transfer import TransferRow
from tests.core import example as x

ONE = x.written()
LINE = Manifest(ONE).index
WHOLE = Ranges([(0, 150)])


def transfer(*facts: transfers.TransferMessage) -> TransferRow | None:
    row, manifest = None, None
    for fact in facts:
        if isinstance(fact, m.TransferPlanned) and manifest is None:
            manifest = Manifest(fact.body).index
        row = transfers.fold(row, fact, manifest)
    return row


def intent(*facts: intents.IntentMessage) -> IntentRow | None:
    row = None
    for fact in facts:
        row = intents.fold(row, fact, x.B)
    return row


TRANSFERS: dict[transfers.State, TransferRow | None] = {
    transfers.State.NEW: transfer(x.opened()),
    transfers.State.PLANNED: transfer(x.planned(ONE)),
    transfers.State.ACTIVE: transfer(x.planned(ONE), x.opened()),
    transfers.State.COMPLETE: transfer(x.planned(ONE), x.progress(WHOLE, Ranges.of(0, 1))),
    transfers.State.CLOSING: transfer(x.planned(ONE), x.closed(acknowledged=False)),
    transfers.State.CLOSED: transfer(x.planned(ONE), x.closed()),
}
TRANSFER_FACTS: tuple[transfers.TransferMessage, ...] = (
    x.planned(ONE),
    x.told(2, m.Verdict.CANCELLED),
    x.opened(),
    x.lost(),
    x.expired(1),
    x.source_failed(1),
    x.source_failed(1, Ranges.of(1)),
    x.closed(),
    x.requested(1, Ranges([(0, 10)])),
    x.progress(Ranges([(0, 10)])),
)
INTENTS: dict[intents.State, IntentRow | None] = {
    intents.State.NEW: intent(x.cancel()),
    intents.State.ASKED: intent(x.body()),
    intents.State.ACTIVE: intent(x.body(), x.decided()),
    intents.State.REFUSED: intent(x.body(), x.decided(1, m.Verdict.REFUSED, source=None)),
    intents.State.CANCELLED: intent(x.body(), x.decided(1, m.Verdict.CANCELLED, source=None)),
    intents.State.DONE: intent(x.body(), x.decided(), ONE, x.completed()),
}
INTENT_FACTS: tuple[intents.IntentMessage, ...] = (
    x.body(),
    x.cancel(),
    x.close(),
    x.release(),
    x.decided(2),
    x.answered(),
    x.approval(),
    ONE,
    x.reported(),
    x.completed(),
    x.removed(),
)


def test_every_state_is_reached_by_facts() -> None:
    for state, row in TRANSFERS.items():
        assert row is not None
        assert row.state is state
    for name, other in INTENTS.items():
        assert other is not None
        assert other.state is name
    assert set(TRANSFERS) == set(transfers.State)
    assert set(INTENTS) == set(intents.State)


def test_the_facts_here_are_all_there_are() -> None:
    assert {type(f) for f in TRANSFER_FACTS} == set(get_args(transfers.TransferMessage))
    assert {type(f) for f in INTENT_FACTS} == set(get_args(intents.IntentMessage))
    elsewhere = {m.ChunksOffered, m.ChunksServed, m.FilesHeld, m.FilesLost, m.SiteAnnounced, m.JournalsSealed}
    elsewhere |= {*get_args(m.KeepingStep), m.ReplicasChecked}
    elsewhere |= {m.UrlsOffered, m.DeadLetter}
    heard = set(get_args(transfers.TransferMessage)) | set(get_args(intents.IntentMessage))
    assert heard | elsewhere == set(get_args(m.Message)), "a new message is heard by a machine or named here"
    assert not heard & elsewhere


def test_the_tables_are_total() -> None:
    assert set(transfers.TABLE) == set(product(transfers.State, get_args(transfers.TransferMessage)))
    assert set(intents.TABLE) == set(product(intents.State, get_args(intents.IntentMessage)))


@pytest.mark.parametrize(("state", "fact"), list(product(TRANSFERS, TRANSFER_FACTS)))
def test_every_transfer_fact_is_heard_in_every_state(state: transfers.State, fact: transfers.TransferMessage) -> None:
    row = transfers.fold(TRANSFERS[state], fact, LINE)
    assert row.manifest == x.MANIFEST
    assert transfers.fold(row, fact, LINE) == row, "heard again, it changes nothing"
    if state is transfers.State.CLOSED or (state is transfers.State.CLOSING and fact != x.closed()):
        assert row == TRANSFERS[state]


@pytest.mark.parametrize(("state", "fact"), list(product(INTENTS, INTENT_FACTS)))
def test_every_intent_fact_is_heard_in_every_state(state: intents.State, fact: intents.IntentMessage) -> None:
    row = intents.fold(INTENTS[state], fact)
    assert row.intent == x.INTENT
    assert intents.fold(row, fact) == row, "heard again, it changes nothing"


@pytest.mark.parametrize("fact", TRANSFER_FACTS)
def test_any_transfer_fact_may_come_first(fact: transfers.TransferMessage) -> None:
    manifest = LINE if isinstance(fact, m.TransferPlanned) else None
    row = transfers.fold(None, fact, manifest)
    assert row.manifest == x.MANIFEST
    assert row.planned == isinstance(fact, m.TransferPlanned | m.TransferClosed)


@pytest.mark.parametrize("fact", INTENT_FACTS)
def test_any_intent_fact_may_come_first(fact: intents.IntentMessage) -> None:
    assert intents.fold(None, fact).intent == x.INTENT


# How a transfer ends, by what is known of its items.


@pytest.mark.parametrize(
    ("facts", "state"),
    [
        ((x.progress(WHOLE),), "active"),
        ((x.progress(WHOLE, Ranges.of(0)),), "active"),
        ((x.progress(WHOLE, Ranges.of(0, 1)),), "complete"),
        ((x.progress(sealed=Ranges.of(0), failed=(x.failed("gone", 1),)),), "complete"),
        ((x.progress(failed=(x.failed("gone", 0, 1),)),), "complete"),
        ((x.opened(present=Ranges.of(0, 1)),), "complete"),
        ((x.opened(), x.told(2, m.Verdict.CANCELLED)), "active"),
        ((x.opened(), x.told(2, m.Verdict.CANCELLED), x.lost(stopped=True)), "complete"),
        ((x.opened(), x.lost(stopped=True), x.told(2, m.Verdict.CANCELLED)), "complete"),
        ((x.opened(), x.lost(stopped=True)), "planned"),
        ((x.opened(), x.lost()), "planned"),
        ((x.opened(), x.lost(), x.opened(2)), "active"),
        ((x.told(2, m.Verdict.SUPERSEDED),), "planned"),
        ((x.told(2, m.Verdict.SUPERSEDED), x.lost(stopped=True)), "complete"),
    ],
)
def test_states_of_a_planned_transfer(facts: tuple[transfers.TransferMessage, ...], state: str) -> None:
    row = transfer(x.planned(ONE), *facts)
    assert row is not None
    assert row.state == state


def test_a_manifest_of_nothing_is_complete_at_once() -> None:
    row = transfer(x.planned(x.written(items=[])))
    assert row is not None
    assert row.state is transfers.State.COMPLETE


def test_a_newer_attempt_starts_with_nothing_and_an_older_one_is_fenced() -> None:
    row = transfer(x.planned(ONE), x.opened(1), x.progress(Ranges([(0, 100)]), Ranges.of(0)), x.lost(1), x.opened(2))
    assert row is not None
    assert (row.attempt, row.verified, row.sealed) == (2, Ranges(), Ranges.of(0)), "sealed is for ever"
    late = transfers.fold(row, x.progress(Ranges([(100, 150)]), Ranges.of(1), attempt=1), LINE)
    assert late.verified == Ranges(), "I5: bytes of attempt 1 are in files that are gone"
    assert late.sealed == Ranges.of(0, 1), "but what it sealed stands under its final name"


def test_progress_of_a_lost_attempt_is_no_progress() -> None:
    row = transfer(x.planned(ONE), x.opened(1), x.lost(1), x.progress(Ranges([(0, 100)]), attempt=1))
    assert row is not None
    assert row.verified == Ranges()
    assert row.live_attempt == 2


def test_the_highest_attempt_any_record_brings_is_adopted() -> None:
    for fact in (
        x.opened(3),
        x.lost(3),
        x.progress(attempt=3),
        x.requested(1, Ranges([(0, 10)]), attempt=3),
    ):
        row = transfer(x.planned(ONE), x.opened(1), x.progress(Ranges([(0, 50)])), fact)
        assert row is not None
        assert (row.attempt, row.verified) == (3, Ranges()), type(fact).__name__


def test_a_request_is_open_until_answered_expired_or_its_attempt_is_over() -> None:
    asked = [x.planned(ONE), x.opened(), x.requested(1, Ranges([(0, 60)])), x.requested(2, Ranges([(60, 150)]))]
    for facts, numbers in (
        ((), [1, 2]),
        ((x.progress(Ranges([(0, 59)])),), [1, 2]),
        ((x.progress(Ranges([(0, 60)])),), [2]),
        ((x.progress(failed=(x.failed("gone", 0),)),), [2]),
        ((x.progress(sealed=Ranges.of(1)), x.progress(Ranges([(60, 100)]))), [1]),
        ((x.expired(1),), [2]),
        ((x.expired(2),), []),
        ((x.lost(),), []),
        ((x.source_failed(1),), [2]),
        ((x.source_failed(2),), [1]),
        ((x.source_failed(1, Ranges.of(0)),), [2]),
        ((x.source_failed(2, Ranges.of(1)),), [1, 2]),
        ((x.source_failed(2, Ranges.of(1)), x.source_failed(2, Ranges.of(0))), [1]),
        ((x.source_failed(3),), [1, 2]),
        ((x.source_failed(1, source=x.A),), [1, 2]),
    ):
        row = transfer(*asked, *facts)
        assert row is not None
        assert [o.request_no for o in row.source_row(x.C).outstanding] == numbers, facts


def test_requests_are_numbered_per_source() -> None:
    row = transfer(
        x.planned(ONE),
        x.requested(1, Ranges([(0, 10)])),
        x.requested(1, Ranges([(10, 20)]), source=x.A),
        x.requested(1, Ranges([(50, 60)])),
        x.expired(7, source=x.A),
    )
    assert row is not None
    assert [(s.source, s.requested, s.expired, len(s.outstanding)) for s in row.sources] == [
        (x.A, 1, 7, 0),
        (x.C, 1, 0, 1),
    ]
    assert row.outstanding(LINE) == Ranges([(0, 10)]), "the first of a number counts"


def test_a_failure_heard_before_its_request_ends_it_all_the_same() -> None:
    asked = x.requested(1, Ranges([(0, 150)]))
    for failed in (x.source_failed(1), x.source_failed(1, Ranges.of(1))):
        assert transfer(x.planned(ONE), failed, asked) == transfer(x.planned(ONE), asked, failed)


def test_what_a_source_could_not_read_is_remembered_until_it_is_over() -> None:
    row = transfer(x.planned(ONE), x.source_failed(1, Ranges.of(0, 1), 5_000), x.source_failed(2, Ranges.of(1), 7_000))
    assert row is not None
    assert row.source_row(x.C).unread == (
        transfers.Unread(5_000, Ranges.of(0)),
        transfers.Unread(7_000, Ranges.of(1)),
    )
    row = transfers.fold(row, x.progress(sealed=Ranges.of(1)), LINE)
    assert row.source_row(x.C).unread == (transfers.Unread(5_000, Ranges.of(0)),)


def test_a_closed_row_keeps_its_completion_only() -> None:
    row = transfer(x.planned(ONE), x.opened(), x.progress(WHOLE, Ranges.of(0, 1)), x.closed())
    assert row == TransferRow(x.MANIFEST, transfers.State.CLOSED, planned=True, completion=x.completed())


def test_the_last_word_that_was_fixed_first_is_the_last_word() -> None:
    partly = x.completed(failed=(x.failed("gone", 1),))
    fixed = x.closed(partly, acknowledged=False)
    late = (x.progress(WHOLE, Ranges.of(0, 1)), x.closed(acknowledged=False), x.told(3, m.Verdict.CANCELLED))
    for order in permutations(late):
        row = transfer(x.planned(ONE), fixed, *order)
        assert row == TransferRow(x.MANIFEST, transfers.State.CLOSING, planned=True, completion=partly)
        closed = transfers.fold(row, x.closed(), LINE)
        assert (closed.state, closed.completion) == (transfers.State.CLOSED, partly)


@pytest.mark.parametrize(
    ("facts", "final"),
    [
        ((x.progress(WHOLE, Ranges.of(0, 1)),), True),
        ((x.progress(WHOLE, Ranges.of(0, 1)), x.told(2, m.Verdict.CANCELLED)), True),
        ((x.progress(failed=(x.failed("gone", 1),)), x.progress(WHOLE, Ranges.of(0, 1))), False),
        ((x.progress(sealed=Ranges.of(0), failed=(x.failed("gone", 1),)),), False),
        ((x.told(2, m.Verdict.CANCELLED), x.lost(stopped=True)), False),
        ((x.told(2, m.Verdict.CANCELLED), x.lost(stopped=True), x.progress(WHOLE, Ranges.of(0, 1))), False),
    ],
)
def test_a_last_word_is_final_if_no_fact_could_change_it(
    facts: tuple[transfers.TransferMessage, ...], final: bool
) -> None:
    row = transfer(x.planned(ONE), *facts)
    assert row is not None
    assert row.state is transfers.State.COMPLETE
    assert row.final is final


def test_an_item_with_several_reasons_keeps_one_whoever_came_first() -> None:
    one, two = (x.failed("b", 0, 1),), (x.failed("a", 1), x.failed("c", 2))
    expected = (x.failed("a", 1), x.failed("b", 0), x.failed("c", 2))
    assert transfers.merge_failed(one, two) == transfers.merge_failed(two, one) == expected
    assert transfers.merge_failed(expected, one, two) == expected


def test_an_item_that_the_manifest_does_not_have_is_no_item() -> None:
    """Said before the plan, it would else be in the way of every later fact."""
    row = transfers.fold(None, x.progress(sealed=Ranges.of(0, 7), failed=(x.failed("gone", 1, 9),)), None)
    row = transfers.fold(row, x.planned(ONE), LINE)
    assert (row.sealed, row.failed) == (Ranges.of(0), (x.failed("gone", 1),))
    assert row.state is transfers.State.COMPLETE
    assert completion.completion(row, LINE, x.B).bytes == 100


# What an intent's row knows.


def test_the_first_body_counts_and_another_is_a_contradiction() -> None:
    row = intent(x.body(priority=3))
    assert intents.contradiction(row, x.body(priority=3)) is None
    assert intents.contradiction(None, x.body(priority=4)) is None
    why = intents.contradiction(row, x.body(priority=4))
    assert why is not None
    assert x.INTENT in why
    assert intents.fold(row, x.body(priority=4)) == row
    taken = intent(x.body(priority=3), x.decided(wish=x.body(priority=3)))
    assert intents.contradiction(taken, x.body(priority=4)) is not None, "after the decision too"
    assert intents.contradiction(taken, x.decided(2)) is None


def test_the_highest_decision_counts() -> None:
    row = intent(x.decided(3, m.Verdict.CANCELLED), x.decided(2), x.decided(3))
    assert row is not None
    assert row.decision is not None
    assert (row.decision.decision_no, row.decision.verdict) == (3, m.Verdict.CANCELLED)
    assert row.state is intents.State.CANCELLED


def test_a_cancellation_before_the_body_is_not_forgotten() -> None:
    row = intent(x.cancel(), x.body())
    assert row is not None
    assert (row.state, row.cancelled_by) == (intents.State.ASKED, "bob")


@pytest.mark.parametrize(
    ("change", "counts"),
    [
        ({}, "now"),
        ({"source": x.B}, "never"),
        ({"source_no": 1}, "later"),
        ({"no": 1, "prev_sha256": x.SHA256}, "later"),
        ({"prev_sha256": x.SHA256}, "never"),
    ],
)
def test_whether_a_manifest_counts(change: dict[str, object], counts: str) -> None:
    row = intent(x.body(), x.decided())
    assert row is not None
    msg = replace(ONE, **change)
    assert row.counts(msg) == counts
    undecided = intent(x.body())
    assert undecided is not None
    assert undecided.counts(msg) == "later"
    after = intents.fold(row, msg)
    assert (after == row) == (counts != "now")


def test_nothing_counts_behind_the_last_nor_of_a_source_no_that_is_over() -> None:
    first, second, third = x.chain(3, ends=False)
    row = intent(x.decided(), first, replace(second, last=True))
    assert row is not None
    assert row.counts(third) == row.counts(first) == "never"
    row = intent(x.decided(), first, x.decided(2, source=x.A, source_no=1))
    assert row is not None
    assert row.counts(second) == "never"
    assert row.counts(x.written(source=x.A, source_no=1)) == "now"
    assert row.chain == Chain(1)


def test_done_is_every_manifest_at_every_destination() -> None:
    both = x.body(destinations=(x.B, x.C))
    one, two = x.chain(2)
    facts = [
        x.decided(wish=both),
        one,
        two,
        x.completed(one.manifest, x.B),
        x.completed(two.manifest, x.B),
        x.completed(one.manifest, x.C, failed=(x.failed("b", 0), x.failed("a", 1))),
        x.completed(two.manifest, x.C),
    ]
    for leave_out in range(1, len(facts)):
        row = intent(*facts[:leave_out], *facts[leave_out + 1 :])
        assert row is not None
        assert row.state is intents.State.ACTIVE
    row = intent(*facts)
    assert row is not None
    assert row.state is intents.State.DONE
    sums = row.closed_at(x.C, 0)
    assert (sums.sealed, sums.failed, sums.bytes, sums.reason) == (2, 2, 150, x.reason("a"))


def test_an_open_intent_is_done_when_its_last_manifest_is_closed() -> None:
    one, wish = x.written(last=False), x.growing()
    row = intent(wish, x.decided(wish=wish), one, x.completed(one.manifest))
    assert row is not None
    assert (row.state, row.chain.last) == (intents.State.ACTIVE, False)
    row = intents.fold(row, x.close())
    assert (row.state, row.intake_closed_by) == (intents.State.ACTIVE, "bob")
    last = x.written(1, (), prev=one)
    row = intents.fold(row, last)
    assert (row.state, row.chain.last) == (intents.State.ACTIVE, True)
    assert intents.fold(row, x.completed(last.manifest, items=0)).state is intents.State.DONE


def test_whether_it_was_closed_does_not_depend_on_the_order() -> None:
    facts = (x.growing(), x.decided(wish=x.growing()), x.close())
    assert len({intent(*order) for order in permutations(facts)}) == 1


def test_a_completion_heard_twice_is_counted_once() -> None:
    row = intent(x.decided(), x.completed(), x.completed())
    assert row is not None
    assert (row.closed_at(x.B, 0).sealed, row.closed_at(x.B, 0).bytes) == (2, 150)


def test_what_the_own_destination_told_is_kept_while_its_transfer_is_open() -> None:
    one, two = x.chain(2)
    facts = (x.reported(one.manifest), x.reported(two.manifest, number=2), x.reported(destination=x.C))
    row = intent(x.decided(), *facts)
    assert row is not None
    assert row.told == (intents.ToldTransfers(0, 1, Ranges.of(0)), intents.ToldTransfers(0, 2, Ranges.of(1)))
    row = intents.fold(row, x.reported(one.manifest, number=2), x.B)
    assert row.told == (intents.ToldTransfers(0, 2, Ranges.of(0, 1)),)
    row = intents.fold(row, x.completed(one.manifest), x.B)
    assert row.told == (intents.ToldTransfers(0, 2, Ranges.of(1)),)
    assert intents.fold(row, x.reported(one.manifest), x.B) == row, "it is closed"
    elsewhere = IntentRow(x.INTENT)
    for fact in facts:
        assert intents.fold(elsewhere, fact, x.Site("S_D")) == elsewhere, "another site's report changes no row"


def test_a_row_that_has_ended_keeps_a_digest_of_its_body() -> None:
    ended = intent(x.body(), x.decided(), ONE, x.completed())
    late = intent(x.decided(), ONE, x.completed(), x.body())
    assert ended is not None
    assert ended == late
    assert (ended.state, ended.body, ended.destinations) == (intents.State.DONE, None, (x.B,))
    assert intents.contradiction(ended, x.body()) is None
    assert intents.contradiction(ended, x.body(priority=9)) is not None
    again = intents.fold(ended, x.decided(2, source=x.A, source_no=1))
    assert (again.state, again.body) == (intents.State.ACTIVE, x.body()), "a decision brings the body along"


def test_who_an_intent_concerns() -> None:
    row = intent(x.body(), x.decided())
    assert row is not None
    assert all(row.concerns(site) for site in (x.A, x.B, x.C)), "home, destination, source"
    assert not row.concerns(x.Site("S_D"))
