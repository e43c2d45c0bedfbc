"""Where a site's people let in what is asked of it: what it says, and that nothing is planned before."""

from __future__ import annotations

from dataclasses import replace
from itertools import permutations

import pytest

from streams.cli.words import explain, holdup
from streams.client.snapshot_json import from_plain, to_plain
from streams.core import commands as c
from streams.core import intent as intents
from streams.core import records as m
from streams.core.intent import IntentRow, State
from streams.core.names import Site, Text
from streams.core.owed import owed_intent, takes_part
from streams.core.policy import Policy
from tests.core import example as x
from tests.core.folded import row, seen

ASKS, FREE = Policy(approvers="ann, zoe"), Policy()
BODY = x.body()
ACCEPTED = (BODY, x.decided())


def wish(asked: m.Asked = m.Asked.APPROVE, by: str = "ann", site: Site = x.B) -> m.IntentAsked:
    reason = Text("full") if asked is m.Asked.DENY else Text("")
    return m.IntentAsked(x.INTENT, asked, Text(by), site=site, reason=reason)


def answer(number: int, said: m.Answer, by: str = "ann", site: Site = x.B) -> m.SiteAnswered:
    return m.SiteAnswered(x.INTENT, site, number, said, Text(by), Text("full" if said is m.Answer.DENIED else ""))


PENDING, ADMITTED, DENIED = (answer(1, m.Answer.PENDING), answer(2, m.Answer.ADMITTED), answer(2, m.Answer.DENIED))


def said(found: IntentRow, policy: Policy = ASKS, here: Site = x.B) -> list[tuple[int, m.Answer, str, str]]:
    owed = [one.command for one in owed_intent(found, here, policy)]
    answers = [one.answer for one in owed if isinstance(one, c.PublishAnswer)]
    return [(one.answer_no, one.answer, one.by, one.reason) for one in answers]


def plans(found: IntentRow, policy: Policy = ASKS) -> int:
    return sum(isinstance(one.command, c.PlanTransfer) for one in owed_intent(found, x.B, policy))


def test_a_site_that_asks_nobody_says_nothing_and_plans_at_once() -> None:
    known = row(*ACCEPTED, x.written())
    assert said(known, FREE) == []
    assert plans(known, FREE) == 1


def test_it_says_that_it_waits_and_for_whom_and_plans_nothing() -> None:
    known = row(*ACCEPTED, x.written())
    assert said(known) == [(1, m.Answer.PENDING, "ann, zoe", "")]
    assert said(known, Policy(approvers="*")) == [(1, m.Answer.PENDING, "anybody here", "")]
    waits = row(*ACCEPTED, x.written(), PENDING)
    assert (said(waits), plans(known), plans(waits)) == ([], 0, 0)
    assert said(row(BODY)) == said(row(BODY, x.decided(1, m.Verdict.REFUSED, source=None))) == []
    assert said(known, here=x.C) == [], "its source keeps what it has"


@pytest.mark.parametrize(
    ("asked", "answered"),
    [(m.Asked.APPROVE, (2, m.Answer.ADMITTED, "ann", "")), (m.Asked.DENY, (2, m.Answer.DENIED, "ann", "full"))],
)
def test_what_the_first_who_may_says_is_answered(asked: m.Asked, answered: tuple[object, ...]) -> None:
    other = m.Asked.DENY if asked is m.Asked.APPROVE else m.Asked.APPROVE
    known = row(*ACCEPTED, PENDING, wish(other, "bob"), wish(other, site=x.C), wish(asked), wish(other, "zoe"))
    assert said(known) == [answered]
    assert said(row(*ACCEPTED, wish(asked))) == [(1, m.Answer.PENDING, "ann, zoe", "")], "one step after the other"


def test_what_was_answered_stays() -> None:
    for first, later in ((ADMITTED, DENIED), (DENIED, ADMITTED)):
        known = row(*ACCEPTED, x.written(), PENDING, first, replace(later, answer_no=3), PENDING, wish())
        assert known.answer_of(x.B) == row(*ACCEPTED, PENDING, first).answer_of(x.B)
        assert said(known) == []
    assert plans(row(*ACCEPTED, x.written(), PENDING, ADMITTED)) == 1
    assert plans(row(*ACCEPTED, x.written(), PENDING, DENIED), FREE) == 0, "whatever the rule is now"


def test_a_rule_that_is_taken_back_lets_in_what_waits() -> None:
    waits = row(*ACCEPTED, x.written(), PENDING)
    assert said(waits, FREE) == [(2, m.Answer.ADMITTED, "the site's policy", "")]
    assert plans(waits, FREE) == 0, "once it is said"


def test_a_rule_that_came_later_stops_nothing_that_had_begun() -> None:
    begun = row(*ACCEPTED, x.written(), x.reported())
    assert said(begun) == [(1, m.Answer.ADMITTED, "the site's policy", "")]


def test_answers_and_decisions_commute() -> None:
    told = {repr(row(*facts)) for facts in permutations((BODY, x.decided(), PENDING, ADMITTED)) if _in_order(facts)}
    assert len(told) == 1


def _in_order(facts: tuple[m.Message, ...]) -> bool:
    """Of a site's answers: they stand in one partition."""
    return facts.index(PENDING) < facts.index(ADMITTED)


def test_what_waits_for_somebody_is_explained_by_that_and_by_nothing_else() -> None:
    lines = explain(seen(*ACCEPTED, x.written(), PENDING), 5_000)
    assert any("S_B waits for approval by ann" in line for line in lines)
    assert not any("has not reported" in line for line in lines)
    assert any("has not reported" in line for line in explain(seen(*ACCEPTED, x.written()), 5_000))


def test_denied_at_every_destination_it_is_refused_with_who_and_why() -> None:
    found = seen(*ACCEPTED, PENDING, DENIED)
    assert (row(*ACCEPTED, DENIED).state, found.state) == (State.REFUSED, State.REFUSED)
    assert (found.ended, found.exit_code, found.reason) == (True, 4, "denied at S_B by ann: full")
    assert from_plain(to_plain(found)) == found


def test_denied_at_some_the_others_get_it() -> None:
    both = x.body(destinations=(x.B, x.C))
    facts = (both, x.decided(wish=both), x.written(), DENIED, x.completed(destination=x.C))
    assert row(*facts).state is State.DONE
    found = seen(*facts)
    assert (found.outcome, found.exit_code, [one.site for one in found.denials]) == ("partly", 8, [x.B])
    waits = seen(both, x.decided(wish=both), x.written(), PENDING, x.completed(destination=x.C))
    assert (waits.outcome, [one.site for one in waits.pending]) == ("active", [x.B])
    assert holdup(waits) == "approval at S_B"


def test_a_source_that_denies_a_move_keeps_its_files() -> None:
    body = replace(BODY, source=x.C, verb=m.Verb.MOVE, release_from=(x.C,))
    facts = (body, x.decided(wish=body), x.written(), x.completed(), answer(1, m.Answer.DENIED, site=x.C))
    found = seen(*facts)
    assert (row(*facts).state, found.outcome, found.exit_code) == (State.DONE, "partly", 8)
    assert said(row(body, x.decided(wish=body), here=x.C), here=x.C) == [(1, m.Answer.PENDING, "ann, zoe", "")]


def test_a_removal_waits_too() -> None:
    body = x.removal(sites=(x.B, x.C))
    decided = m.IntentDecided(x.INTENT, 1, m.Verdict.ACCEPTED, body, None, 0, 5)
    assert said(row(body, decided)) == [(1, m.Answer.PENDING, "ann, zoe", "")]
    assert row(body, decided, DENIED, x.removed(0, 2, site=x.C)).state is State.DONE
    assert not takes_part(None, ASKS)
    assert takes_part(None, FREE)


def test_one_that_is_cancelled_while_it_waits_has_ended() -> None:
    cancelled = row(*ACCEPTED, PENDING, x.decided(2, m.Verdict.CANCELLED), wish())
    assert cancelled.state is State.CANCELLED
    assert said(cancelled) == []


@pytest.mark.parametrize(
    ("record", "why"),
    [
        (replace(wish(), site=None), "site: given exactly when it is asked of a site"),
        (replace(x.cancel(), site=x.B), "site: given exactly when it is asked of a site"),
        (replace(wish(), reason=Text("so")), "reason: of a denial only"),
        (replace(ADMITTED, reason=Text("so")), "reason: of a denial only"),
        (replace(ADMITTED, answer_no=0), "answer_no: 0"),
    ],
)
def test_what_may_not_be_said(record: m.Message, why: str) -> None:
    assert (m.fault(record) or "").startswith(why)
    assert m.author(wish()) == m.author(DENIED) == x.B
    assert m.author(x.cancel()) == x.A


def test_who_may_not_approve_fills_a_row_with_no_more_than_some_wishes() -> None:
    known = row(*ACCEPTED, PENDING, *(wish(by=f"nobody{n}") for n in range(100)))
    assert len(known.wishes) == intents.WISHES_MAX
