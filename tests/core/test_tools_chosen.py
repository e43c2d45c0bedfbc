"""When a tool on a link is asked: behind doors and before the log, whole files at a time, and not while it rests."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import pytest

from streams.core import commands as c
from streams.core import records as m
from streams.core import transfer as transfers
from streams.core.channel import DOOR, LOG, TOOL, plane_in_words, tool_of, tool_plane
from streams.core.door_rests import DoorRests
from streams.core.manifest import Manifest
from streams.core.names import Site, Text
from streams.core.owed import owed_transfer, report, waits_for
from streams.core.policy import Policy
from streams.core.ranges import EMPTY, Ranges
from streams.core.routing import routes
from tests.core import example as x

D, E = Site("S_D"), Site("S_E")
CP = tool_plane("cp")
TOOLS = {x.C: "cp"}
POLICY = Policy(
    request_bytes=60, door_request_bytes=120, door_bytes_min=100, requests_in_flight=2, door_rest_s=5.0, lease_s=20.0
)
MANIFEST = Manifest(x.written(items=[x.item(0, 100, others=(D, E)), x.item(1, 50, others=(D,)), x.item(2, 50)]))
AWAY = m.Reason(m.Scope.NETWORK, m.FailureClass.TRANSIENT, "read", Text("tool cp ended with exit code 1"))
WRONG = m.Reason(m.Scope.SOURCE, m.FailureClass.TRANSIENT, transfers.WRONG, Text("checksum differs"))

Asked = tuple[Site, str, int, tuple[tuple[int, int], ...], int]


def row(*facts: transfers.TransferMessage, door: bool = False, plane: str | None = None) -> transfers.TransferRow:
    planned = x.planned(MANIFEST.body, doors=(x.C,) if door else (), plane=plane)
    found = None
    for fact in (planned, x.opened(), *facts):
        found = transfers.fold(found, fact, MANIFEST.index)
    assert found is not None
    return found


def owed(
    found: transfers.TransferRow,
    now_ms: int = 0,
    tools: Mapping[Site, str] = TOOLS,
    doors: tuple[Site, ...] = (),
    rests: DoorRests | None = None,
) -> list[c.Owed]:
    return owed_transfer(
        found, MANIFEST.index, x.B, POLICY, part_here=True, now_ms=now_ms, doors=doors, tools=tools, rests=rests
    )


def asked(found: transfers.TransferRow, now_ms: int = 0, **given: object) -> list[Asked]:
    """(source, carrier, number, ranges, due) of each request."""
    return [
        (one.source, one.plane, one.request_no, tuple(one.ranges), o.due_ms)
        for o in owed(found, now_ms, **given)  # type: ignore[arg-type]
        if isinstance(one := o.command, c.RequestChunks)
    ]


def requested(number: int, start: int, stop: int, plane: str = CP, source: Site = x.C) -> m.ChunksRequested:
    return x.requested(number, Ranges([(start, stop)]), of=MANIFEST.body, plane=plane, source=source)


def failed(number: int, at_ms: int = 5_000, plane: str = CP, why: m.Reason = AWAY) -> m.SourceFailed:
    return x.source_failed(number, at_ms=at_ms, plane=plane, why=why)


def test_a_word_means_a_tool_or_none() -> None:
    assert (tool_of("tool-xrdcp"), plane_in_words("tool-xrdcp")) == ("xrdcp", "tool xrdcp")
    assert (tool_of(DOOR), plane_in_words(DOOR)) == (None, DOOR)
    assert [tool_of(odd) for odd in (None, "tool-", "tool", "tool-log", "tool-a b", "xtool-a")] == [None] * 6


def test_the_plan_says_the_tool_where_there_is_no_door() -> None:
    (route,) = routes(x.C, (), whole=True, tools=TOOLS)
    assert (route.site, route.plane, route.why) == (x.C, CP, "it is put on the link from S_C")
    assert [route.plane for route in routes(x.C, (x.C,), whole=True, tools=TOOLS)] == [DOOR]
    assert routes(x.C, (), whole=False, tools=TOOLS) == routes(x.C, (), whole=True, tools=TOOLS, plane=LOG) == ()
    assert routes(D, (), whole=True, tools=TOOLS) == ()


def test_a_source_without_a_door_connects_to_its_destinations_before_any_tool() -> None:
    (route,) = routes(x.C, (x.B,), whole=True, dials=(x.C,), tools=TOOLS)
    assert (route.plane, route.why) == (DOOR, "S_C has no door and connects to the one here")
    assert routes(x.C, (), whole=False, dials=(x.C,)) == routes(x.C, (), whole=True, dials=(x.C,), plane=LOG) == ()


def test_a_tool_is_asked_for_whole_files_in_place_of_the_log() -> None:
    assert asked(row()) == [(x.C, CP, 1, ((0, 150),), 0)], "more than one request has: the second file to its end"
    assert asked(row(), tools={}) == [(x.C, LOG, 1, ((0, 60),), 0)]
    one = row(requested(1, 0, 150))
    assert asked(one) == [(x.C, CP, 2, ((150, 200),), 0)]
    part = row(x.progress(Ranges([(0, 30)])), x.requested(1, Ranges([(30, 60)]), of=MANIFEST.body))
    assert asked(part) == [(x.C, CP, 2, ((60, 200),), 0)], "of a file that came in part, what is left"


def test_doors_come_before_tools_and_tools_before_any_log() -> None:
    assert {one[1] for one in asked(row(door=True))} == {DOOR}
    assert asked(row(), doors=(D,)) == [(D, DOOR, 1, ((0, 120),), 0), (x.C, CP, 1, ((150, 200),), 0)]
    assert asked(row(), tools={D: "cp"}) == [(D, CP, 1, ((0, 150),), 0), (x.C, LOG, 1, ((150, 200),), 0)]


def test_two_tools_share_no_file() -> None:
    got = asked(row(), tools={x.C: "cp", D: "rsync", E: "cp"})
    assert got == [(x.C, CP, 1, ((0, 150),), 0)], "what it has no place for now is its all the same"


def test_while_a_door_rests_the_tool_takes_over_and_while_that_rests_the_log() -> None:
    door = (requested(1, 0, 120, plane=DOOR), failed(1, plane=DOOR))
    assert asked(row(*door, door=True), now_ms=6_000) == [(x.C, CP, 2, ((0, 150),), 0)]
    both = (*door, requested(2, 0, 150), failed(2, at_ms=7_000))
    assert asked(row(*both, door=True), now_ms=8_000) == [(x.C, LOG, 3, ((0, 60),), 0)]
    assert asked(row(*both, door=True), now_ms=10_000)[0][1] == DOOR
    assert asked(row(*both), now_ms=12_000)[0][:3] == (x.C, CP, 3)


def test_a_tool_rests_longer_each_time_and_a_lapsed_request_counts() -> None:
    found = row(requested(1, 0, 150), failed(1), requested(2, 0, 150), x.expired(2, at_ms=20_000))
    (source,) = found.sources
    assert (source.tool_failures, source.tool_failed_at_ms, source.door_failures) == (2, 20_000, 0)
    assert asked(found, now_ms=29_999)[0][1] == LOG
    assert asked(found, now_ms=30_000)[0][:3] == (x.C, CP, 3)


def test_a_lapse_of_a_tool_passes_no_log_by() -> None:
    found = row(requested(1, 0, 150), x.expired(1, at_ms=20_000))
    assert asked(found, now_ms=20_001) == [(x.C, LOG, 2, ((0, 60),), 0)]


def test_a_tool_that_failed_others_rests_for_a_transfer_that_never_tried_it() -> None:
    rests = DoorRests(POLICY)
    rests.note(x.C, 1_000, MANIFEST.body.manifest, way=TOOL)
    assert asked(row(), now_ms=5_999, rests=rests)[0][1] == LOG
    assert asked(row(), now_ms=6_000, rests=rests)[0][1] == CP
    rests = DoorRests(POLICY)
    rests.note(x.C, 1_000, MANIFEST.body.manifest)
    assert asked(row(), now_ms=1_001, rests=rests)[0][1] == CP, "its door is another thing"


def test_an_intent_that_insists_waits_for_its_tool_and_says_why() -> None:
    found = row(plane=CP)
    assert asked(found, tools={}) == [(x.C, CP, 1, ((0, 150),), 0)], "whether there is one its plane says"
    found = row(requested(1, 0, 150), failed(1), plane=CP)
    assert asked(found, now_ms=6_000) == [(x.C, CP, 2, ((0, 150),), 10_000)]
    assert {one[0] for one in asked(found, now_ms=6_000, tools={D: "cp"})} == {x.C, D}, "what only C has waits"
    words = waits_for(found, part_here=True, granted=True)
    assert "tool cp failed 1 × to bring files of S_C, at last: tool cp ended with exit code 1" in words
    assert "the intent insists on tool cp" in words
    small = Manifest(x.written(items=[x.item(0, 9)]))
    of_small = transfers.fold(
        transfers.fold(None, x.planned(small.body, plane=CP), small.index), x.opened(), small.index
    )
    got = owed_transfer(of_small, small.index, x.B, POLICY, part_here=True, now_ms=0)
    assert [o.command.plane for o in got if isinstance(o.command, c.RequestChunks)] == [CP], "however small it is"


def test_what_is_small_comes_by_log() -> None:
    small = Manifest(x.written(items=[x.item(0, 99)]))
    found = transfers.fold(transfers.fold(None, x.planned(small.body), small.index), x.opened(), small.index)
    got = owed_transfer(found, small.index, x.B, POLICY, part_here=True, now_ms=0, tools=TOOLS)
    assert [o.command.plane for o in got if isinstance(o.command, c.RequestChunks)] == [LOG]


def test_entries_come_by_log() -> None:
    found = row()
    index = replace(MANIFEST.index, unit=m.Unit.ENTRIES)
    got = owed_transfer(found, index, x.B, POLICY, part_here=True, now_ms=0, tools=TOOLS)
    assert {o.command.plane for o in got if isinstance(o.command, c.RequestChunks)} == {LOG}


def test_what_was_asked_of_a_tool_is_told_to_the_plane_until_it_is_over() -> None:
    found = row(requested(1, 0, 150), requested(2, 150, 200))

    def bringing(found: transfers.TransferRow, *, part_here: bool = True) -> list[c.BringByTool]:
        got = owed_transfer(found, MANIFEST.index, x.B, POLICY, part_here=part_here, now_ms=0, tools=TOOLS)
        return [o.command for o in got if isinstance(o.command, c.BringByTool)]

    assert [(one.request_no, one.plane, one.ranges) for one in bringing(found)] == [
        (1, CP, Ranges([(0, 150)])),
        (2, CP, Ranges([(150, 200)])),
    ]
    assert bringing(found, part_here=False) == []
    for over in (x.progress(Ranges([(0, 150)])), failed(1), x.expired(1)):
        assert [one.request_no for one in bringing(transfers.fold(found, over, MANIFEST.index))] == [2]
    assert bringing(transfers.fold(found, x.lost(), MANIFEST.index)) == []
    words = waits_for(found, part_here=True, granted=True)
    assert words == "tool cp to bring request 1 from S_C, tool cp to bring request 2 from S_C"
    told = report(found, MANIFEST.index, x.B, 1, words)
    assert told.planes == (CP,)
    assert m.fault(told) is None


def test_all_carriers_that_were_asked_are_told_in_order() -> None:
    found = row(
        requested(1, 0, 60, plane=DOOR),
        requested(2, 60, 100, plane=LOG),
        requested(3, 100, 150, plane=tool_plane("rsync")),
        requested(1, 150, 200, source=D),
    )
    assert found.planes == (DOOR, LOG, CP, tool_plane("rsync"))
    assert m.fault(report(found, MANIFEST.index, x.B, 1, "")) is None


def test_what_came_wrong_by_a_tool_comes_so_once_more_and_then_by_log() -> None:
    once = (requested(1, 0, 150), x.source_failed(1, Ranges.of(0), plane=CP, why=WRONG), x.lost(), x.opened(2))
    got = asked(row(*once), tools={x.C: "cp"})
    assert [one[:2] + one[3:4] for one in got] == [(x.C, CP, ((100, 200),)), (x.C, CP, ((0, 100),))]
    twice = (
        *once,
        x.source_failed(2, Ranges.of(2), plane=CP, why=WRONG),
        x.source_failed(3, Ranges.of(2), plane=CP, why=WRONG),
    )
    got = asked(row(*twice, x.lost(2), x.opened(3)))
    assert (x.C, LOG, ((150, 200),)) in [one[:2] + one[3:4] for one in got]


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 0, 1), (1, 2, 0)])
def test_failures_fold_alike_in_any_order(order: tuple[int, ...]) -> None:
    said = (failed(1), x.expired(2, at_ms=9_000), failed(2, at_ms=8_000))
    first = row(requested(1, 0, 100), requested(2, 100, 200), *said)
    assert row(requested(1, 0, 100), requested(2, 100, 200), *(said[n] for n in order)) == first
    assert first.outstanding(MANIFEST.index) == EMPTY
