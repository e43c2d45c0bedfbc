"""Files by door from a source that opens none: it connects to the doors of its destinations."""

from __future__ import annotations

import os
import signal

import pytest

from streams.client import worker_api
from streams.core import topics
from streams.core.channel import DOOR
from streams.kafka.publish import wall_ms
from tests.sites.blows import DOOR_BYTES, assert_by_door, struck
from tests.sites.rig import A, B, Rig, Spot, noise, until

pytestmark = [pytest.mark.sites, pytest.mark.timeout(400)]


def test_a_source_that_opens_no_door_connects_to_its_destinations(rig: Rig, spot: Spot) -> None:
    """And where its plane is killed in the middle, the rest comes all the same."""
    own, worker = rig.state / A / "site.toml", f"{A}-worker-0"
    text = own.read_text()

    def start_again(settings: str) -> None:
        own.write_text(settings)
        rig.start_again(A)  # its plane says that it has ended, and its door with it

    def doors_of_a() -> list[str]:
        known = worker_api.announcements(rig.settings(B), B)
        return [one.door for one in known.alive(A, wall_ms(), role="plane") if one.door]

    start_again(f"{text}\n[door]\n")
    try:
        until(lambda: not doors_of_a(), "B knows that A has no door")
        files = {spot.lfn("quiet"): noise(20_000_000, spot), spot.lfn("small"): noise(1_000, spot)}
        rig.register(files, spot.block("quiet"))
        before = rig.ends(A, topics.chunks_to(B))
        handle = rig.publish([spot.block("quiet")], plane=DOOR)
        rig.wait_done(handle)
        rig.assert_arrived(files)
        more = sum(end - before[place] for place, end in rig.ends(A, topics.chunks_to(B)).items())
        asked = [r for r in rig.facts(B, topics.requests_to(A)) if r.manifest.intent == handle.id]
        assert {request.plane for request in asked} == {DOOR}
        last = max(asked, key=lambda request: request.request_no)  # a worker looks once a second
        assert last.capability.startswith("http://")
        assert len(asked) <= more < 10, "an offer for each request, and its bytes in no topic"

        plane = rig.plane_pid(worker)
        with struck(rig, spot, lambda: os.kill(plane, signal.SIGKILL), DOOR_BYTES, DOOR) as blow:
            until(lambda: rig.plane_pid(worker) != plane, "another plane runs")
            assert_by_door(rig, blow)
        rig.audit()
    finally:
        start_again(text)
