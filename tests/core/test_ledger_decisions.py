"""Decisions that follow nothing, askings that nothing answers, and rivals, which are notes."""

from __future__ import annotations

from dataclasses import replace

import pytest

from streams.core import records as m
from streams.core import topics
from streams.core.ledger.decisions import ANSWERED_MS, BY_POLICY
from streams.core.ledger.findings import Invariant, Judgement, LogPosition
from streams.core.names import Text
from tests.audit.history import LATER_MS, WHY, A, B, Federation, body_of, healthy, item

I1 = Invariant.CONSERVATION


def decision(body: m.TransferIntent, no: int, verdict: m.Verdict, priority: int = 5) -> m.IntentDecided:
    return m.IntentDecided(body.intent, no, verdict, body, A, 0, priority, WHY)


def opened() -> tuple[Federation, m.TransferIntent]:
    """An accepted intent of which nothing has come."""
    world = Federation()
    body = world.ask(1, B)
    world.decide(body)
    world.write(body, (item("a", 100),))
    return world, body


def judged(world: Federation, now_ms: int = LATER_MS) -> Judgement:
    world.close()
    world.mirror()
    return world.judge(now_ms=now_ms)


def the_only(judgement: Judgement, words: str, place: LogPosition) -> None:
    (finding,) = judgement.broken
    assert (finding.invariant, finding.records[0]) == (I1, place)
    assert words in finding.words


def test_cancelled_though_nobody_asked() -> None:
    world, body = opened()
    place = world.workers[A].say(decision(body, 2, m.Verdict.CANCELLED))
    the_only(judged(world), f"decision 2 of {body.intent} cancels it though nobody asked", place)
    world.cli.say(m.IntentAsked(body.intent, m.Asked.CANCEL, Text("someone")))
    assert judged(world).broken == ()


def test_cancelled_at_a_deadline() -> None:
    for early_ms in (0, 60_000):
        world, body = opened()
        late = replace(body, deadline_ms=world.clock_ms + early_ms)
        for topic in (topics.INTENTS, topics.DECISIONS):
            (place,) = world.where(A, topic)
            said = late if topic == topics.INTENTS else decision(late, 1, m.Verdict.ACCEPTED)
            world.forge(place, said)
        place = world.workers[A].say(decision(late, 2, m.Verdict.CANCELLED))
        if early_ms:
            the_only(judged(world), "though nobody asked, and its deadline is", place)
        else:
            assert judged(world).broken == ()


def test_a_priority_that_nobody_asked_for() -> None:
    world, body = opened()
    place = world.workers[A].say(decision(body, 2, m.Verdict.ACCEPTED, 9))
    the_only(judged(world), f"decision 2 of {body.intent} gives it priority 9, which nobody asked for", place)
    world.cli.say(m.IntentAsked(body.intent, m.Asked.PRIORITY, Text("someone"), 9))
    assert judged(world).broken == ()


def answer(body: m.TransferIntent, no: int, said: m.Answer, by: str = "ann") -> m.SiteAnswered:
    return m.SiteAnswered(body.intent, B, no, said, Text(by), Text("full" if said is m.Answer.DENIED else ""))


@pytest.mark.parametrize(("said", "asked"), [(m.Answer.ADMITTED, m.Asked.APPROVE), (m.Answer.DENIED, m.Asked.DENY)])
def test_a_site_lets_in_what_nobody_asked_it_to(said: m.Answer, asked: m.Asked) -> None:
    world, body = opened()
    world.workers[B].say(answer(body, 1, m.Answer.PENDING))
    place = world.workers[B].say(answer(body, 2, said))
    the_only(judged(world), f"answer 2 of {B} to {body.intent}: {said} by ann, who asked nothing", place)
    why = Text("full") if asked is m.Asked.DENY else Text("")
    world.workers[B].say(m.IntentAsked(body.intent, asked, Text("bob"), site=B, reason=why))
    the_only(judged(world), "by ann, who asked nothing", place)
    world.workers[B].say(m.IntentAsked(body.intent, asked, Text("ann"), site=B, reason=why))
    assert judged(world).broken == ()


def test_a_site_may_take_its_rule_back() -> None:
    world, body = opened()
    world.workers[B].say(answer(body, 1, m.Answer.PENDING))
    world.workers[B].say(answer(body, 2, m.Answer.ADMITTED, BY_POLICY))
    assert judged(world).broken == ()


def test_what_was_denied_is_planned() -> None:
    world, body = opened()
    world.workers[B].say(answer(body, 1, m.Answer.PENDING))
    world.workers[B].say(m.IntentAsked(body.intent, m.Asked.DENY, Text("ann"), site=B, reason=Text("full")))
    world.workers[B].say(answer(body, 2, m.Answer.DENIED))
    assert judged(world).broken == ()
    (written,) = (one.message for one in (world.decoded(*each) for each in world.records(A, topics.MANIFESTS)))
    assert isinstance(written, m.ManifestWritten)
    place = world.workers[B].say(m.TransferPlanned(written.manifest, B, 1, 5, None, (), False, written))
    the_only(judged(world), f"is planned at {B}, which denied it", place)


@pytest.mark.parametrize(
    ("asked", "priority", "what"),
    [(m.Asked.CANCEL, None, "to cancel it"), (m.Asked.PRIORITY, 9, "for priority 9")],
)
def test_asked_and_never_answered(asked: m.Asked, priority: int | None, what: str) -> None:
    world, body = opened()
    place = world.cli.say(m.IntentAsked(body.intent, asked, Text("someone"), priority))
    world.mirror()
    assert world.judge().broken == (), "nobody is known to have lived on"
    world.clock_ms += ANSWERED_MS + 1000
    world.workers[A].announce()
    the_only(judged(world), f"{body.intent} was asked {what}, and {A} has not answered", place)
    verdict = m.Verdict.CANCELLED if asked is m.Asked.CANCEL else m.Verdict.ACCEPTED
    world.workers[A].say(decision(body, 2, verdict, priority or 5))
    assert judged(world).broken == ()


def test_the_last_priority_that_was_asked_for_is_to_be_given() -> None:
    world, body = opened()
    for priority in (9, 5):
        world.cli.say(m.IntentAsked(body.intent, m.Asked.PRIORITY, Text("someone"), priority))
    world.clock_ms += ANSWERED_MS + 1000
    world.workers[A].announce()
    assert judged(world).broken == ()


def test_asked_to_take_nothing_more_and_never_answered() -> None:
    world = Federation()
    body = replace(body_of(world.ask(1, B).intent, B), open=True)
    world.forge(world.where(A, topics.INTENTS)[0], body)
    world.decide(body)
    place = world.cli.say(m.IntentAsked(body.intent, m.Asked.CLOSE, Text("someone")))
    world.clock_ms += ANSWERED_MS + 1000
    world.workers[A].announce()
    the_only(judged(world), f"{body.intent} was asked to take nothing more, and {A} has not answered", place)
    world.write(body, (item("a", 100),))
    assert judged(world).broken == ()


def test_what_has_ended_answers_nothing() -> None:
    world = healthy()
    intent = world.decoded(*world.records(A, topics.INTENTS)[0]).message.intent  # type: ignore[union-attr]
    world.cli.say(m.IntentAsked(intent, m.Asked.CANCEL, Text("someone")))
    world.clock_ms += ANSWERED_MS + 1000
    world.workers[A].announce()
    assert judged(world).broken == ()


def test_two_decisions_of_one_number_are_a_note_that_names_both() -> None:
    world, body = opened()
    second = world.workers[A].say(decision(body, 1, m.Verdict.ACCEPTED))
    first = world.where(A, topics.DECISIONS)[0]
    judgement = judged(world)
    assert judgement.broken == ()
    (note,) = judgement.notes
    assert note.words == f"2 different decisions 1 of {body.intent}: the first counts"
    assert note.records == (first, second)


def test_rival_manifests_are_a_note_that_names_both() -> None:
    world, _ = opened()
    first = world.where(A, topics.MANIFESTS)[0]
    manifest = world.decoded(first, world.at(first)).message
    assert isinstance(manifest, m.ManifestWritten)
    second = world.planes[A].say(replace(manifest, items=()))
    judgement = judged(world)
    assert judgement.broken == ()
    (note,) = judgement.notes
    assert note.words == f"2 different manifests {manifest.manifest}: one counts"
    assert note.records == (first, second)


def test_a_home_that_was_not_read_proves_nothing() -> None:
    world, body = opened()
    world.workers[A].say(decision(body, 2, m.Verdict.CANCELLED))
    judged(world)
    assert world.judge(read=[B]).broken == ()
