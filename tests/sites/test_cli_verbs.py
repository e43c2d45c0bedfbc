"""The command line against a real federation: what a person does in the README's tour, and what it answers."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result

from streams.core import records as m
from streams.core import topics
from tests.sites.rig import A, B, Rig, Run, Spot, noise, until

pytestmark = [pytest.mark.sites, pytest.mark.timeout(600)]

LARGE_BYTES = 201_000_000
"""By door, here."""


def rows(result: Result) -> list[dict[str, Any]]:
    assert result.exit_code == 0, result.output
    return [json.loads(line) for line in result.stdout.splitlines()]


def test_the_tour_register_add_wait_look_verify(run: Run, rig: Rig, spot: Spot, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    for name, size in (("a.root", 100_000), ("b.root", 0)):
        (tmp_path / "in" / name).write_bytes(noise(size, name))
    done = run("file", "register", "in", "--block", spot.block(), "--prefix", spot.lfn("x"), "--site", A)
    assert done.exit_code == 0, done.output
    added = run("intent", "add", spot.block(), "--to", B, "--site", A, "--wait", "--timeout", 90)
    assert added.exit_code == 0, added.output
    intent = added.stdout.split()[0]
    assert rig.path(B, spot.lfn("x/a.root")).read_bytes() == noise(100_000, "a.root")
    (shown,) = rows(run("intent", "show", intent, "--json"))
    assert (shown["state"], shown["destinations"][0]["arrived"], shown["exit_code"]) == ("done", 2, 0)
    assert intent in {row["intent"] for row in rows(run("intent", "list", "--json", "--site", B))}
    assert "Done in" in run("intent", "explain", intent).stdout
    assert run("intent", "watch", intent).exit_code == 0
    where = until(
        lambda: [r["site"] for r in rows(run("file", "where", spot.lfn("x/a.root"), "--site", A, "--json"))][1:],
        "A knows the replica of B",
    )
    assert where == [B]
    assert {row["lfn"] for row in rows(run("file", "list", spot.block(), "--json"))} == {
        spot.lfn("x/a.root"),
        spot.lfn("x/b.root"),
    }
    verified = run("file", "verify", spot.block(), "--site", B)
    assert verified.exit_code == 0
    assert "2 of 2 files" in verified.stdout


def test_a_damaged_replica_is_repaired_and_what_is_right_of_it_does_not_cross_again(
    run: Run, rig: Rig, spot: Spot
) -> None:
    lfn, gone, only = (spot.lfn(name) for name in ("large", "gone", "only"))
    files = {lfn: noise(LARGE_BYTES, lfn), gone: noise(1_000, gone)}
    rig.register(files, spot.block())
    rig.wait_done(rig.publish([spot.block()]))
    rig.register({only: noise(2_000, only)}, spot.block(), at=B)
    damage(rig.path(B, lfn), 20_000_000)
    damage(rig.path(B, only), 0)
    rig.path(B, gone).unlink()
    read = run("file", "verify", spot.block(), "--site", B)
    assert (read.exit_code, len(read.stdout.splitlines())) == (6, 4), read.output
    shown = run("file", "verify", spot.block(), "--site", B, "--repair")
    assert shown.exit_code == 6, shown.output
    assert f"would be repaired from {A}" in shown.stdout
    assert "no other site holds it" in shown.stdout
    assert "nothing is repaired without --execute" in shown.stderr
    assert not [fact for fact in rig.facts(B, topics.REPLICAS, key=spot.dataset) if isinstance(fact, m.FilesLost)]
    old = rig.path(B, lfn).stat()
    done = run("file", "verify", spot.block(), "--site", B, "--repair", "--execute", "--json")
    assert done.exit_code == 6, "one that nobody else holds"
    told = {row["lfn"]: row for row in map(json.loads, done.stdout.splitlines())}
    assert (told[lfn]["sources"], told[only]["sources"], told[only]["intent"]) == ([A], [], None)
    for name in (lfn, gone):
        rig.wait_done(rig.client(B).intent(told[name]["intent"]))
    rig.assert_arrived(files)
    assert rig.path(B, lfn).stat().st_ino != old.st_ino
    assert rig.path(B, only).read_bytes() != noise(2_000, only), "it stays as it is"
    lost = [fact for fact in rig.facts(B, topics.REPLICAS, key=spot.dataset) if isinstance(fact, m.FilesLost)]
    assert {(name, fact.reason.phase) for fact in lost for name in fact.lfns} == {
        (name, "verify") for name in (lfn, gone, only)
    }
    (manifest,) = rig.facts(A, topics.MANIFESTS, key=told[lfn]["intent"])
    progress = rig.facts(B, topics.CHUNK_EVENTS, key=manifest.manifest)
    assert max(one.adopted.size for one in progress if isinstance(one, m.TransferProgress)) >= LARGE_BYTES - (8 << 20)
    again = run("file", "verify", lfn, gone, "--site", B, "--repair", "--execute")
    assert (again.exit_code, "2 of 2 files" in again.stdout) == (0, True), again.output
    rig.path(B, only).unlink()  # which the audit else names: on the disk, and no replica
    rig.audit()


def damage(path: Path, at: int) -> None:
    """Some bytes, as a disk does it: no stat tells."""
    seen = path.stat()
    with path.open("r+b") as file:
        file.seek(at)
        file.write(b"damaged")
    os.utime(path, ns=(seen.st_atime_ns, seen.st_mtime_ns))


def test_an_intent_that_waits_is_explained_and_cancelled(run: Run, rig: Rig, spot: Spot) -> None:
    intent = run("intent", "add", spot.lfn("nowhere"), "--to", B, "--site", A).stdout.strip()
    assert "undecided" in run("intent", "explain", intent).stdout
    assert run("intent", "cancel", intent).exit_code == 0
    ended = run("intent", "watch", intent, "--timeout", 60)
    assert ended.exit_code in (6, 7), ended.output


def test_topics_of_both_sites_are_in_order_and_read(run: Run, rig: Rig, spot: Spot) -> None:
    rig.register({spot.lfn("f"): b"abc"}, spot.block())
    rig.wait_done(rig.publish([spot.block()]))
    for site in (A, B):
        listed = rows(run("topic", "list", "--site", site, "--json"))
        assert {row["state"] for row in listed} == {"ok"}
        for row in listed:
            told = rows(run("topic", "tail", row["topic"], "-n", 3, "--site", site, "--json"))
            if spot.name not in str(told):
                continue
            assert not [one for one in told if "refused" in one], told
    copied = rows(run("topic", "tail", f"{B}.completion-records", "--site", A, "-n", 1, "--json"))
    assert copied[0]["origin"]["site"] == B


def test_lag_is_none_once_all_is_quiet(run: Run, rig: Rig) -> None:
    def behind() -> list[dict[str, Any]]:
        flows = rows(run("topic", "lag", "--json"))
        assert {flow["kind"] for flow in flows} == {"mirror", "workers"}
        return [f for f in flows if f["records"] and not f["topic"].endswith("site-announcements")]

    until(lambda: not behind(), "no mirror and no worker is behind", every_s=1.0)


def test_status_doctor_and_site_list_find_all_well(run: Run, rig: Rig) -> None:
    parts = rows(run("status", "--json"))
    assert {part["state"] for part in parts} == {"ready"}
    checked = run("doctor")
    assert checked.exit_code == 0, checked.output
    assert f"ok    {B} workers: 1 alive" in checked.stdout
    sites = {row["site"]: row for row in rows(run("site", "list", "--json"))}
    assert {site: row["workers"] for site, row in sites.items()} == {A: 1, B: 1}


def test_up_finds_the_running_federation(run: Run, rig: Rig) -> None:
    (told,) = rows(run("up", "--no-follow", "--json"))
    assert (told["found"], sorted(told["sites"])) == (True, [A, B])


def test_the_demo_runs_on_a_federation_that_is_up_and_leaves_it(run: Run, rig: Rig, tmp_path: Path) -> None:
    (tmp_path / "mine.bin").write_bytes(noise(3_000_000, "mine"))
    shown = run("demo", tmp_path / "mine.bin", "--timeout", 90)
    assert shown.exit_code == 0, shown.output
    assert "1 of 1 files, 3.00 MB" in shown.stdout
    assert "audit: clean" in shown.stdout
    assert rig.record.running
