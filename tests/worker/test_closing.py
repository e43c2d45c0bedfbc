"""Closing: completion, replicas and end of a transfer are owed until they are in the log, and never contradict."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from streams.core import records as m
from streams.core import transfer as transfers
from streams.core.ranges import Ranges
from streams.planes import orders
from streams.worker import dispatcher as dispatcher
from streams.worker.effects import at_once
from streams.worker.scheduler import RECORD_SETTLE_MS
from tests.core import example as x
from tests.worker.rig import DONE, ENVIRONMENT, ONE, PARTLY, Rig


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
    aside: list[Callable[[], bool]] = []
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


def test_a_manifest_of_nothing_closes_at_once() -> None:
    rig = Rig()
    rig.hear(x.planned(x.written(items=[])))
    assert [d.ended for d in rig.take(m.CompletionRecord)] == [m.Ended.DONE]
    rig.log.acks[-1](None)
    assert len(rig.take(m.TransferClosed)) == 1


# A last word that a late fact could change is fixed before anybody else hears it.


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
