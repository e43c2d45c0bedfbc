"""Three sites join the running two, one of the five stands still and comes back, a sixth joins. Run last."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from itertools import pairwise

import pytest

from streams.client.producer import IntentHandle
from streams.core import records as m
from streams.core import topics
from streams.core.channel import DOOR, LOG
from streams.core.names import Site
from streams.federation import local
from streams.settings import load_settings
from tests.sites.rig import A, B, C, Rig, Spot, noise, until

pytestmark = [pytest.mark.sites, pytest.mark.changes_federation, pytest.mark.timeout(400)]

D, E, F = Site("T2_D"), Site("T2_E"), Site("T2_F")
FIVE = (A, B, C, D, E)


@pytest.fixture(scope="module")
def five(federation: Rig) -> Iterator[Rig]:
    """The session's federation with three sites beside A and B."""
    local.up(federation.state, load_settings(need_federation=False).cache, FIVE)
    rig = Rig(federation.state)
    yield rig
    rig.close()


def test_one_site_feeds_four_in_the_log_and_every_site_feeds_the_next(rig: Rig, five: Rig, spot: Spot) -> None:
    """`rig`: what an earlier test broke is waited for."""
    files = {spot.lfn("big.dat"): noise(12_000_000, spot), spot.lfn("empty.dat"): b"", spot.lfn("one.dat"): b"1"}
    five.register(files, spot.block())
    handles = [five.publish([spot.block()], FIVE[1:], plane=LOG)]
    expected = [(files, site) for site in FIVE[1:]]
    for site, following in zip(FIVE, (*FIVE[1:], A), strict=True):
        own = Spot(f"{spot.name}-{site}")
        some = {own.lfn("some.dat"): noise(300_000, site)}
        five.register(some, own.block(), at=site)
        handles.append(five.publish([own.block()], [following], home=site))
        expected.append((some, following))
    for handle in handles:
        five.wait_done(handle)
    for some, site in expected:
        five.assert_arrived(some, at=site)
    assert five.part("mirror").restarts == 0, five.part("mirror").why


def test_a_site_that_stands_still_holds_up_no_other(five: Rig, spot: Spot) -> None:
    """Longer than its broker's session and its worker's: it goes on where it was, or begins anew."""
    still = [five.part(f"{C}-broker"), five.part(f"{C}-worker-0")]
    files = {spot.lfn("big.dat"): noise(6_000_000, spot)}
    five.register(files, spot.block())
    for part in still:
        os.kill(part.pid, signal.SIGSTOP)
    try:
        both = five.publish([spot.block()], [C, D], plane=LOG)
        until(lambda: five.path(D, spot.lfn("big.dat")).exists(), f"{D} has it while {C} stands still")
        five.wait_done(five.publish([spot.block()], [E], home=B))
    finally:
        for part in still:
            os.kill(part.pid, signal.SIGCONT)
    five.wait_done(both)
    for site in (C, D, E):
        five.assert_arrived(files, at=site)


def test_what_one_holder_cannot_give_or_gives_wrong_comes_from_the_next(five: Rig, spot: Spot) -> None:
    """By door and by log; of what is wrong the site that gave it is named."""
    for plane in (DOOR, LOG):
        own = Spot(f"{spot.name}-{plane}")
        names = ("gone", "changed", "wrong", "right")
        files = {own.lfn(name): noise(3_000_000 if name == "wrong" else 100_000, f"{own}{name}") for name in names}
        five.register(files, own.block())
        five.wait_done(five.publish([own.block()], [B]))
        until(lambda files=files: all(_holds(five, lfn, B) for lfn in files), f"{A} knows what {B} has")
        gone, changed, wrong = (five.path(A, own.lfn(name)) for name in names[:3])
        seen = wrong.stat()
        try:
            gone.rename(f"{gone}.away")
            changed.write_bytes(b"x" * 100_000)
            with wrong.open("r+b") as file:  # as a disk does it: no stat tells
                file.seek(1_000_000)
                file.write(b"spoilt")
            os.utime(wrong, ns=(seen.st_atime_ns, seen.st_mtime_ns))
            handle = five.publish([own.block()], [C], plane=plane)
            five.wait_done(handle)
            five.assert_arrived(files, at=C)
            (manifest,) = five.facts(A, topics.MANIFESTS, key=handle.id)
            said = [f for f in five.facts(C, topics.TRANSFERS, key=manifest.manifest) if isinstance(f, m.SourceFailed)]
            of = {manifest.items[n].lfn: one for one in said for n in one.items.numbers()}
            assert set(of) == {own.lfn(name) for name in names[:3]}
            assert {(one.source, one.plane) for one in of.values()} == {(A, plane)}
            # By door nothing but the whole is compared: its source is sure to be wrong only by log.
            sure = m.FailureClass.TRANSIENT if plane == DOOR else m.FailureClass.DATA_BAD
            assert of[own.lfn("wrong")].reason.failure_class is sure
            assert "checksum differs" in of[own.lfn("wrong")].reason.text
            asked = five.facts(C, topics.requests_to(B), key=manifest.manifest)
            assert {request.plane for request in asked} == {plane}
        finally:
            gone.with_name(f"{gone.name}.away").rename(gone)
            for path, name in ((changed, "changed"), (wrong, "wrong")):
                path.write_bytes(files[own.lfn(name)])


def _sent(rig: Rig, handle: IntentHandle, site: Site = A) -> int:
    """Bytes of an intent that left a site, by its own word."""
    (manifest,) = rig.facts(A, topics.MANIFESTS, key=handle.id)
    said = rig.facts(site, topics.CHUNK_EVENTS, key=manifest.manifest)
    return sum(one.bytes for one in said if isinstance(one, m.ChunksServed))


def test_four_sites_get_a_file_by_door_and_one_copy_leaves_its_source(five: Rig, spot: Spot) -> None:
    """Each gets it from the one before it, while that gets it."""
    files = {spot.lfn("big.dat"): noise(150_000_000, spot), spot.lfn("small.dat"): noise(50_000, "small")}
    five.register(files, spot.block())
    handle = five.publish([spot.block()], FIVE[1:], plane=DOOR)
    five.wait_done(handle)
    for site in FIVE[1:]:
        five.assert_arrived(files, at=site)
    size = sum(map(len, files.values()))
    until(lambda: _sent(five, handle) >= size, "what left is told")
    assert _sent(five, handle) <= 1.1 * size
    for giver, site in pairwise(FIVE[1:]):
        asked = [r for r in five.facts(site, topics.requests_to(giver)) if r.manifest.intent == handle.id]
        assert asked, f"{site} gets it from {giver}"


def test_the_first_of_a_chain_dies_in_the_middle_and_at_most_one_more_copy_leaves_the_source(
    five: Rig, spot: Spot
) -> None:
    files = {spot.lfn("big.dat"): noise(300_000_000, spot)}
    five.register(files, spot.block())
    first, plane = five.part(f"{B}-worker-0"), five.plane_pid(f"{B}-worker-0")
    source = five.plane_pid(f"{A}-worker-0")
    with five.ear(C, topics.CHUNK_EVENTS) as ear:
        handle = five.publish([spot.block()], FIVE[1:], plane=DOOR)
        ear.until(
            lambda w: isinstance(w, m.TransferProgress) and w.manifest.intent == handle.id and bool(w.verified),
            f"{C} has some of it from {B}",
        )
        os.kill(source, signal.SIGSTOP)  # however busy the machine: the rest is to come
        os.kill(plane, signal.SIGKILL)
        five.kill(first.name)
        os.kill(source, signal.SIGCONT)
    five.until_back(first)
    five.wait_done(handle)
    for site in FIVE[1:]:
        five.assert_arrived(files, at=site)
    assert _sent(five, handle) <= 2.1 * 300_000_000
    five.audit()


def _holds(rig: Rig, lfn: str, site: Site) -> bool:
    """Whether A's view knows it."""
    return site in {found["site"] for found in rig.ask(A, f"/api/where?lfn={lfn}")}


def test_a_sixth_site_joins_knows_what_was_there_and_receives_from_two(five: Rig, spot: Spot) -> None:
    """What is under way when it comes goes on."""
    blocks = {A: {spot.lfn("from-a.dat"): noise(20_000_000, spot)}, B: {spot.lfn("from-b.dat"): noise(200_000, spot)}}
    for site, files in blocks.items():
        five.register(files, spot.block(f"from-{site[-1]}"), at=site)
    under_way = five.publish([spot.block("from-A")], [E], plane=LOG)
    local.up(five.state, load_settings(need_federation=False).cache, (*FIVE, F))
    six = Rig(five.state)
    try:
        assert six.sites == (*FIVE, F)
        held = next(fact for fact in six.facts(B, "replicas") if isinstance(fact, m.FilesHeld)).files[0]
        until(
            lambda: any(r["site"] == B and r["bytes"] == held.bytes for r in six.ask(F, f"/api/where?lfn={held.lfn}")),
            f"{F} knows what {B} held before it came",
        )
        for site, files in blocks.items():
            six.wait_done(six.publish([spot.block(f"from-{site[-1]}")], [F], home=site))
            six.assert_arrived(files, at=F)
        six.wait_done(under_way)
        six.audit()
    finally:
        six.close()
