"""How tools are named to people: in requests, plans, failures and reports."""

from __future__ import annotations

from streams.cli import words
from streams.core import records as m
from streams.core.names import Text
from streams.core.ranges import Ranges
from streams.core.routing import routes
from tests.core import example as x

XRDCP = "tool-xrdcp"


def test_a_request_says_its_tool() -> None:
    assert " by tool xrdcp, until" in words.line(x.requested(1, Ranges([(0, 150)]), plane=XRDCP))


def test_a_plan_says_the_tool_and_why() -> None:
    (route,) = routes(x.C, (), whole=True, tools={x.C: "xrdcp"})
    plan = m.TransferPlanned(x.MANIFEST, x.B, 1, 5, None, (route,), False, x.written())
    assert words.line(plan).endswith("by tool xrdcp: it is put on the link from S_C")
    assert words.line(x.planned(x.written(), plane=XRDCP)).endswith("by tool xrdcp only")


def test_a_failure_says_what_was_not_brought() -> None:
    why = m.Reason(m.Scope.NETWORK, m.FailureClass.TRANSIENT, "read", Text("tool xrdcp took longer than 5 s"))
    said = words.line(x.source_failed(3, plane=XRDCP, why=why))
    assert said.startswith("tool xrdcp did not bring request 3 from S_C because network/transient")


def test_a_report_says_by_what_bytes_came() -> None:
    report = m.TransferReported(
        x.INTENT, x.MANIFEST, x.B, 1, "active", 10, 150, 0, 0, 2, Text(""), planes=("log", XRDCP)
    )
    assert m.fault(report) is None
    assert "10/150 verified by log and tool xrdcp" in words.line(report)
