"""Digests of real journals: each cluster, read alone, tells the same of one cut, and the cut stays as it was."""

from __future__ import annotations

import pytest

from streams.auditing.digesting import Cut, read_digest
from streams.core.topics import TO_EVERY_PEER
from tests.sites.rig import A, B, Rig, Spot, noise, until

pytestmark = [pytest.mark.sites, pytest.mark.timeout(300)]


def test_each_cluster_tells_the_same_digest_of_a_cut(rig: Rig, spot: Spot) -> None:
    files = {spot.lfn("one"): noise(300_000, spot), spot.lfn("empty"): b""}
    rig.register(files, spot.block())
    rig.wait_done(rig.publish([spot.block()]))
    settings = rig.settings()
    both = read_digest(settings)
    assert both.unreachable == {}
    assert {one.journal.site for one in both.journals} == {A, B}
    cut = Cut(both.digest, {one.journal: one for one in both.journals})
    for site in (A, B):
        alone = until(
            lambda site=site: (it := read_digest(settings, sites=[site], at=cut)).digest == cut.digest and it,
            f"{site} has all that stood at the cut",
        )
        assert alone.rewritten == ()
        assert alone.unseen == ()
        shared = [one for one in alone.journals if one.journal.topic in TO_EVERY_PEER]
        assert {one.journal.site for one in shared} == {A, B}
    whole = read_digest(settings, at=cut, tables=True).tables
    assert {one.table for one in whole} == {"intents", "transfers", "replicas"}
    for site in (A, B):
        tables = read_digest(settings, sites=[site], at=cut, tables=True).tables
        assert tables == tuple(one for one in whole if one.site in ("", site))
    more = {spot.lfn("two"): noise(300, spot)}
    rig.register(more, spot.block("more"))
    rig.wait_done(rig.publish([spot.block("more")]))
    later = read_digest(settings, at=cut)
    assert (later.digest, later.rewritten) == (cut.digest, ())
    assert read_digest(settings).digest != cut.digest
    report = rig.audit()
    assert len(report.digest) == 64
