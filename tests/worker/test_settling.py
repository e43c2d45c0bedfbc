"""Settling: what was sent and not heard back is not sent again for a while, then it is."""

from __future__ import annotations

import pytest

from streams.core import commands as c
from streams.core import records as m
from streams.core.policy import Policy
from streams.planes import orders
from streams.worker import dispatcher as dispatcher
from streams.worker.scheduler import SLICE_S
from tests.core import example as x
from tests.worker.rig import DONE, ONE, PARTLY, Rig


def test_a_whole_buffer_that_is_given_up_is_heard_of_in_slices() -> None:
    rig = Rig()
    rig.effects.lost.extend(c.PlanTransfer(x.MANIFEST, x.C, 1, 5, whole=True) for _ in range(100))
    elapsed = iter(range(10_000))
    rig.scheduler._elapsed_s = lambda: next(elapsed) * SLICE_S / 10
    assert rig.dispatcher.tick(), "more is due"
    assert 80 < len(rig.effects.lost) < 100
    assert rig.tick() > 5
    assert not rig.effects.lost


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
