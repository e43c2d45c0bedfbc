"""What real workers keep against their journals: the same at rest, and a row that was changed by hand is named."""

from __future__ import annotations

import json

import pytest

from streams.auditing.replaying import EXIT_CLEAN, worker_group
from streams.auditing.tables import CHANGELOG, TablesReport, audit_tables
from streams.core.names import ManifestId
from streams.core.topics import partition_of
from tests.sites.rig import A, B, Rig, Spot, noise, until

pytestmark = [pytest.mark.sites, pytest.mark.timeout(300)]


def at_rest(rig: Rig) -> TablesReport:
    """Of a federation in which nothing is under way, once the last commits were made."""
    report: TablesReport = until(
        lambda: (
            (one := audit_tables(rig.settings()))
            and (one.comparison.different or not (one.unseen or any(tally.moving for tally in one.tallies)))
            and one
        ),
        "the workers have committed all that there is",
        every_s=1.0,
    )
    return report


def test_workers_keep_what_their_journals_give(rig: Rig, spot: Spot) -> None:
    files = {spot.lfn(f"{n}.dat"): noise(200_000, (spot, n)) for n in range(3)}
    rig.register(files, spot.block())
    handle = rig.publish([spot.block()])
    busy = audit_tables(rig.settings())
    assert (busy.differences, busy.unreachable) == ([], {}), "what is under way is left out"
    rig.wait_done(handle)
    report = at_rest(rig)
    assert (report.differences, report.unreachable) == ([], {})
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
    assert at_rest(rig).exit_code == EXIT_CLEAN
