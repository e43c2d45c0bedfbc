"""A site asks the others before it removes files; they read their own copies back and promise what is there."""

from __future__ import annotations

import pytest

from streams.core import records as m
from streams.core import topics
from streams.core.names import Lfn
from tests.sites.rig import A, B, Ear, Rig, Spot, adler, noise, until

pytestmark = [pytest.mark.sites, pytest.mark.timeout(300)]


def answer(ear: Ear, spot: Spot, no: int) -> m.KeepPromised:
    """The step of B's chain; the claim of what landed is its first."""
    _, said = ear.until(
        lambda fact: isinstance(fact, m.KeepPromised) and (fact.dataset, fact.no) == (spot.dataset, no), f"step {no}"
    )
    assert isinstance(said, m.KeepPromised)
    return said


def test_a_worker_promises_what_it_has_whole_and_says_why_not(rig: Rig, spot: Spot) -> None:
    files = {spot.lfn(f"{n}.dat"): noise(40_000 + n, f"{spot.name}{n}") for n in range(4)}
    good, rotten, gone, late = files
    rig.register(files, spot.block())
    rig.wait_done(rig.publish([spot.dataset], [B]))
    rig.path(B, rotten).write_bytes(files[rotten][:-1] + b"\0")
    rig.path(B, gone).unlink()
    rig.path(B, late).rename(rig.path(B, late).with_suffix(".aside"))
    client = rig.client(A)
    with rig.ear(A, topics.remote(B, topics.KEEPING)) as ear:
        first = client.remove([spot.dataset], at=[A], reason="full")
        said = answer(ear, spot, 2)
        assert (said.site, said.asker) == (B, A)
        assert said.promised == (good,)
        why = {kept.lfn: kept.reason for kept in said.refused}
        assert why.keys() == {rotten, gone, late}
        assert f"and {adler(files[rotten])} in the catalogue" in why[Lfn(rotten)]
        assert why[Lfn(gone)] == "it is not on the disk (no such file)"
        first.wait(60)
        assert [lfn for lfn in files if rig.path(A, lfn).exists()] == [rotten, gone, late]

        # A worker that is killed before it has answered finds the ask when it is back.
        rig.path(B, late).with_suffix(".aside").rename(rig.path(B, late))
        part = rig.kill(f"{B}-worker-0")
        second = client.remove([spot.dataset], at=[A], reason="full")
        rig.until_back(part)
        later = answer(ear, spot, 3)
        assert later.prev_sha256 == m.step_sha256(said)
        assert later.promised == (late,)
        assert later.process != said.process
        second.wait(60)
    until(lambda: not rig.path(A, late).exists(), "the late copy goes")
    assert [lfn for lfn in files if rig.path(A, lfn).exists()] == [rotten, gone]
    checks = rig.facts(B, topics.REPLICA_CHECKS, key=spot.dataset)
    assert len({check.ask_no for check in checks}) == 2
    # Of a name that nobody knows there is nothing to remove, and the removal ends.
    assert client.remove([spot.lfn("never.dat")], at=[A], reason="full").wait(60).last.ended

    # An audit of the disks finds what accidents took until it is put back.
    rig.write({name: files[name] for name in (rotten, gone)}, B)
    rig.audit()
