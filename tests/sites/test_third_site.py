"""A third site joins the running two, and blocks go every way of the full mesh. Run last: it leaves three sites."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from streams.core import records as m
from streams.federation import local
from streams.settings import load_settings
from tests.sites.rig import A, B, C, Rig, Spot, noise, until

pytestmark = [pytest.mark.sites, pytest.mark.changes_federation, pytest.mark.timeout(400)]


@pytest.fixture(scope="module")
def three(federation: Rig) -> Iterator[Rig]:
    """The session's federation with T2_C beside A and B. What was under way when it came is in `handle` and `files`."""
    local.up(federation.state, load_settings(need_federation=False).cache, (A, B, C))
    rig = Rig(federation.state)
    yield rig
    rig.close()


def test_a_third_site_joins_and_receives_from_both(rig: Rig, three: Rig, spot: Spot) -> None:
    """It knows what was registered before it came, and gets a block from A and one from B; its own goes to A."""
    assert three.sites == (A, B, C)
    blocks = {A: {spot.lfn("from-a.dat"): noise(3_000_000, spot)}, B: {spot.lfn("from-b.dat"): noise(2_000_000, spot)}}
    for site, files in blocks.items():
        three.register(files, spot.block(f"from-{site[-1]}"), at=site)
    handles = [three.publish([spot.block(f"from-{site[-1]}")], [C], home=site) for site in blocks]
    for handle in handles:
        three.wait_done(handle)
    for files in blocks.values():
        three.assert_arrived(files, at=C)
    back = {spot.lfn("from-c.dat"): noise(500_000, spot)}
    three.register(back, spot.block("from-c"), at=C)
    three.wait_done(three.publish([spot.block("from-c")], [A], home=B))
    three.assert_arrived(back, at=A)
    three.audit()


def test_what_was_registered_before_the_third_site_came_is_known_there(three: Rig, spot: Spot) -> None:
    """Its view read the others' journals from their beginning."""
    held = [fact for fact in three.facts(A, "replicas") if isinstance(fact, m.FilesHeld)]
    lfn, size = held[0].files[0].lfn, held[0].files[0].bytes
    until(
        lambda: any(r["site"] == A and r["bytes"] == size for r in three.ask(C, f"/api/where?lfn={lfn}")),
        f"{C} knows {lfn}",
    )


def test_a_fan_out_over_the_full_mesh(three: Rig, spot: Spot) -> None:
    """One intent to two destinations from every site at once: six transfers, over every link."""
    sites = (A, B, C)
    handles, expected = [], []
    for site in sites:
        own = Spot(f"{spot.name}-{site}")
        files = {own.lfn("big.dat"): noise(4_000_000, site), own.lfn("empty.dat"): b"", own.lfn("one.dat"): b"1"}
        three.register(files, own.block(), at=site)
        others = [other for other in sites if other != site]
        handles.append(three.publish([own.block()], others, home=site))
        expected += [(files, other) for other in others]
    for handle in handles:
        outcome = three.wait_done(handle)
        assert [one.arrived for one in outcome.destinations] == [3, 3]
    for files, other in expected:
        three.assert_arrived(files, at=other)
    three.audit()
