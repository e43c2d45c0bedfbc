"""A destination is asked in the source's place: who comes before whom, and who is asked when one cannot give."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streams.core import commands as c
from streams.core import records as m
from streams.core import transfer as transfers
from streams.core.channel import DOOR, LOG, RELAY
from streams.core.credit import Credit
from streams.core.door_rests import DoorRests
from streams.core.manifest import Manifest
from streams.core.names import Site, Text
from streams.core.owed import owed_transfer, waits_for
from streams.core.policy import LEASES_MAX, Policy
from streams.core.ranges import Ranges
from streams.core.routing import chain, relays, routes
from tests.core import example as x

R, S = Site("S_R"), Site("S_S")
"""Two that get it before B does; C is the source."""
POLICY = Policy(request_bytes=60, door_request_bytes=60, door_bytes_min=100, requests_in_flight=2, lease_s=20.0)
BODY = x.written(items=[x.item(0, 150), x.item(1, 50)])
MANIFEST = Manifest(BODY)
ROUTES = routes(x.C, (x.C, R, S), whole=True, before=(R, S))
ALL = (x.C, R, S)
GONE = m.Reason(m.Scope.SOURCE, m.FailureClass.TRANSIENT, "read", Text("S_R has nothing of it"))
WRONG = m.Reason(m.Scope.SOURCE, m.FailureClass.TRANSIENT, transfers.WRONG, Text("checksum differs"))

NAMES = st.sampled_from([Site(f"S{n}") for n in range(7)])


def row(*facts: transfers.TransferMessage, plan: m.TransferPlanned | None = None) -> transfers.TransferRow:
    found = None
    for fact in (plan or replace(x.planned(BODY), routes=ROUTES), x.opened(), *facts):
        found = transfers.fold(found, fact, MANIFEST.index)
    assert found is not None
    return found


def asked(
    found: transfers.TransferRow, doors: tuple[Site, ...] = ALL, now_ms: int = 0, rests: DoorRests | None = None
) -> list[tuple[Site, str, int, tuple[tuple[int, int], ...]]]:
    """(source, carrier, number, ranges) of each request that is due."""
    owed = owed_transfer(found, MANIFEST.index, x.B, POLICY, part_here=True, now_ms=now_ms, rests=rests, doors=doors)
    return [
        (one.source, one.plane, one.request_no, tuple(one.ranges))
        for o in owed
        if isinstance(one := o.command, c.RequestChunks) and o.due_ms <= now_ms
    ]


@given(NAMES, st.sets(NAMES), st.dictionaries(NAMES, st.sampled_from(["", "east", "west"])))
def test_everybody_computes_one_chain_and_nobody_waits_for_who_waits_for_him(
    source: Site, sites: set[Site], regions: dict[Site, str]
) -> None:
    """The source is in no chain, its region comes first, and each region is entered once."""
    ordered = chain(source, sorted(sites, reverse=True), regions)
    assert ordered == chain(source, sites, regions)
    assert set(ordered) == sites - {source}
    for n, site in enumerate(ordered):
        before = relays(site, source, sites, regions, 99)
        assert before == ordered[:n][::-1], "the nearest before it first"
        assert relays(site, source, sites, regions, 2) == before[:2]
    seen = [regions.get(site, "") for site in ordered]
    assert len([1 for a, b in pairwise(seen) if a != b]) == max(0, len(set(seen)) - 1)
    if (near := regions.get(source, "")) in seen:
        assert seen[0] == near


def test_a_site_that_gets_nothing_of_it_has_no_place() -> None:
    assert relays(x.B, x.C, (R, S), {}, 8) == ()
    assert relays(x.C, x.C, (R, x.C), {}, 8) == ()


@pytest.mark.parametrize(
    ("plane", "whole", "expected"),
    [
        (None, True, [(R, RELAY), (S, RELAY), (x.C, DOOR)]),
        (DOOR, True, [(R, RELAY), (S, RELAY)]),
        (LOG, True, []),
        (None, False, []),
    ],
)
def test_routes_name_relays_before_the_source(plane: str | None, whole: bool, expected: list[tuple[Site, str]]) -> None:
    """An intent that insists on doors asks the source's door without a route."""
    found = routes(x.C, (x.C, R, S), whole=whole, plane=plane, before=(R, S))
    assert [(route.site, route.plane) for route in found] == expected


def test_a_relay_without_a_door_is_no_relay() -> None:
    assert [route.site for route in routes(x.C, (S,), whole=True, before=(R, S))] == [S]


def test_a_door_of_another_make_gives_what_its_site_holds_and_relays_nothing() -> None:
    found = routes(x.C, (x.C, R, S), whole=True, before=(R, S), foreign=(R, x.C))
    assert [(route.site, route.plane, route.why) for route in found] == [
        (S, RELAY, "S_S gets it before, and has a door"),
        (x.C, DOOR, "S_C has a door of another make"),
    ]


def test_the_nearest_relay_alone_is_asked() -> None:
    assert asked(row()) == [(R, DOOR, 1, ((0, 60),))]
    both = [x.requested(no, Ranges([(60 * no - 60, 60 * no)]), of=BODY, source=R, plane=DOOR) for no in (1, 2)]
    assert asked(row(*both)) == [], "what it has no place for now, it will have"
    words = waits_for(row(*both), part_here=True, granted=True)
    assert words.startswith("S_R, which gets it before, to answer request 1 by door, S_R")


def test_small_transfers_and_those_by_log_have_no_relay() -> None:
    assert asked(row(plan=replace(x.planned(BODY), routes=ROUTES, plane=LOG))) == [(x.C, LOG, 1, ((0, 60),))]
    small = Manifest(x.written(items=[x.item(0, 90)]))
    found = transfers.fold(None, replace(x.planned(small.body), routes=ROUTES), small.index)
    found = transfers.fold(found, x.opened(), small.index)
    owed = owed_transfer(found, small.index, x.B, POLICY, part_here=True, now_ms=0, doors=ALL)
    assert [o.command.source for o in owed if isinstance(o.command, c.RequestChunks)] == [x.C]


def test_one_that_failed_a_transfer_is_passed_over_for_the_rest_of_it() -> None:
    """The next before it, then the source; and never again the one that failed, however long ago."""
    first = x.requested(1, Ranges([(0, 60)]), of=BODY, source=R, plane=DOOR)
    second = x.requested(1, Ranges([(0, 60)]), of=BODY, source=S, plane=DOOR)
    failed = x.source_failed(1, why=GONE, source=R, plane=DOOR, at_ms=1_000)
    assert asked(row(first, failed), now_ms=2_000) == [(S, DOOR, 1, ((0, 60),))]
    both = row(first, failed, second, x.expired(1, source=S, at_ms=30_000))
    assert asked(both, now_ms=31_000) == [(x.C, DOOR, 1, ((0, 60),))]
    assert asked(both, now_ms=10**9) == [(x.C, DOOR, 1, ((0, 60),))]
    assert "the door of S_R failed 1 ×" in waits_for(both, part_here=True, granted=True)


def test_one_whose_door_closed_is_not_asked() -> None:
    assert asked(row(), doors=(x.C, S)) == [(S, DOOR, 1, ((0, 60),))]
    assert asked(row(), doors=(x.C,)) == [(x.C, DOOR, 1, ((0, 60),))]


def test_what_failed_another_transfer_rests_as_a_relay_and_serves_as_a_holder() -> None:
    rests = DoorRests(POLICY)
    rests.note(R, 1_000, MANIFEST.body.manifest, way=RELAY)
    assert asked(row(), now_ms=2_000, rests=rests)[0][0] == S
    assert rests.until_ms(R) == 0
    rests.note(S, 1_000, MANIFEST.body.manifest)
    assert asked(row(), now_ms=2_000, rests=rests)[0][0] == S, "what it holds is another matter"


def test_what_came_wrong_from_a_relay_comes_from_who_held_it() -> None:
    first = x.requested(1, Ranges([(0, 60)]), of=BODY, source=R, plane=DOOR)
    wrong = x.source_failed(1, Ranges.of(0), why=WRONG, source=R, plane=DOOR)
    found = row(first, wrong)
    assert asked(found) == [(R, DOOR, 2, ((150, 200),)), (x.C, DOOR, 1, ((0, 60),))]


def test_a_relay_that_says_that_it_waits_keeps_its_lease_for_a_while() -> None:
    """As many leases as by the log at most: who says so for ever is left."""
    credit = Credit({DOOR: 1000, LOG: 1000}, 20_000, 8)
    request = c.RequestChunks(MANIFEST.body.manifest, R, 1, 1, Ranges([(0, 60)]), 60, 5, 1, DOOR)
    lease = c.ExpireLease(MANIFEST.body.manifest, R, 1, DOOR)
    credit.want(request.manifest, [request])
    credit.grant(request)
    channel = credit.channel(R, DOOR, request.manifest)
    assert credit.lease_end(lease, 20_000) == 20_000
    credit.note_waiting(channel, request.manifest, 15_000)
    assert credit.lease_end(lease, 20_000) == 35_000
    credit.note_waiting(channel, request.manifest, 10**9)
    assert credit.lease_end(lease, 20_000) == 20_000 + (LEASES_MAX - 1) * 20_000
    credit.note(channel, request.manifest, 0, 0, 40_000)
    assert credit.lease_end(lease, 20_000) == 20_000, "what it said is forgotten with the request"
