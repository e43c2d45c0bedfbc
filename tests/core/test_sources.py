"""Which of several holders is asked, by which carrier: doors first, then logs, and nobody for what is bad there."""

from __future__ import annotations

import random
from collections.abc import Collection, Mapping
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streams.core import commands as c
from streams.core import records as m
from streams.core import transfer as transfers
from streams.core.channel import DOOR, LOG, NO_TOOLS, tool_plane
from streams.core.manifest import Manifest
from streams.core.names import Site, Text
from streams.core.owed import owed_transfer, waits_for
from streams.core.policy import Policy
from streams.core.ranges import EMPTY, Ranges
from tests.core import example as x

D, E = Site("S_D"), Site("S_E")
CP = tool_plane("cp")
POLICY = Policy(
    request_bytes=60,
    door_request_bytes=60,
    door_bytes_min=100,
    requests_in_flight=2,
    source_retry_s=10.0,
    door_rest_s=5.0,
    lease_s=20.0,
)
MANY = x.written(items=[x.item(0, 100, others=(D, E)), x.item(1, 50, others=(D,)), x.item(2, 50)])
MANIFEST = Manifest(MANY)
GONE = x.reason("gone")
BAD = m.Reason(m.Scope.SOURCE, m.FailureClass.DATA_BAD, "seal", Text("checksum differs"))
WRONG = m.Reason(m.Scope.SOURCE, m.FailureClass.TRANSIENT, transfers.WRONG, Text("checksum differs"))
ROUTES = (m.Route(x.C, DOOR, Text("S_C has a door")),)

Asked = tuple[Site, str, int, tuple[tuple[int, int], ...], int]


def row(*facts: transfers.TransferMessage, routes: tuple[m.Route, ...] = ()) -> transfers.TransferRow:
    found = None
    for fact in (replace(x.planned(MANY), routes=routes), x.opened(), *facts):
        found = transfers.fold(found, fact, MANIFEST.index)
    assert found is not None
    return found


def owed(
    found: transfers.TransferRow,
    now_ms: int = 0,
    doors: Collection[Site] = (),
    here: Site = x.B,
    tools: Mapping[Site, str] = NO_TOOLS,
) -> list[c.Owed]:
    return owed_transfer(found, MANIFEST.index, here, POLICY, part_here=True, now_ms=now_ms, doors=doors, tools=tools)


def asked(
    found: transfers.TransferRow,
    now_ms: int = 0,
    doors: Collection[Site] = (),
    here: Site = x.B,
    tools: Mapping[Site, str] = NO_TOOLS,
) -> list[Asked]:
    """(source, carrier, number, ranges, due) of each request."""
    return [
        (one.source, one.plane, one.request_no, tuple(one.ranges), o.due_ms)
        for o in owed(found, now_ms, doors, here, tools)
        if isinstance(one := o.command, c.RequestChunks)
    ]


def failing(found: transfers.TransferRow) -> tuple[m.FailedItems, ...]:
    return next((o.command.failed for o in owed(found) if isinstance(o.command, c.FailItems)), ())


def test_the_holder_alone_is_asked_by_log() -> None:
    assert asked(row()) == [(x.C, LOG, 1, ((0, 60),), 0)]
    both = (x.requested(1, Ranges([(0, 60)]), of=MANY), x.requested(2, Ranges([(60, 120)]), of=MANY))
    assert asked(row(*both)) == [], "it has two under way: the others are not asked for the rest"


def test_an_open_door_of_another_comes_before_the_holders_log() -> None:
    assert asked(row(), doors=(D,)) == [(D, DOOR, 1, ((0, 60),), 0), (x.C, LOG, 1, ((150, 200),), 0)]


def test_two_doors_share_a_large_file_each_taking_the_next_piece() -> None:
    first = row(routes=ROUTES)
    assert asked(first, doors=(x.C, E)) == [(x.C, DOOR, 1, ((0, 60),), 0), (E, DOOR, 1, ((60, 100),), 0)]
    more = row(
        x.requested(1, Ranges([(0, 60)]), of=MANY, plane=DOOR),
        x.requested(1, Ranges([(60, 100)]), of=MANY, source=E, plane=DOOR),
        routes=ROUTES,
    )
    assert asked(more, doors=(x.C, E)) == [(x.C, DOOR, 2, ((100, 160),), 0)]


def test_what_is_small_comes_by_log_from_the_holder() -> None:
    small = Manifest(x.written(items=[x.item(0, 90, others=(D,))]))
    found = transfers.fold(None, replace(x.planned(small.body), routes=ROUTES), small.index)
    found = transfers.fold(found, x.opened(), small.index)
    got = owed_transfer(found, small.index, x.B, POLICY, part_here=True, now_ms=0, doors=(x.C, D))
    assert [(o.command.source, o.command.plane) for o in got if isinstance(o.command, c.RequestChunks)] == [(x.C, LOG)]


def test_the_next_door_comes_before_any_log_while_one_rests() -> None:
    failed = row(
        x.requested(1, Ranges([(0, 60)]), of=MANY, plane=DOOR),
        x.source_failed(1, at_ms=5_000, plane=DOOR),
        routes=ROUTES,
    )
    assert asked(failed, now_ms=6_000, doors=(x.C, D)) == [
        (D, DOOR, 1, ((0, 60),), 0),
        (x.C, LOG, 2, ((150, 200),), 0),
    ]
    assert asked(failed, now_ms=10_000, doors=(x.C, D))[0][:2] == (x.C, DOOR), "it rested"


def test_a_log_that_left_a_request_unanswered_is_passed_by_while_somebody_else_can_be_asked() -> None:
    lapsed = row(x.requested(1, Ranges([(0, 60)]), of=MANY), x.expired(1, at_ms=30_000))
    assert asked(lapsed, now_ms=31_000) == [
        (D, LOG, 1, ((0, 60),), 0),
        (x.C, LOG, 2, ((150, 200),), 0),
    ], "of what the holder alone has, it is asked again at once"
    assert asked(lapsed, now_ms=35_000) == [(x.C, LOG, 2, ((0, 60),), 0)]
    all_three = row(
        x.requested(1, Ranges([(0, 60)]), of=MANY),
        x.expired(1, at_ms=30_000),
        x.requested(1, Ranges([(0, 60)]), of=MANY, source=D),
        x.expired(1, D, at_ms=30_000),
        x.requested(1, Ranges([(0, 60)]), of=MANY, source=E),
        x.expired(1, E, at_ms=30_000),
    )
    assert asked(all_three, now_ms=31_000) == [(x.C, LOG, 2, ((0, 60),), 0)], "where all rest, the holder at once"


def test_what_a_holder_cannot_read_now_is_asked_of_the_next_and_what_nobody_can_waits() -> None:
    unread = (x.requested(1, Ranges([(0, 60)]), of=MANY), x.source_failed(1, Ranges.of(0), at_ms=5_000))
    assert asked(row(*unread), now_ms=6_000) == [
        (x.C, LOG, 2, ((100, 160),), 0),
        (D, LOG, 1, ((0, 60),), 0),
    ]
    others = tuple(
        fact
        for n, site in enumerate((D, E))
        for fact in (
            x.requested(1, Ranges([(0, 60)]), of=MANY, source=site),
            x.source_failed(1, Ranges.of(0), at_ms=5_001 + n, source=site),
        )
    )
    assert asked(row(*unread, *others), now_ms=6_000) == [
        (x.C, LOG, 2, ((100, 160),), 0),
        (x.C, LOG, 2, ((0, 60),), 15_000),
    ], "the first that may be asked again"


def test_what_somebody_will_never_give_is_asked_of_the_next_and_fails_when_none_is_left() -> None:
    gone = (x.requested(1, Ranges([(0, 60)]), of=MANY), x.source_failed(1, Ranges.of(0), why=GONE))
    found = row(*gone)
    assert asked(found) == [(x.C, LOG, 2, ((100, 160),), 0), (D, LOG, 1, ((0, 60),), 0)]
    assert failing(found) == ()
    found = row(*gone, x.source_failed(1, Ranges.of(0, 1), source=D, why=BAD))
    assert [one[:1] + one[3:4] for one in asked(found)] == [(x.C, ((100, 160),)), (E, ((0, 60),))]
    assert failing(found) == ()
    found = row(
        *gone,
        x.source_failed(1, Ranges.of(0, 1), source=D, why=BAD),
        x.source_failed(1, Ranges.of(0), source=E, why=GONE),
    )
    assert asked(found) == [(x.C, LOG, 2, ((100, 160),), 0)]
    (lost,) = failing(found)
    assert lost.items == Ranges.of(0)
    assert lost.reason.text == f"no holder can give it; at last {E}: gone"
    over = transfers.fold(found, x.progress(failed=(lost,)), MANIFEST.index)
    assert failing(over) == ()
    assert all(not source.bad for source in over.sources if source.source != D), "of what is over nothing is kept"


def test_what_the_holder_alone_had_fails_with_its_own_last_word() -> None:
    found = row(x.source_failed(1, Ranges.of(2), why=GONE))
    assert [lost.items for lost in failing(found)] == [Ranges.of(2)]


def test_what_came_wrong_by_a_door_comes_from_one_other_alone_or_from_it_again() -> None:
    wrong = (x.source_failed(1, Ranges.of(0), plane=DOOR, why=WRONG), x.lost(), x.opened(attempt=2))
    found = row(*wrong, routes=ROUTES)
    assert asked(found, doors=(x.C, E)) == [
        (x.C, DOOR, 1, ((100, 160),), 0),
        (E, DOOR, 1, ((0, 60),), 0),
    ]
    assert asked(found, doors=(x.C, D, E))[:2] == [(x.C, DOOR, 1, ((100, 160),), 0), (D, DOOR, 1, ((0, 60),), 0)]
    assert {one[0] for one in asked(found, doors=(x.C, D, E)) if one[3][0][0] < 100} == {D}, "shared with nobody"
    assert [one[:2] + one[3:4] for one in asked(found, doors=(x.C,))] == [
        (x.C, DOOR, ((100, 160),)),
        (x.C, DOOR, ((0, 60),)),
    ]
    insists = replace(found, plane=DOOR)
    assert [(one[0], one[3]) for one in asked(insists)] == [(x.C, ((100, 160),)), (D, ((0, 60),))]


def test_what_came_wrong_twice_comes_by_log_where_each_piece_is_checked() -> None:
    once = x.source_failed(1, Ranges.of(0), plane=DOOR, why=WRONG)
    twice = (once, once, x.lost(), x.source_failed(3, Ranges.of(0), plane=DOOR, why=WRONG), x.lost(2), x.opened(3))
    found = row(*twice, routes=ROUTES)
    assert [one[:2] + one[3:4] for one in asked(found, doors=(x.C,))] == [
        (x.C, DOOR, ((100, 160),)),
        (x.C, LOG, ((0, 60),)),
    ]
    assert f"{x.C} gave 1 item wrong twice, to come again by log" in waits_for(found, part_here=True, granted=True)


def test_what_the_only_holder_gave_wrong_twice_fails_where_nothing_but_doors_may_bring_it() -> None:
    once = (x.source_failed(1, Ranges.of(2), plane=DOOR, why=WRONG), x.lost(), x.opened(attempt=2))
    found = row(*once, routes=ROUTES)
    said = f"{x.C} gave 1 item wrong, of which what differs is to come again"
    assert said in waits_for(found, part_here=True, granted=True)
    assert failing(replace(found, plane=DOOR)) == ()
    found = row(*once, x.source_failed(2, Ranges.of(2), plane=DOOR, why=WRONG), routes=ROUTES)
    assert failing(found) == ()
    (lost,) = failing(replace(found, plane=DOOR))
    assert lost.items == Ranges.of(2)
    assert lost.reason.failure_class is m.FailureClass.DATA_BAD
    assert lost.reason.text == f"no holder can give it; at last {x.C}: checksum differs"


def test_bytes_of_several_that_do_not_make_the_file_come_of_one_alone() -> None:
    mixed = (
        x.source_failed(1, Ranges.of(0), plane=DOOR, why=WRONG),
        x.source_failed(1, Ranges.of(0), source=E, plane=DOOR, why=WRONG),
        x.lost(),
        x.opened(attempt=2),
    )
    found = row(*mixed, routes=ROUTES)
    got = [one[:2] + one[3:4] for one in asked(found, doors=(x.C, E))]
    assert got == [(x.C, DOOR, ((100, 160),)), (x.C, DOOR, ((0, 60),))]


def test_a_site_is_not_asked_of_what_it_is_to_have_itself() -> None:
    found = row(x.source_failed(1, Ranges.of(0, 1), why=GONE))
    assert asked(found, here=D) == [(x.C, LOG, 1, ((150, 200),), 0), (E, LOG, 1, ((0, 60),), 0)]
    (lost,) = next(o.command.failed for o in owed(found, here=D) if isinstance(o.command, c.FailItems))
    assert lost.items == Ranges.of(1)


def test_an_intent_that_insists_on_the_log_is_asked_for_by_no_door() -> None:
    found = row(routes=ROUTES)
    found = replace(found, plane=LOG)
    assert {one[1] for one in asked(found, doors=(x.C, D, E))} == {LOG}


def test_explain_says_what_a_holder_will_not_give() -> None:
    found = row(x.requested(1, Ranges([(0, 60)]), of=MANY), x.source_failed(1, Ranges.of(0), why=GONE))
    assert f"{x.C} cannot give 1 item: gone" in waits_for(found, part_here=True, granted=True)


FACTS: tuple[transfers.TransferMessage, ...] = (
    x.requested(1, Ranges([(0, 60)]), of=MANY),
    x.requested(2, Ranges([(60, 120)]), of=MANY, plane=DOOR),
    x.requested(1, Ranges([(0, 60)]), of=MANY, source=D, plane=DOOR),
    x.source_failed(1, Ranges.of(0), why=GONE),
    x.source_failed(1, Ranges.of(0), at_ms=7_000),
    x.source_failed(1, Ranges.of(0, 1), source=D, why=BAD),
    x.source_failed(1, source=D, plane=DOOR),
    x.source_failed(1, Ranges.of(0), source=E, why=GONE),
    x.source_failed(2, Ranges.of(0), plane=DOOR, why=WRONG),
    x.source_failed(3, Ranges.of(0, 2), plane=DOOR, why=WRONG),
    x.source_failed(1, Ranges.of(1), source=D, plane=DOOR, why=WRONG),
    x.requested(2, Ranges([(100, 150)]), of=MANY, source=D, plane=CP),
    x.source_failed(2, source=D, plane=CP),
    x.expired(1, at_ms=9_000),
    x.progress(Ranges([(0, 100)]), Ranges.of(1)),
    x.progress(failed=(x.failed("gone", 0),)),
)


SITES = st.sets(st.sampled_from([x.C, D, E]))


@given(st.lists(st.sampled_from(FACTS), max_size=8), st.integers(0, 60_000), SITES, SITES, st.sampled_from([None, CP]))
def test_every_missing_byte_is_asked_of_at_most_one_and_of_nobody_who_will_not_give_it(
    facts: list[transfers.TransferMessage], now_ms: int, doors: set[Site], linked: set[Site], plane: str | None
) -> None:
    found = replace(row(*facts, routes=ROUTES), plane=plane)
    tools = dict.fromkeys(linked, "cp")
    if found.completion is not None or found.state is not transfers.State.ACTIVE:
        return
    seen = found.outstanding(MANIFEST.index) | found.verified | found.excused(MANIFEST.index)
    failed = transfers.all_items(failing(found))
    waits = EMPTY
    for source, _, _, ranges, due_ms in asked(found, now_ms, doors, tools=tools):
        here = Ranges(ranges)
        assert not here & seen, "asked twice"
        seen = seen | here
        waits = waits | (here if due_ms > now_ms else EMPTY)
        items = Ranges.of(*MANIFEST.line.items_in(here))
        assert not items & (found.source_row(source).bad_items | failed)
        (held,) = (one.items for one in MANIFEST.index.candidates if one.holder == source)
        assert not items - held
    under_way = any(source.outstanding for source in found.sources)
    left = Ranges([(0, found.total)]) - seen - MANIFEST.line.ranges_of(failed)
    assert under_way or seen or failed or not left, "something is asked for, or on its way"


@pytest.mark.parametrize("seed", range(40))
def test_what_sources_said_folds_alike_in_any_order(seed: int) -> None:
    chance = random.Random(seed)
    said = [fact for fact in FACTS if isinstance(fact, m.SourceFailed | m.TransferProgress)]
    first = row(*FACTS[:3], *chance.sample(said, len(said)))
    second = row(*FACTS[:3], *chance.sample(said, len(said)), *chance.sample(said, 3))
    assert first == second
