"""Files by door between real sites: whole and recorded as by the log, and whatever of it is killed in the middle."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import time

import pytest

from streams.core import records as m
from streams.core import topics
from streams.core.channel import DOOR, LOG
from streams.core.ranges import Ranges
from streams.doors.sums import BLOCK_BYTES
from tests.planes.ends import FlippingWay
from tests.sites.blows import DOOR_BYTES, assert_by_door, struck, told
from tests.sites.rig import A, B, Rig, Spot, noise, until

pytestmark = [pytest.mark.sites, pytest.mark.timeout(400)]


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


def test_a_large_file_crosses_by_door_and_its_bytes_are_in_no_topic(rig: Rig, spot: Spot) -> None:
    files = {spot.lfn("big"): noise(DOOR_BYTES, spot), spot.lfn("small"): noise(1_000, spot)}
    rig.register(files, spot.block())
    before = rig.ends(A, topics.chunks_to(B))
    started = time.monotonic()
    handle = rig.publish([spot.block()])
    rig.wait_done(handle)
    print(f"\n{DOOR_BYTES / 1e6:.0f} MB in {time.monotonic() - started:.1f} s")
    rig.assert_arrived(files)
    (manifest,) = rig.facts(A, topics.MANIFESTS, key=handle.id)
    planned = [f for f in rig.facts(B, topics.TRANSFERS, key=manifest.manifest) if isinstance(f, m.TransferPlanned)]
    assert {(route.site, route.plane) for plan in planned for route in plan.routes} == {(A, DOOR)}
    more = sum(end - before[place] for place, end in rig.ends(A, topics.chunks_to(B)).items())
    asked = rig.facts(B, topics.requests_to(A), key=manifest.manifest)
    assert 4 <= len(asked) <= more < 20, "an offer for each request, where payload would be hundreds of records"

    def served() -> list[m.ChunksServed]:
        said = rig.facts(A, topics.CHUNK_EVENTS, key=manifest.manifest)
        return [one for one in said if isinstance(one, m.ChunksServed)]

    until(lambda: len(served()) >= 4, "what left by the door is told")
    assert {one.plane for one in served()} == {DOOR}
    rig.audit()


def test_an_intent_gets_the_plane_that_it_insists_on(rig: Rig, spot: Spot) -> None:
    """However small: by door what would go by the log, an empty file too; and by the log as it says."""
    for plane in (DOOR, LOG):
        own = Spot(f"{spot.name}-{plane}")
        files = {own.lfn("small"): noise(100_000, own), own.lfn("empty"): b""}
        rig.register(files, own.block())
        handle = rig.publish([own.block()], plane=plane)
        rig.wait_done(handle)
        rig.assert_arrived(files)
        (manifest,) = rig.facts(A, topics.MANIFESTS, key=handle.id)
        asked = rig.facts(B, topics.requests_to(A), key=manifest.manifest)
        assert {request.plane for request in asked} == {plane}


def test_source_plane(rig: Rig, spot: Spot) -> None:
    """Its tickets end with it: its successor offers anew, under the same numbers."""
    worker = rig.part("T1_A-worker-0")
    plane = rig.plane_pid(worker.name)
    with struck(rig, spot, lambda: os.kill(plane, signal.SIGKILL), DOOR_BYTES, DOOR) as blow:
        until(lambda: rig.plane_pid(worker.name) != plane, "another plane runs")
        assert_by_door(rig, blow)


def test_destination_plane(rig: Rig, spot: Spot) -> None:
    worker = rig.part(f"{B}-worker-0")
    plane = rig.plane_pid(worker.name)
    with struck(rig, spot, lambda: os.kill(plane, signal.SIGKILL), DOOR_BYTES, DOOR) as blow:
        until(lambda: rig.plane_pid(worker.name) != plane, "another plane runs")
        blow.first_new_progress(blow.epoch_s)
        assert_by_door(rig, blow)


@pytest.mark.parametrize("name", [f"{A}-worker-0", f"{B}-worker-0"])
def test_worker(rig: Rig, spot: Spot, name: str) -> None:
    before = rig.part(name)
    with struck(rig, spot, lambda: rig.kill(name), DOOR_BYTES, DOOR) as blow:
        told(name, blow, rig.until_back(before))
        assert_by_door(rig, blow)


def test_bytes_go_on_while_the_mirror_stands_still(rig: Rig, spot: Spot) -> None:
    """All that was offered before comes; the next request waits for the mirror."""
    mirror = rig.part("mirror").pid
    with struck(rig, spot, lambda: os.kill(mirror, signal.SIGSTOP), DOOR_BYTES, DOOR) as blow:
        try:
            time.sleep(1)  # what it had sent is there now
            (manifest,) = rig.facts(B, topics.remote(A, topics.MANIFESTS), key=blow.handle.id)
            offers = rig.facts(B, topics.remote(A, topics.chunks_to(B)), key=manifest.manifest)
            offered = Ranges(span for offer in offers for span in offer.ranges)
            assert 0 < offered.size < DOOR_BYTES
            blow.ear.until(
                lambda w: (
                    isinstance(w, m.TransferProgress)
                    and w.manifest.intent == blow.handle.id
                    and not offered - w.verified
                ),
                "what was offered is there while nothing is mirrored",
                30,
            )
        finally:
            os.kill(mirror, signal.SIGCONT)


def test_a_bit_that_flips_on_the_way_costs_its_block(rig: Rig, spot: Spot) -> None:
    """A's door is announced where a proxy listens, which flips one."""
    own = rig.state / A / "site.toml"
    text, port = own.read_text(), free_port()
    files = {spot.lfn("big"): noise(64_000_000, spot)}
    with contextlib.closing(FlippingWay(port, 3_000_000)) as way:
        try:
            own.write_text(f'{text}\n[door]\nhost = "127.0.0.1"\nport = {port}\nannounce = "127.0.0.1:{way.port}"\n')
            rig.start_again(A)
            rig.register(files, spot.block())
            handle = rig.publish([spot.block()], plane=DOOR)
            rig.wait_done(handle)
            rig.assert_arrived(files)
            (manifest,) = rig.facts(A, topics.MANIFESTS, key=handle.id)
            said = [f for f in rig.facts(B, topics.TRANSFERS, key=manifest.manifest) if isinstance(f, m.SourceFailed)]
            assert [(one.source, one.items) for one in said] == [(A, Ranges.of(0))]
            assert "checksum differs" in said[0].reason.text
            assert 64_000_000 < way.passed < 64_000_000 + 2 * BLOCK_BYTES, "the block that differed came again"
            told = [p for p in rig.facts(B, topics.CHUNK_EVENTS) if isinstance(p, m.TransferProgress)]
            adopted = max(p.adopted.size for p in told if p.manifest == manifest.manifest)
            assert adopted >= 64_000_000 - BLOCK_BYTES
        finally:
            own.write_text(text)
            rig.start_again(A)
    rig.audit()


def test_a_door_that_is_closed_in_the_middle_leaves_the_rest_to_the_log_and_serves_again_when_it_opens(
    rig: Rig, spot: Spot
) -> None:
    """Its worker is started again without one, and once more with one."""
    own, worker = rig.state / A / "site.toml", rig.part(f"{A}-worker-0")
    text, plane = own.read_text(), rig.plane_pid(worker.name)

    def close() -> None:
        own.write_text(f"{text}\n[door]\n")
        os.kill(plane, signal.SIGKILL)  # which else serves what is left of its tickets while it ends
        rig.kill(worker.name)

    try:
        with struck(rig, spot, close, DOOR_BYTES, DOOR) as blow:
            told(worker.name, blow, rig.until_back(worker))
        asked = [r for r in rig.facts(B, topics.requests_to(A)) if r.manifest.intent == blow.handle.id]
        assert {request.plane for request in asked} == {DOOR, LOG}
    finally:
        own.write_text(text)
        rig.start_again(A)
    again = {spot.lfn("again"): noise(1_000, spot)}
    rig.register(again, spot.block("again"))
    rig.wait_done(rig.publish([spot.block("again")], plane=DOOR))
    rig.assert_arrived(again)
