"""Several workers of one site: one joins and leaves while blocks move; one stands still past its session and wakes."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from itertools import chain

import pytest

from streams import wire
from streams.client.producer import IntentHandle
from streams.core import records as m
from streams.core import topics
from streams.core.channel import DOOR
from streams.core.names import ManifestId, Site
from streams.federation import local
from tests.sites.blows import Blow, ear_at_destination
from tests.sites.rig import A, B, Rig, Spot, completions, noise, until

pytestmark = [pytest.mark.sites, pytest.mark.timeout(400)]

PAUSE_S = 16.0
"""Longer than a session (10 s): the group gives its partitions to the other worker meanwhile."""
RECOVERY_S = 150.0


class Traffic:
    """Blocks of two files each that go to B one after the other, until stopped; all must arrive."""

    def __init__(self, rig: Rig, spot: Spot, every_s: float = 0.4) -> None:
        self.rig, self.spot, self.every_s = rig, spot, every_s
        self.files: dict[str, bytes] = {}
        self.handles: list[IntentHandle] = []

    def block(self) -> None:
        no = len(self.handles)
        files = {
            self.spot.lfn(f"{no}/big.dat"): noise(3_000_000, (self.spot, no)),
            self.spot.lfn(f"{no}/small.dat"): noise(500, (self.spot, no, "small")),
        }
        self.rig.register(files, self.spot.block(f"n{no}"))
        self.files |= files
        self.handles.append(self.rig.publish([self.spot.block(f"n{no}")]))

    def flow_while(self, thread: threading.Thread) -> None:
        """Goes on until the thread has ended, and a few blocks more: what is under way is caught in the middle."""
        thread.start()
        while thread.is_alive():
            self.block()
            thread.join(self.every_s)
        for _ in range(8):
            self.block()

    def assert_arrived(self) -> None:
        for handle in self.handles:
            self.rig.wait_done(handle, RECOVERY_S)
        self.rig.assert_arrived(self.files)

    def writers(self) -> set[str]:
        """Which workers said the last words."""
        records = (r for handle in self.handles for r in self.rig.records(B, topics.COMPLETIONS, key=handle.id))
        return {wire.decode(r.topic, r.key, r.value, r.headers, B).origin.writer for r in records}


@pytest.fixture(scope="module", autouse=True)
def _one_worker_again(federation: Rig) -> Iterator[None]:
    yield
    local.set_workers(federation.state, B, 1)


def _owned(rig: Rig, worker: int, site: Site = B) -> list[int]:
    return list(rig.ask(site, "/api/health", worker)["partitions"])


def _have_all(rig: Rig, workers: int, site: Site = B) -> bool:
    owned = [_owned(rig, worker, site) for worker in range(workers)]
    return all(owned) and sorted(chain(*owned)) == list(range(rig.settings().registry.partitions))


def _set_workers(rig: Rig, workers: int) -> threading.Thread:
    return threading.Thread(target=local.set_workers, args=(rig.state, B, workers))


def test_a_second_worker_joins(rig: Rig, spot: Spot) -> None:
    """It takes partitions from the first while blocks move, each partition has one owner, and both bring files home."""
    traffic = Traffic(rig, spot)
    traffic.flow_while(_set_workers(rig, 2))
    until(lambda: _have_all(rig, 2), "each partition has one owner of the two")
    for _ in range(8):
        traffic.block()
    traffic.assert_arrived()
    assert traffic.writers() == {"worker-0", "worker-1"}
    rig.audit()


def test_a_worker_that_stood_still_past_its_session_wakes(rig: Rig, spot: Spot) -> None:
    """It ends with 75 instead of folding on rows that are no longer its own, and is started again; no fact is lost."""
    local.set_workers(rig.state, B, 2)
    traffic = Traffic(rig, spot)
    stopped = rig.part(f"{B}-worker-0")
    for _ in range(6):
        traffic.block()
    os.kill(stopped.pid, signal.SIGSTOP)
    began = time.monotonic()
    try:
        # The group takes 10 s to notice; until then, and after, intents go on.
        traffic.flow_while(threading.Thread(target=time.sleep, args=(PAUSE_S,)))
        until(lambda: len(_owned(rig, 1)) == rig.settings().registry.partitions, "the other worker owns all")
    finally:
        time.sleep(max(0.0, began + PAUSE_S - time.monotonic()))
        os.kill(stopped.pid, signal.SIGCONT)
    back = rig.until_back(stopped)
    assert back.restarts == stopped.restarts + 1
    assert "asked to be started again" in back.why, back.why
    assert "stood still" in (rig.state / "logs" / f"{stopped.name}.log").read_text()
    traffic.assert_arrived()
    rig.audit()
    rig.audit_tables()


def test_a_plane_that_pulled_by_door_wakes_when_its_transfer_is_another_workers(rig: Rig, spot: Spot) -> None:
    """What it still writes goes nowhere, or is what its successor writes; the file is whole, and said once."""
    local.set_workers(rig.state, B, 2)
    until(lambda: _have_all(rig, 2), "each partition has one owner of the two")
    files = {spot.lfn("big"): noise(260_000_000, spot)}
    rig.register(files, spot.block())
    with ear_at_destination(rig) as ear:
        handle = rig.publish([spot.block()])
        partition = topics.partition_of(ManifestId.of(handle.id, 0, 0), rig.settings().registry.partitions)
        owner = next(worker for worker in (0, 1) if partition in _owned(rig, worker))
        stopped, plane = rig.part(f"{B}-worker-{owner}"), rig.plane_pid(f"{B}-worker-{owner}")
        Blow.of(handle, ear)
        for pid in (plane, stopped.pid):
            os.kill(pid, signal.SIGSTOP)
    try:
        until(lambda: len(_owned(rig, 1 - owner)) == rig.settings().registry.partitions, "the other worker owns all")
        rig.wait_done(handle, RECOVERY_S)
    finally:
        for pid in (plane, stopped.pid):
            os.kill(pid, signal.SIGCONT)
    rig.until_back(stopped)
    rig.assert_arrived(files)
    assert len(set(completions(rig.facts(B, topics.COMPLETIONS, key=handle.id), handle.id))) == 1
    rig.audit()
    rig.assert_no_parts(files)


def _served_by(rig: Rig, handles: list[IntentHandle]) -> set[str]:
    """Writers of A that said they served these."""
    ids = {handle.id for handle in handles}
    records = (wire.decode(r.topic, r.key, r.value, r.headers, A) for r in rig.records(A, topics.CHUNK_EVENTS))
    of = [heard for heard in records if isinstance(heard.message, m.ChunksServed)]
    return {heard.origin.writer for heard in of if heard.message.manifest.intent in ids}


def test_files_by_door_between_two_workers_at_each_end(rig: Rig, spot: Spot) -> None:
    """Each asks, and serves, what is of its partitions; one at each end is killed."""
    for site in (A, B):
        local.set_workers(rig.state, site, 2)
    try:
        until(lambda: _have_all(rig, 2) and _have_all(rig, 2, A), "each partition has one owner of the two")
        files: dict[str, bytes] = {}

        def publish() -> IntentHandle:
            name = f"n{len(files)}"
            files[spot.lfn(name)] = noise(9_000_000, (spot, name))
            rig.register({spot.lfn(name): files[spot.lfn(name)]}, spot.block(name))
            return rig.publish([spot.block(name)], plane=DOOR)

        def owner(handle: IntentHandle) -> int:
            place = topics.partition_of(ManifestId.of(handle.id, 0, 0), rig.settings().registry.partitions)
            return next(worker for worker in (0, 1) if place in _owned(rig, worker, A))

        handles: list[IntentHandle] = []
        while len({owner(handle) for handle in handles}) < 2:
            assert len(handles) < 40, "partitions are drawn"
            handles.append(publish())
        for handle in handles:
            rig.wait_done(handle)
        until(lambda: len(_served_by(rig, handles)) == 2, "a door of each worker gave some")
        killed = [rig.kill(f"{A}-worker-0"), rig.kill(f"{B}-worker-1")]
        handles += [publish() for _ in range(6)]
        for part in killed:
            rig.until_back(part)
        for handle in handles:
            rig.wait_done(handle, RECOVERY_S)
        rig.assert_arrived(files)
        rig.audit()
    finally:
        local.set_workers(rig.state, A, 1)


def test_the_second_worker_leaves(rig: Rig, spot: Spot) -> None:
    """Its partitions go back to the first while blocks move; what it had begun goes on from what it had synced."""
    local.set_workers(rig.state, B, 2)
    until(lambda: _have_all(rig, 2), "each partition has one owner of the two")
    traffic = Traffic(rig, spot)
    for _ in range(4):
        traffic.block()
    traffic.flow_while(_set_workers(rig, 1))
    until(lambda: _have_all(rig, 1), "the first worker owns all partitions")
    traffic.assert_arrived()
    for handle in traffic.handles:
        assert len(set(completions(rig.facts(B, topics.COMPLETIONS, key=handle.id), handle.id))) == 1
    rig.audit()
