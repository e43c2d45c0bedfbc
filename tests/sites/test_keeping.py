"""Who would remove files asks another site's worker, which reads its own copies back and promises what is there."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from streams.core import records as m
from streams.core import topics
from streams.core.keeping.chains import ChainRow, fold
from streams.core.names import Adler32, Lfn, Site, Text
from tests.sites.rig import A, B, Ear, Rig, Spot, adler, noise

pytestmark = [pytest.mark.sites, pytest.mark.timeout(300)]


def ask(row: ChainRow, spot: Spot, files: dict[str, bytes], names: Sequence[str]) -> m.LeaveAsked:
    """What a site says that would remove its copies; nobody removes them here."""
    leaving = tuple(
        m.LeavingFile(Lfn(name), len(files[name]), Adler32(adler(files[name])), "v", ("w",)) for name in names
    )
    head = (*row.next_head, "test", 0, Text("tests"), None, Text("the disk is full"))
    return m.LeaveAsked(*head, spot.block(), "", leaving, (B,))


def say(rig: Rig, site: Site, step: m.KeepingStep) -> None:
    publisher = rig.publisher(site)
    failed: list[Exception | None] = []
    publisher.send(step, failed.append)
    publisher.flush(30)
    assert failed == [None]


def answer(ear: Ear, asked: m.LeaveAsked) -> m.KeepPromised:
    sha256 = m.step_sha256(asked)
    _, said = ear.until(
        lambda fact: isinstance(fact, m.KeepPromised) and fact.ask_sha256 == sha256, f"an answer to ask {asked.no}"
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
    row = ChainRow(A, spot.dataset)
    with rig.ear(A, topics.remote(B, topics.KEEPING)) as ear:
        first = ask(row, spot, files, (good, rotten, gone))
        say(rig, A, first)
        said = answer(ear, first)
        assert (said.site, said.no, said.asker, said.ask_no) == (B, 2, A, 1), "the claim of what landed is its first"
        assert said.promised == (good,)
        why = {kept.lfn: kept.reason for kept in said.refused}
        assert why.keys() == {rotten, gone}
        assert f"and {adler(files[rotten])} in the catalogue" in why[Lfn(rotten)]
        assert why[Lfn(gone)] == "it is not on the disk (no such file)"
        rig.write({rotten: files[rotten], gone: files[gone]}, B)

        # A worker that is killed before it has answered finds the ask when it is back.
        row = fold(row, first).row
        part = rig.kill(f"{B}-worker-0")
        second = ask(row, spot, files, (late,))
        say(rig, A, second)
        rig.until_back(part)
        later = answer(ear, second)
        assert (later.no, later.prev_sha256) == (3, m.step_sha256(said))
        assert later.promised == (late,)
        assert later.process != said.process
    checks = rig.facts(B, topics.REPLICA_CHECKS, key=spot.dataset)
    assert {check.ask_no for check in checks} == {1, 2}
    # Nothing is removed yet, and the audit finds nothing in what was said.
    for lfn, content in files.items():
        assert rig.path(A, lfn).read_bytes() == rig.path(B, lfn).read_bytes() == content
    rig.audit()
