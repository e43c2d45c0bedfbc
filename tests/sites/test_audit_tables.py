"""What real workers keep against their journals: the same at rest, and a row that was changed by hand is named."""

from __future__ import annotations

import json

import pytest

from streams.auditing.replaying import EXIT_CLEAN, worker_group
from streams.auditing.tables import CHANGELOG, audit_tables
from streams.core.names import ManifestId
from streams.core.topics import partition_of
from tests.sites.rig import A, B, Rig, Spot, noise

pytestmark = [pytest.mark.sites, pytest.mark.timeout(300)]


def test_what_is_under_way_is_left_out(rig: Rig, spot: Spot) -> None:
    handles = []
    for n in range(4):
        rig.register({spot.lfn(f"{n}.dat"): noise(3_000_000, (spot, n))}, spot.block(f"n{n}"))
        handles.append(rig.publish([spot.block(f"n{n}")]))
    busy = audit_tables(rig.settings())
    assert (busy.differences, busy.unreachable) == ([], {})
    for handle in handles:
        rig.wait_done(handle)
    rig.audit_tables()


def test_workers_keep_what_their_journals_give(rig: Rig, spot: Spot) -> None:
    files = {spot.lfn(f"{n}.dat"): noise(200_000, (spot, n)) for n in range(3)}
    rig.register(files, spot.block())
    handle = rig.publish([spot.block()])
    rig.wait_done(handle)
    report = rig.audit_tables()
    assert report.exit_code == EXIT_CLEAN
    for site in (A, B):
        worker = str(rig.state / site / "worker-0")
        compared = {(t.table, t.of): t.compared for t in report.tallies if t.site == site}
        assert 0 < compared["intents", worker] <= compared["intents", CHANGELOG]
        assert compared["replicas", worker] >= len(files)
        assert compared["dataset totals", worker] > 0
    assert sum(t.compared for t in report.tallies if (t.site, t.table, t.of) == (B, "transfers", CHANGELOG)) > 0

    key = str(ManifestId.of(handle.id, 0, 0))
    settings = rig.settings(B)
    topic, partition = (
        f"{worker_group(settings, B)}-transfers-changelog",
        partition_of(key, settings.registry.partitions),
    )
    row = [record.value for record in rig.records(B, topic, key=key)][-1]
    assert row is not None
    changed = json.dumps(json.loads(row) | {"state": "active"}, separators=(",", ":")).encode()
    try:
        place = rig.produce(B, topic, key.encode(), changed, partition=partition)
        (one,) = audit_tables(rig.settings(), sites=[B]).differences
    finally:
        rig.produce(B, topic, key.encode(), row, partition=partition)
    assert (one.table, one.partition, one.key, one.of, one.fields) == (
        "transfers",
        partition,
        key,
        CHANGELOG,
        ('state "active" instead of "closed"',),
    )
    assert one.put is not None
    assert (one.put.partition, one.put.offset) == place
    assert one.heard is not None
    assert one.heard.partition == partition
    assert rig.audit_tables().exit_code == EXIT_CLEAN
