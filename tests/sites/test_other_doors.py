"""Files by URL between real sites, from a door of another make; and the log, when that fails. Keys: test_s3.py."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from typing import Any

import pytest
from click.testing import CliRunner

from streams.cli import root
from streams.client import worker_api
from streams.core import records as m
from streams.core import topics
from streams.core.channel import DOOR, LOG, URLS
from streams.kafka.publish import wall_ms
from tests.doors.url_server import UrlServer, gives_all, head, says, serving
from tests.sites.rig import A, B, Rig, Spot, noise, until

pytestmark = [pytest.mark.sites, pytest.mark.changes_federation, pytest.mark.timeout(300)]
TOKEN = "eyJhbGciOiJFUzI1NiJ9.e30.c2ln"


@pytest.fixture(scope="module")
def web() -> Iterator[UrlServer]:
    with serving(UrlServer({})) as running:
        yield running


@pytest.fixture(scope="module", autouse=True)
def named(federation: Rig, web: UrlServer) -> Iterator[None]:
    """Site A opens no door of its own, and names this; its worker is started again to know it, and to forget it."""
    path, token = federation.state / A / "site.toml", federation.state / A / "token"
    before = path.read_text()
    token.write_text(TOKEN)
    path.write_text(
        before + f'\n[door]\nrate = 0\n[doors.web]\nkind = "http"\nurl = "{web.url("/export")}"\ntoken_file = "token"\n'
    )
    federation.start_again(A)
    yield
    path.write_text(before)
    federation.start_again(A)


@pytest.fixture(autouse=True)
def well(web: UrlServer, rig: Rig) -> Iterator[None]:
    """What a test before did is over."""
    web.odd.clear()
    until(lambda: {w.door for w in _planes(rig)} == {web.url("/export/")}, "A announces the door that it names")
    yield
    web.odd.clear()


def _planes(rig: Rig) -> list[Any]:
    return worker_api.announcements(rig.settings(A), A).alive(A, wall_ms(), role="plane")


def _asked(rig: Rig, intent: str) -> list[m.ChunksRequested]:
    return [r for r in rig.facts(B, topics.requests_to(A)) if r.manifest.intent == intent]


def _served(rig: Rig, intent: str) -> list[m.ChunksServed]:
    said = rig.facts(A, topics.CHUNK_EVENTS)
    return [one for one in said if isinstance(one, m.ChunksServed) and one.manifest.intent == intent]


def test_files_cross_by_url_and_the_audit_is_clean(rig: Rig, spot: Spot, web: UrlServer) -> None:
    files = {spot.lfn(f"{n}"): noise(size, (spot, n)) for n, size in enumerate((70_000_000, 0, *[9_000] * 50))}
    rig.register(files, spot.block())
    web.files = {f"/export{lfn}": content for lfn, content in files.items()}
    handle = rig.publish([spot.block()], plane=DOOR)
    rig.wait_done(handle)
    rig.assert_arrived(files)
    asked = _asked(rig, handle.id)
    assert {(one.plane, one.capability) for one in asked} == {(DOOR, m.READS_URLS)}
    assert {one.headers["authorization"] for one in web.asked} == {f"Bearer {TOKEN}"}
    served = until(lambda: len(found := _served(rig, handle.id)) >= len(asked) and found, "said where")
    assert {(one.plane, one.bytes) for one in served} == {(URLS, 0)}
    rig.audit()
    words = ["--state", str(rig.state), "--site", A, "topic", "tail", "-n", "1000", topics.chunks_to(B)]
    shown = CliRunner().invoke(root, words)
    assert f"at 127.0.0.1:{web.port}, by " in shown.output
    assert TOKEN not in shown.output


def test_by_policy_too_and_the_log_takes_over_when_it_fails(rig: Rig, spot: Spot, web: UrlServer) -> None:
    """Half of it is there when the door begins to fail."""
    big = noise(210_000_000, spot)
    files = {spot.lfn("big"): big}
    rig.register(files, spot.block())
    web.files = {f"/export{lfn}": content for lfn, content in files.items()}

    def half(made: Any, one: Any) -> bool:
        if one.span[0] > 100_000_000:
            made.sendall(head(503, 0))
            return True
        return web.gives(made, one)

    web.odd["*"] = half
    handle = rig.publish([spot.block()])
    rig.wait_done(handle)
    rig.assert_arrived(files)
    assert {one.plane for one in _asked(rig, handle.id)} == {DOOR, LOG}
    failed = [
        one
        for one in rig.facts(B, topics.TRANSFERS)
        if isinstance(one, m.SourceFailed) and one.manifest.intent == handle.id
    ]
    assert failed
    assert all("answers 503" in one.reason.text and not one.items for one in failed)
    (manifest,) = rig.facts(A, topics.MANIFESTS, key=handle.id)
    planned = [f for f in rig.facts(B, topics.TRANSFERS, key=manifest.manifest) if isinstance(f, m.TransferPlanned)]
    assert {route.why for plan in planned for route in plan.routes} == {f"{A} has a door of another make"}
    rig.audit()


def test_a_door_that_gives_other_bytes_is_found_out_and_the_log_brings_the_file(
    rig: Rig, spot: Spot, web: UrlServer
) -> None:
    files = {spot.lfn("big"): noise(205_000_000, spot)}
    rig.register(files, spot.block())
    wrong = bytearray(files[spot.lfn("big")])
    wrong[100_000_000] ^= 1
    web.files = {f"/export{spot.lfn('big')}": bytes(wrong)}
    handle = rig.publish([spot.block()])
    rig.wait_done(handle)
    rig.assert_arrived(files)
    assert {one.plane for one in _asked(rig, handle.id)} == {DOOR, LOG}
    rig.audit()


def test_a_door_that_knows_no_ranges(rig: Rig, spot: Spot, web: UrlServer) -> None:
    files = {spot.lfn("big"): noise(205_000_000, spot)}
    rig.register(files, spot.block())
    web.odd["*"] = gives_all(b"<html>please log in</html>")
    times = len(web.asked)
    handle = rig.publish([spot.block()])
    rig.wait_done(handle)
    rig.assert_arrived(files)
    assert 0 < len(web.asked) - times <= 8, "each connection asks once"
    rig.audit()
    plane = rig.plane_pid(f"{B}-worker-0")
    os.kill(plane, signal.SIGKILL)  # its successor remembers nothing, and tries again
    until(lambda: rig.plane_pid(f"{B}-worker-0") != plane, "another plane runs")


def test_who_insists_on_doors_waits_while_it_is_away(rig: Rig, spot: Spot, web: UrlServer) -> None:
    files = {spot.lfn("one"): noise(10_000, spot)}
    rig.register(files, spot.block())
    web.files = {f"/export{lfn}": content for lfn, content in files.items()}
    web.odd["*"] = says(head(503, 0), goes_on=True)
    handle = rig.publish([spot.block()], plane=DOOR)

    def waits() -> bool:
        told = rig.facts(B, topics.REPORTS)
        return any(
            isinstance(one, m.TransferReported) and one.intent == handle.id and "answers 503" in one.waits_for
            for one in told
        )

    until(waits, "the report says why it waits")
    web.odd.clear()
    rig.wait_done(handle)
    rig.assert_arrived(files)
