"""docs/PLATFORM.md, "a cache, not a ledger", rule by rule, on real brokers: what Faust loses must not be lost here.

The sixth case, a worker that wakes past its session, is in test_workers.py.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
import uuid

import pytest
from confluent_kafka import Producer

from streams import wire
from streams.auditing.replaying import worker_group
from streams.core import records as m
from streams.core import topics
from streams.core.names import ManifestId, Site, Text
from streams.core.ranges import EMPTY, Ranges
from streams.core.topics import partition_of
from streams.errors import Transfer2goError
from streams.federation import local
from streams.kafka import admin
from streams.kafka.reader import Record, committed_offsets
from tests.sites.rig import A, B, Rig, Spot, completions, noise, until

pytestmark = [pytest.mark.sites, pytest.mark.timeout(300)]


def _changelog(rig: Rig, site: Site, table: str) -> str:
    return f"{worker_group(rig.settings(site), site)}-{table}-changelog"


def _last(rig: Rig, site: Site, table: str, key: str) -> bytes | None:
    """What the changelog says last of a row."""
    last = None
    for record in rig.records(site, _changelog(rig, site, table), key=key):
        last = record.value
    return last


def _ended(row: bytes | None) -> bytes | None:
    """The row once no later fact can change it: the home may know the end before B has heard all that leads to it."""
    return row if row is not None and json.loads(row)["state"] in ("done", "closed") else None


def _again(rig: Rig, site: Site, record: Record) -> None:
    """The same bytes once more, where they stood."""
    rig.produce(site, record.topic, record.key, record.value, record.headers or (), record.partition)


def test_a_row_is_put_on_every_turn(rig: Rig, spot: Spot) -> None:
    """A row that RocksDB has and its changelog lost comes back into it with the next fact, though that changes nothing.

    So a worker with an empty directory takes the row over whole.
    """
    rig.register({spot.lfn("one.dat"): noise(1000, spot)}, spot.block())
    handle = rig.publish([spot.block()])
    rig.wait_done(handle)
    manifest = ManifestId.of(handle.id, 0, 0)
    told = {"intents": (handle.id, topics.COMPLETIONS), "transfers": (manifest, topics.TRANSFERS)}
    rows = {table: until(lambda t=table, k=key: _ended(_last(rig, B, t, k)), table) for table, (key, _) in told.items()}
    # its view lags behind the rows
    shown = until(
        lambda: (page := rig.ask(B, f"/api/intents/{handle.id}"))["state"] == "done" and page, "shown as done"
    )
    for table, (key, topic) in told.items():
        [*_, last] = rig.records(B, topic, key=key)
        rig.produce(B, _changelog(rig, B, table), key.encode(), None)
        assert _last(rig, B, table, key) is None
        _again(rig, B, last)
        until(lambda t=table, k=key: _last(rig, B, t, k) == rows[t], f"the changelog of {table} has the row again")
    local.set_workers(rig.state, B, 0)
    shutil.rmtree(rig.state / B / "worker-0" / "faust")
    local.set_workers(rig.state, B, 1)
    assert rig.ask(B, f"/api/intents/{handle.id}") == shown
    rig.audit()


@pytest.mark.skipif(os.environ.get("T2G_TEST_BROKERS") == "containers", reason="a container is no process of ours")
@pytest.mark.parametrize(("records", "size"), [(300, 4000), (40, 17_000)], ids=["many", "each-fills-a-batch"])
def test_a_flush_returns_only_when_every_changelog_record_is_in_the_log(rig: Rig, records: int, size: int) -> None:
    """With a broker that stands still meanwhile; the process dies as soon as the flush has returned."""
    settings, topic = rig.settings(B), f"flushed-{uuid.uuid4().hex}"
    admin.create_topics(settings, B, [(topic, 1, {})])
    broker = rig.part(f"{B}-broker").pid
    words = [settings.entry(B).bootstrap, topic, str(broker), str(records), str(size)]
    done = subprocess.run(
        [sys.executable, "-m", "tests.sites.flushing", *words], capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stdout.strip()) == (0, "waited"), done.stderr[-500:]
    assert sum(1 for _ in rig.records(B, topic)) == records + 1


def test_one_commit_passes_every_hole_that_transactions_leave(rig: Rig) -> None:
    """A mirror's topics have a hole after each of its batches; commits that lag behind are facts folded again."""
    settings, topic, records = rig.settings(B), f"committed-{uuid.uuid4().hex}", 20
    admin.create_topics(settings, B, [(topic, 1, {})])
    mirror = Producer({"bootstrap.servers": settings.entry(B).bootstrap, "transactional.id": topic})
    mirror.init_transactions(10)
    for number in range(records):
        mirror.begin_transaction()
        mirror.produce(topic, b"%d" % number, partition=0)
        mirror.commit_transaction(10)
    words = [settings.entry(B).bootstrap, topic, str(records)]
    done = subprocess.run(
        [sys.executable, "-m", "tests.sites.committing", *words],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stdout.strip()) == (0, str(2 * records - 1)), done.stderr[-500:]


def test_a_put_that_is_too_large_is_refused_and_the_worker_lives(rig: Rig, spot: Spot) -> None:
    """Facts that are legal one by one would make a row over Faust's limit: the one too many is a dead letter."""
    before = rig.restarts()
    manifest = ManifestId(f"{A}.{uuid.uuid4()}.0.0")
    incarnation = uuid.uuid4().hex
    partition = partition_of(manifest, rig.settings().registry.partitions)
    with rig.ear(B, topics.DEAD_LETTERS) as ear:
        for number in range(4):
            failed = tuple(
                m.FailedItems(
                    Ranges.of(item),
                    m.Reason(m.Scope.DESTINATION, m.FailureClass.PERMANENT, "write", Text(f"{item:04d}" + "é" * 390)),
                )
                for item in range(number * 200, number * 200 + 200)
            )
            said = m.TransferProgress(manifest, B, 1, "default", EMPTY, EMPTY, failed)
            origin = m.Origin(B, "forger", incarnation, number, 1_700_000_000_000)
            headers = wire.headers(said, origin)
            rig.produce(B, topics.CHUNK_EVENTS, manifest.encode(), wire.encode(said), headers, partition)
        _, letter = ear.until(
            lambda w: isinstance(w, m.DeadLetter) and w.key == manifest.encode(), "the row is refused"
        )
    assert "a row of" in letter.reason
    row = until(lambda: _last(rig, B, "transfers", manifest), "what fits is kept")
    assert len(row) < 1_000_000
    files = {spot.lfn("one.dat"): noise(1000, spot)}
    rig.register(files, spot.block())
    rig.wait_done(rig.publish([spot.block()]))
    rig.assert_arrived(files)
    assert rig.restarts() == before
    rig.audit()


def test_the_largest_intent_goes_through_and_a_larger_one_is_refused_to_its_producer(rig: Rig, spot: Spot) -> None:
    """At the cap of a record every record that follows from it fits too; over it, the producer hears so in one line."""
    before = rig.restarts()
    files = {spot.lfn("known.dat"): noise(1000, spot)}
    rig.register(files, spot.block())

    def names(length: int) -> list[str]:
        return [spot.lfn(f"{number:04d}-".ljust(length - len(spot.lfn("")), "x")) for number in range(999)]

    with pytest.raises(Transfer2goError, match="over the cap"):
        rig.publish([*names(530), spot.lfn("known.dat")])
    outcome = rig.wait(rig.publish([*names(500), spot.lfn("known.dat")]))
    assert (outcome.destinations[0].arrived, outcome.destinations[0].failed) == (1, 999)
    rig.assert_arrived(files)
    assert rig.restarts() == before
    rig.audit()


def _caught_up(rig: Rig, site: Site, topic: str, key: str) -> bool:
    """Whether the site's workers have committed past every record of the key's partition."""
    partition = partition_of(key, rig.settings().registry.partitions)
    last = max((r.offset for r in rig.records(site, topic) if r.partition == partition), default=-1)
    settings = rig.settings(site)
    return committed_offsets(settings, site, worker_group(settings, site)).get((topic, partition), 0) > last


@pytest.mark.parametrize("site", [A, B], ids=["source", "destination"])
def test_an_effect_that_was_lost_behind_a_committed_offset_is_owed_again(rig: Rig, spot: Spot, site: Site) -> None:
    """The order to the plane dies with it and its worker behind the fact's committed offset: nothing redelivers it."""
    files = {spot.lfn("one.dat"): noise(100_000, spot)}
    rig.register(files, spot.block())
    worker = rig.part(f"{site}-worker-0")
    plane = rig.plane_pid(worker.name)
    fact, topic = (m.IntentDecided, topics.DECISIONS) if site == A else (m.TransferPlanned, topics.TRANSFERS)
    try:
        with rig.ear(site, topic) as ear:
            os.kill(plane, signal.SIGSTOP)
            handle = rig.publish([spot.block()])
            _, said = ear.until(
                lambda w: isinstance(w, fact) and str(m.key_of(w)).startswith(handle.id), f"a {fact.__name__}"
            )
        key = str(m.key_of(said))
        until(lambda: _caught_up(rig, site, topic, key), "the fact's offset is committed")
        assert not handle.snapshot().destinations[0].arrived
        rig.kill(worker.name)
    finally:  # one that stands still would spoil every later test
        os.kill(plane, signal.SIGKILL)
    rig.until_back(worker)
    rig.wait_done(handle)
    rig.assert_arrived(files)
    rig.audit()


def test_an_effect_that_was_sent_before_its_offset_was_committed_is_doubled_at_most(rig: Rig, spot: Spot) -> None:
    """kill -9 right behind a completion: what is heard again may say it again, with the very same bytes."""
    files = {spot.lfn(f"{n}.dat"): noise(2000, (spot, n)) for n in range(5)}
    rig.register(files, spot.block())
    worker = rig.part(f"{B}-worker-0")
    with rig.ear(B, topics.COMPLETIONS) as ear:
        handle = rig.publish([spot.block()])
        ear.until(lambda w: isinstance(w, m.CompletionRecord) and w.intent == handle.id, "the completion")
        rig.kill(worker.name)
    manifest = str(ManifestId.of(handle.id, 0, 0))
    open_offsets = [
        topic for topic in (topics.TRANSFERS, topics.CHUNK_EVENTS) if not _caught_up(rig, B, topic, manifest)
    ]
    assert open_offsets, "the kill came after the commit: nothing was left to be heard again"
    rig.until_back(worker)
    until(lambda: _caught_up(rig, B, topics.TRANSFERS, manifest), "all was heard again")
    until(lambda: _caught_up(rig, B, topics.CHUNK_EVENTS, manifest), "all was heard again")
    rig.wait_done(handle)
    values = {r.value for r in rig.records(B, topics.COMPLETIONS, key=handle.id)}
    assert len(values) == 1
    assert completions(rig.facts(A, topics.remote(B, topics.COMPLETIONS), key=handle.id), handle.id)
    rig.assert_arrived(files)
    time.sleep(rig.settings().policy.settle_s)  # whoever still owed something would have said it by now
    assert {r.value for r in rig.records(B, topics.COMPLETIONS, key=handle.id)} == values
    rig.audit()
