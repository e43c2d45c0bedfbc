"""What a worker does for requests that a tool of its site carries out: told to its plane, leased, served by nobody."""

from __future__ import annotations

from dataclasses import replace

import pytest

from streams.core import records as m
from streams.core.channel import tool_plane
from streams.core.policy import Policy
from streams.core.ranges import EMPTY, Ranges
from streams.planes import orders
from tests.core import example as x
from tests.worker.rig import Rig

ONE = x.written()
CP = tool_plane("cp")
WHOLE = Ranges([(0, 150)])
POLICY = replace(Policy(), door_bytes_min=1)
LEASE_S = POLICY.lease_s


@pytest.fixture
def rig() -> Rig:
    """Its transfer is asked for, and that was heard."""
    rig = Rig(policy=POLICY, tools={x.C: "cp"})
    rig.hear(x.planned(ONE))
    rig.opened()
    (asked,) = rig.take(m.ChunksRequested)
    assert (asked.plane, asked.ranges, asked.source) == (CP, WHOLE, x.C)
    rig.hear(asked)
    return rig


def brings(rig: Rig) -> list[orders.Bring]:
    return rig.take(orders.Bring)


ORDER = orders.Bring(ONE.manifest, x.C, 1, 1, CP, WHOLE)


def test_the_plan_names_the_tool() -> None:
    rig = Rig(policy=POLICY, tools={x.C: "cp"})
    rig.hear(x.body(), x.decided(), ONE)
    (plan,) = rig.take(m.TransferPlanned)
    assert [(route.site, route.plane) for route in plan.routes] == [(x.C, CP)]


def test_the_plane_is_told_until_the_request_is_over(rig: Rig) -> None:
    assert brings(rig) == [ORDER]
    rig.after(POLICY.settle_s)
    assert brings(rig) == [ORDER], "an order may be lost"
    rig.hear(x.progress(WHOLE))
    rig.after(POLICY.settle_s)
    assert brings(rig) == []
    assert rig.take(m.LeaseExpired) == []


def test_another_plane_is_told_the_same_number_once_its_parts_are_open(rig: Rig) -> None:
    brings(rig)
    rig.forget()
    rig.plane.writer = "plane-0-2"
    rig.dispatcher.plane_restarted()
    rig.dispatcher.tick()
    assert brings(rig) == []
    rig.hear(x.opened(), writer="plane-0-2")
    assert brings(rig) == [ORDER]
    assert rig.take(m.ChunksRequested) == []


def test_its_lease_goes_on_while_its_plane_tells_and_ends_when_that_falls_silent(rig: Rig) -> None:
    for _ in range(100):
        rig.after(LEASE_S / 2)
        rig.hear(x.progress(EMPTY))
    assert rig.take(m.LeaseExpired) == []
    rig.after(LEASE_S + 1)
    assert [one.request_no for one in rig.take(m.LeaseExpired)] == [1]


def test_another_worker_has_it_brought_and_ends_no_lease_at_once(rig: Rig) -> None:
    for _ in range(4):
        rig.after(LEASE_S / 2)
        rig.hear(x.progress(EMPTY))
    rig.sit(awake=False)
    rig.wake_all()
    assert rig.take(m.LeaseExpired) == []
    rig.opened()
    assert brings(rig) == [ORDER]
    rig.after(LEASE_S + 1)
    assert [one.request_no for one in rig.take(m.LeaseExpired)] == [1]


def test_a_tool_that_failed_rests_and_the_log_takes_over(rig: Rig) -> None:
    rig.hear(x.source_failed(1, plane=CP, at_ms=rig.now_ms))
    (asked,) = rig.take(m.ChunksRequested)
    assert (asked.plane, asked.request_no) == ("log", 2)
    assert rig.scheduler.door_rests.until_ms(x.C) == 0, "its door did not fail"


def test_the_source_that_it_names_serves_nothing() -> None:
    rig = Rig(x.C)
    items = (m.RequestedItem(0, x.lfn(0), 0, 150, "v0"),)
    asked = m.ChunksRequested(x.MANIFEST, x.B, x.C, 1, 1, CP, items, WHOLE, rig.now_ms + 9_000)
    rig.hear(asked)
    assert rig.take(orders.Serve) == []
    assert rig.dispatcher.serving == {}
    rig.hear(replace(asked, plane="log"))
    assert len(rig.take(orders.Serve)) == 1
