"""A transfer's walk, as a worker lives it: from plan to close, over lost parts, leases that end and a cancellation."""

from __future__ import annotations

from streams import wire
from streams.core import records as m
from streams.core import transfer as transfers
from streams.core.names import Text
from streams.core.policy import LEASES_MAX
from streams.core.ranges import Ranges
from streams.planes import orders
from streams.worker import dispatcher as dispatcher
from streams.worker import rows
from streams.worker.scheduler import OPEN_SETTLE_MS
from tests.core import example as x
from tests.worker.rig import DONE, ONE, WHOLE, Rig


def test_one_transfer_from_plan_to_close() -> None:
    rig = Rig()
    rig.hear(x.body(), x.decided(), ONE)
    (plan,) = rig.take(m.TransferPlanned)
    rig.hear(plan)
    (order,) = rig.take(orders.Open)
    assert (order.manifest_id, order.attempt) == (x.MANIFEST, 1)
    assert order.manifest == wire.encode(ONE)
    (said,) = rig.take(m.TransferReported)
    assert (said.decision_no, said.waits_for) == (1, "its part files to be opened")
    rig.hear(said)
    rig.opened()
    (asked,) = rig.take(m.ChunksRequested)
    assert (asked.source, asked.ranges, asked.until_ms) == (x.C, WHOLE, rig.now_ms + 20_000)
    assert [i.version for i in asked.items] == ["v0", "v1"]
    rig.hear(asked)
    rig.hear(DONE, writer=rig.plane.writer)
    held, done = rig.log.sent
    assert isinstance(held, m.FilesHeld)
    assert isinstance(done, m.CompletionRecord)
    assert done.ended is m.Ended.DONE
    of_held, of_done = rig.log.acks[-2:]
    of_held(None)
    assert rig.take(m.TransferClosed) == [], "not before all is acknowledged"
    of_done(None)
    (closed,) = rig.take(m.TransferClosed)
    assert closed.completion == done
    rig.forget()
    rig.hear(closed, done)
    assert rig.take(orders.Forget) == [orders.Forget(x.MANIFEST)]
    assert rig.transfer().state is transfers.State.CLOSED
    assert (rig.tables["manifests"], rig.tables["waiting"]) == ({}, {})
    assert rig.intent().state == "done"
    assert not [key for table in rig.tables.values() for key in table if key.startswith(rows.OPEN)]
    rig.after(60)
    assert (rig.log.sent, rig.plane.told) == ([], []), "and nothing is owed for ever after"


def test_another_workers_plane_does_not_open_parts_for_us() -> None:
    rig = Rig()
    rig.hear(x.planned(ONE))
    rig.take(orders.Open)
    rig.hear(x.opened(), writer="plane-1-1")
    assert rig.take(m.ChunksRequested) == []
    rig.after(OPEN_SETTLE_MS / 1000)
    assert len(rig.take(orders.Open)) == 1, "ours is asked to"
    rig.opened()
    assert len(rig.take(m.ChunksRequested)) == 1


def test_a_lost_part_is_opened_again_and_asked_for_from_the_start() -> None:
    rig = Rig()
    rig.hear(x.planned(ONE))
    rig.opened()
    rig.hear(*rig.take(m.ChunksRequested), x.progress(Ranges([(0, 50)])))
    rig.forget()
    rig.hear(x.lost())
    (order,) = rig.take(orders.Open)
    assert (order.attempt, order.verified) == (2, Ranges())
    rig.opened(attempt=2)
    (asked,) = rig.take(m.ChunksRequested)
    assert (asked.request_no, asked.attempt, asked.ranges) == (2, 2, WHOLE)


def test_a_lease_is_proposed_to_expire_and_the_range_asked_again() -> None:
    rig = Rig()
    rig.hear(x.planned(ONE))
    rig.opened()
    rig.hear(*rig.take(m.ChunksRequested))
    rig.after(19.9)
    assert rig.take(m.LeaseExpired) == []
    rig.after(0.1)
    (lease,) = rig.take(m.LeaseExpired)
    assert (lease.source, lease.request_no) == (x.C, 1)
    assert rig.take(m.ChunksRequested) == [], "a timer proposes; the fact decides"
    rig.forget()
    rig.hear(lease)
    assert [order.attempt for order in rig.take(orders.Open)] == [1], "the plane may have lost it, and its word of that"
    (asked,) = rig.take(m.ChunksRequested)
    assert (asked.request_no, asked.ranges) == (2, WHOLE)


def test_items_that_are_to_fail_and_do_not_ask_whether_the_part_is_there() -> None:
    """Nothing is under way then, so no lease ends; and the plane's word that it lost the part may be lost."""
    rig = Rig()
    rig.hear(x.planned(ONE))
    rig.opened()
    rig.hear(*rig.take(m.ChunksRequested))
    gone = m.Reason(m.Scope.SOURCE, m.FailureClass.PERMANENT, "read", Text("gone"))
    rig.forget()
    rig.hear(x.source_failed(1, Ranges.of(0, 1), why=gone))
    assert [order.failed[0].items for order in rig.take(orders.Fail)] == [Ranges.of(0, 1)]
    assert rig.take(orders.Open) == []
    rig.forget()
    rig.after(rig.policy.settle_s + 1)
    assert len(rig.take(orders.Fail)) == 1
    assert [order.attempt for order in rig.take(orders.Open)] == [1]


def test_a_lease_lasts_while_payload_of_its_partition_comes_but_not_for_ever() -> None:
    """On a slow link what was asked for is on its way behind other payload; asked again, it would come twice."""
    rig = Rig()
    rig.hear(x.planned(ONE))
    rig.opened()
    (asked,) = rig.take(m.ChunksRequested)
    rig.hear(asked)
    rig.after(15)
    rig.hear(x.progress(Ranges([(0, 10)])))
    rig.after(19.9)
    assert rig.take(m.LeaseExpired) == []
    rig.after(0.1)
    assert len(rig.take(m.LeaseExpired)) == 1
    rig.forget()
    for verified in range(11, 30):
        rig.hear(x.progress(Ranges([(0, verified)])))
        rig.after(10)
    assert rig.now_ms > asked.until_ms + (LEASES_MAX - 1) * 20_000
    assert rig.take(m.LeaseExpired)


def test_a_cancelled_transfer_is_stopped_and_ends_cancelled() -> None:
    rig = Rig()
    rig.hear(x.body(), x.decided(), ONE, x.planned(ONE), x.reported())
    rig.opened()
    rig.forget()
    rig.hear(x.decided(2, m.Verdict.CANCELLED))
    (told,) = rig.take(m.TransferDecided)
    assert told.verdict is m.Verdict.CANCELLED
    rig.hear(told)
    (stop,) = rig.take(orders.Stop)
    assert (stop.attempt, stop.reason.phase) == (1, "stop")
    assert [r.decision_no for r in rig.take(m.TransferReported)] == [2], "answered: no need to tell again"
    assert (stop.manifest_id, stop.manifest) == (x.MANIFEST, wire.encode(ONE))
    rig.hear(m.PartLost(x.MANIFEST, stop.attempt, stop.reason))
    done = rig.closes()
    assert (done.ended, done.cancelled) == (m.Ended.CANCELLED, Ranges.of(0, 1))


def test_a_file_already_there_completes_without_bytes() -> None:
    rig = Rig()
    rig.hear(x.planned(ONE))
    rig.hear(x.opened(present=Ranges.of(0, 1)), writer=rig.plane.writer)
    assert rig.take(m.ChunksRequested) == []
    assert [d.ended for d in rig.take(m.CompletionRecord)] == [m.Ended.DONE]
