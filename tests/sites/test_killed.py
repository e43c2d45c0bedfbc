"""kill -9 of every kind of part in the middle of a file: it arrives whole, and nothing stood under its name before.

Each asserts that the blow fell in the middle: something of the file was synced at B, and its final name was not there.
The audit afterwards allows facts said twice and no gap.
"""

from __future__ import annotations

import os
import re
import signal
import time

import pytest
from confluent_kafka.admin import AdminClient, AlterConfigOpType, ConfigEntry, ConfigResource, ResourceType

from streams.cli.lagging import holdups
from streams.core import records as m
from streams.core import topics
from streams.core.credit import PROBE_BYTES
from streams.core.policy import JOURNAL_RECORD_BYTES_MAX
from tests.sites.blows import BIG_BYTES, RECOVERY_S, struck, told
from tests.sites.conftest import CREDIT_BYTES, POLICIES
from tests.sites.rig import A, B, Rig, Spot, until

pytestmark = [pytest.mark.sites, pytest.mark.timeout(400)]


def test_destination_worker(rig: Rig, spot: Spot) -> None:
    """The worker that owns the transfer dies with its plane; its successor resumes the attempt from what is synced."""
    before = rig.part(f"{B}-worker-0")
    with struck(rig, spot, lambda: rig.kill(before.name)) as blow:
        told(before.name, blow, rig.until_back(before))
        assert {p.attempt for p in blow.ear.messages(m.TransferProgress)} == {1}, "the same part files go on"
    said = (rig.state / "logs" / f"{before.name}.log").read_text()
    assert re.search(r"let the worker before this one go.*NoError", said), "its session is not waited for"


def test_destination_plane(rig: Rig, spot: Spot) -> None:
    """The plane alone: the worker stays and starts another, and owes it everything."""
    worker = rig.part(f"{B}-worker-0")
    plane = rig.plane_pid(worker.name)
    with struck(rig, spot, lambda: os.kill(plane, signal.SIGKILL)) as blow:
        until(lambda: rig.plane_pid(worker.name) != plane, "another plane runs")
        blow.first_new_progress(blow.epoch_s)
    now = rig.part(worker.name)
    assert (now.pid, now.restarts) == (worker.pid, worker.restarts)


def test_source_worker(rig: Rig, spot: Spot) -> None:
    """The worker whose plane serves: leases run out, and its successor serves what is asked again."""
    before = rig.part("T1_A-worker-0")
    with struck(rig, spot, lambda: rig.kill(before.name)) as blow:
        told(before.name, blow, rig.until_back(before))


def test_source_plane(rig: Rig, spot: Spot) -> None:
    """The plane alone: what it had not served is handed to the next one, and no lease runs out."""
    worker = rig.part("T1_A-worker-0")
    plane = rig.plane_pid(worker.name)
    with struck(rig, spot, lambda: os.kill(plane, signal.SIGKILL)):
        until(lambda: rig.plane_pid(worker.name) != plane, "another plane runs")
    now = rig.part(worker.name)
    assert (now.pid, now.restarts) == (worker.pid, worker.restarts)


def test_mirror(rig: Rig, spot: Spot) -> None:
    """MirrorMaker in the middle of payload and requests."""
    before = rig.part("mirror")
    with struck(rig, spot, lambda: rig.kill(before.name)) as blow:
        told(before.name, blow, rig.until_back(before))


@pytest.mark.skipif(os.environ.get("T2G_TEST_BROKERS") == "containers", reason="a container is no process of ours")
@pytest.mark.parametrize("site", ["T1_A", "T2_B"])
def test_broker(rig: Rig, spot: Spot, site: str) -> None:
    """A broker, the source's or the destination's: clients come back to it, or their workers are started again."""
    before = rig.part(f"{site}-broker")
    with struck(rig, spot, lambda: rig.kill(before.name)) as blow:
        told(before.name, blow, rig.until_back(before))


def test_payload_that_waits_for_a_mirror_is_not_sent_again_each_lease(rig: Rig, spot: Spot) -> None:
    """Three leases end while the mirror stands still; beyond what was in flight, a probe a lease is sent twice."""
    mirror, leases = rig.part("mirror").pid, 3
    lease_s = float(POLICIES["T2G_POLICY_LEASE_S"])
    with struck(rig, spot, lambda: os.kill(mirror, signal.SIGSTOP)) as blow:
        try:
            time.sleep(leases * lease_s + 2)
            late = holdups(rig.settings(A), A, [B], A, time.time_ns() // 1_000_000)
        finally:
            os.kill(mirror, signal.SIGCONT)
    assert any(line.startswith(f"The mirror from {A} to {B} is behind by ") for line in late), late
    (manifest,) = rig.facts(A, topics.MANIFESTS, key=blow.handle.id)
    sent = sum(len(record.value or b"") for record in rig.records(A, topics.chunks_to(B), key=manifest.manifest))
    size = sum(item.bytes for item in manifest.items)
    print(f"\n{sent - size:,} of {size:,} bytes were sent twice")
    assert sent <= size + CREDIT_BYTES + (leases + 1) * PROBE_BYTES


@pytest.mark.parametrize("name", [f"{B}-broker", "mirror"])
def test_a_part_that_stands_still(rig: Rig, spot: Spot, name: str) -> None:
    """Longer than sessions."""
    if name.endswith("-broker") and os.environ.get("T2G_TEST_BROKERS") == "containers":
        pytest.skip("a container is no process of ours")
    part = rig.part(name)
    with struck(rig, spot, lambda: os.kill(part.pid, signal.SIGSTOP)):
        try:
            another = rig.publish([spot.block()])  # a journal is on its way meanwhile
            time.sleep(16)
        finally:
            os.kill(part.pid, signal.SIGCONT)
        rig.wait_done(another, RECOVERY_S)
    until(lambda: rig.part(name).state == "ready", f"{name} is ready")
    print(f"\n{name}: {rig.part(name).restarts - part.restarts} restarts; {rig.part(name).why}")


def test_a_failed_task_of_the_mirror(rig: Rig, spot: Spot) -> None:
    """The target refuses a record of its journals. Connect leaves such a task for dead; the other flows go on."""
    before = rig.part("mirror")
    kafka = AdminClient({"bootstrap.servers": rig.settings().entry(B).bootstrap})

    def records_of_at_most(size: int) -> None:
        setting = ConfigEntry("max.message.bytes", str(size), incremental_operation=AlterConfigOpType.SET)
        copy = topics.remote(A, topics.INTENTS)
        resource = ConfigResource(ResourceType.TOPIC, copy, incremental_configs=[setting])
        for future in kafka.incremental_alter_configs([resource]).values():
            future.result(30)

    with struck(rig, spot, lambda: records_of_at_most(100), 4 * BIG_BYTES):
        try:
            refused = rig.publish([spot.block()])
            until(lambda: "task 0 of T1_A failed" in rig.part("mirror").why, "it is told", RECOVERY_S)
            with rig.ear(A, topics.remote(B, topics.INTENTS)) as ear:
                other = rig.publish([spot.block("nothing")], [A], home=B)
                ear.until(
                    lambda w: isinstance(w, m.TransferIntent) and w.intent == other.id, "the way back is open", 10
                )
            # Not that the intent is open: a task that is started anew carries other topics before it fails again.
            copy = topics.remote(A, topics.INTENTS)
            assert rig.facts(B, copy, key=refused.id) == [], "the target did refuse it"
        finally:
            records_of_at_most(JOURNAL_RECORD_BYTES_MAX)
        rig.wait_done(refused, RECOVERY_S)
        until(lambda: rig.facts(B, copy, key=refused.id) != [], "what was refused comes after all", RECOVERY_S)
    now = rig.part("mirror")
    assert (now.pid, now.restarts) == (before.pid, before.restarts), "the process goes on"
