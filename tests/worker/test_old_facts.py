"""Old facts ask for nothing: not before a partition is awake, not where it is another worker's, not when all ended."""

from __future__ import annotations

from streams.core import records as m
from streams.core.policy import Policy
from streams.core.ranges import Ranges
from streams.planes import orders
from streams.worker import dispatcher as dispatcher
from tests.core import example as x
from tests.worker.rig import DONE, ONE, PARTITIONS, Rig


def test_catching_up_asks_nothing_until_awake() -> None:
    rig = Rig(awake=False)
    rig.hear(x.body(), x.decided(), ONE, x.planned(ONE), x.opened(), x.reported(), x.told(1))
    rig.after(60)
    assert (rig.log.sent, rig.plane.told) == ([], [])
    rig.wake_all()
    assert rig.take(m.TransferPlanned) == [], "its row and body are here"
    assert [o.attempt for o in rig.take(orders.Open)] == [1]
    assert len(rig.take(m.TransferReported)) == 1
    rig.after(1)
    assert rig.take(m.TransferPlanned) == []


def test_a_partition_that_is_not_owned_asks_nothing() -> None:
    rig = Rig(awake=False)
    for partition in range(PARTITIONS):
        rig.dispatcher.drop(partition)
    rig.hear(x.body(), x.decided(), ONE, x.planned(ONE), x.opened())
    rig.after(60)
    assert rig.log.sent == []
    assert [o for o in rig.plane.told if not isinstance(o, orders.Assign)] == []


def test_waking_reads_payload_from_before_the_oldest_open_request() -> None:
    rig = Rig(policy=Policy(lease_s=20), awake=False)
    rig.hear(x.planned(ONE), x.opened(), x.requested(1, Ranges([(0, 10)]), until_ms=500_000))
    rig.wake_all()
    reads = rig.take(orders.Assign)[-1].partitions
    partition = rig.record(x.opened())["partition"]
    assert reads[partition] == 500_000 - 20_000 - 60_000
    assert [reads[p] for p in range(PARTITIONS) if p != partition] == [None] * (PARTITIONS - 1), "from the end"


def test_a_dropped_partition_is_read_no_more() -> None:
    rig = Rig()
    rig.dispatcher.reads[3] = 0
    rig.dispatcher.drop(3)
    (order,) = rig.take(orders.Assign)
    assert set(order.partitions) == set(range(PARTITIONS)) - {3}
    rig.dispatcher.drop(3)
    assert rig.take(orders.Assign) == [], "it was not read"


def test_closed_and_ended_rows_ask_for_nothing_when_waking() -> None:
    rig = Rig(awake=False)
    rig.hear(x.body(), x.decided(), ONE, x.completed(), x.planned(ONE), DONE, x.closed())
    rig.wake_all()
    rig.after(30)
    assert rig.log.sent == []
    assert [o for o in rig.plane.told if not isinstance(o, orders.Assign | orders.Forget)] == []
