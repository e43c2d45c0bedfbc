"""Files go from real sites once others promise to keep them, come back, and are released; what is said is audited."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result

from streams.core import records as m
from streams.core import topics
from streams.core.names import Site
from tests.sites.rig import A, B, Rig, Run, Spot, noise, until

pytestmark = [pytest.mark.sites, pytest.mark.timeout(600)]


def here(rig: Rig, site: Site, files: dict[str, bytes]) -> list[str]:
    return [lfn for lfn in files if rig.path(site, lfn).exists()]


def reasons(result: Result) -> dict[str, int]:
    (row,) = [json.loads(line) for line in result.stdout.splitlines()]
    found: dict[str, int] = {}
    for one in row["destinations"]:
        for why, count in one["reasons"].items():
            found[why] = found.get(why, 0) + count
    return found


def test_files_go_where_others_keep_them_and_the_last_copy_stays(run: Run, rig: Rig, spot: Spot) -> None:
    files = {spot.lfn(f"{n}.dat"): noise(20_000 + n, f"{spot.name}{n}") for n in range(5)}
    rig.register(files, spot.block())
    copied = rig.publish([spot.dataset], [B])
    rig.wait_done(copied)
    remove = ("file", "remove", spot.dataset, "--reason", "the disk is full")

    shown = run("--site", A, *remove, "--at", A, "--at", B, "--json")
    of = {row["site"]: row for row in map(json.loads, shown.stdout.splitlines())}
    assert (shown.exit_code, of[A]["would_be_asked"], of[A]["asked_of"]) == (0, 5, [B])
    assert of[B]["stays"] == {f"claimed by {copied.id}": 5}
    assert here(rig, A, files) == list(files), "nothing is removed without --execute"

    done = run("--site", A, *remove, "--at", A, "--execute", "--wait", "--timeout", 90)
    assert done.exit_code == 0, done.output
    assert here(rig, A, files) == []
    assert here(rig, B, files) == list(files)
    (lost,) = rig.facts(A, topics.REPLICAS, key=spot.dataset)[-1:]
    assert isinstance(lost, m.FilesLost)
    assert (len(lost.lfns), bool(lost.removal_sha256)) == (5, True)

    # What was copied is claimed until it is released; then it is the last copy.
    kept = run("--site", A, *remove, "--at", B, "--execute", "--wait", "--timeout", 90, "--json")
    assert (kept.exit_code, reasons(kept)) == (6, {f"it is claimed by {copied.id}": 5})
    claimed = run("intent", "release", copied.id, "--json")
    (claim,) = [json.loads(line) for line in claimed.stdout.splitlines()]
    assert (claim["site"], claim["names"]) == (B, [spot.dataset])
    assert run("intent", "release", copied.id, "--execute").exit_code == 0
    until(lambda: not json.loads(claims(run, spot)), "the claim has ended")
    kept = run("--site", A, *remove, "--at", B, "--execute", "--wait", "--timeout", 90, "--json")
    assert (kept.exit_code, reasons(kept)) == (6, {"it is the last copy": 5})

    # What was removed comes back when it is asked for, and then the other copy may go.
    rig.wait_done(rig.publish([spot.dataset], [A], home=B))
    rig.assert_arrived(files, A)
    gone = run("--site", B, *remove, "--at", B, "--execute", "--wait", "--timeout", 90)
    assert gone.exit_code == 0, gone.output
    assert (here(rig, A, files), here(rig, B, files)) == (list(files), [])
    rig.audit()


def claims(run: Run, spot: Spot, site: Site = B) -> str:
    """How many claims stand at a site on the dataset."""
    rows = [
        json.loads(line)
        for line in run("--site", site, "site", "chain", "list", spot.dataset, "--json").stdout.splitlines()
    ]
    return json.dumps(sum(row["claims"] for row in rows if row["site"] == site))


def test_a_removal_goes_on_whatever_is_killed(run: Run, rig: Rig, spot: Spot) -> None:
    files = {spot.lfn(f"{n:03}.dat"): noise(3_000 + n, f"{spot.name}{n}") for n in range(120)}
    rig.register(files, spot.block())
    rig.wait_done(rig.publish([spot.dataset], [B]))
    asker, promiser = f"{A}-worker-0", f"{B}-worker-0"

    def step(kind: type) -> None:
        ear.until(lambda fact: isinstance(fact, kind) and fact.dataset == spot.dataset, kind.__name__)

    with rig.ear(A, topics.KEEPING) as ear:
        stands = rig.part(promiser)
        os.kill(stands.pid, signal.SIGSTOP)  # else the removal is over before the next blow
        try:
            asked = run("--site", A, "file", "remove", spot.dataset, "--at", A, "--reason", "full", "--execute")
            assert asked.exit_code == 0, asked.output
            before = rig.kill(asker)
            rig.until_back(before)
            step(m.LeaveAsked)
        finally:
            killed = [rig.kill(promiser), rig.kill(asker)]
        for part in killed:
            rig.until_back(part)
        step(m.RemovalDecided)
    os.kill(rig.plane_pid(asker), signal.SIGKILL)
    done = run("--site", A, "intent", "watch", asked.stdout.strip(), "--timeout", 180)
    assert done.exit_code == 0, done.output
    assert (here(rig, A, files), here(rig, B, files)) == ([], list(files))
    rig.audit()


def test_a_growing_dataset_moves_and_its_source_is_freed_while_the_rest_flows(run: Run, rig: Rig, spot: Spot) -> None:
    files = {spot.lfn(f"{n}.dat"): noise(20_000 + n, f"{spot.name}{n}") for n in range(4)}
    first, later = dict(list(files.items())[:2]), dict(list(files.items())[2:])
    rig.register(first, spot.block())
    preview = ("--site", A, "intent", "preview", spot.dataset, "--to", B, "--source", A, "--move")
    comes, leaves = (json.loads(line) for line in run(*preview, "--json").stdout.splitlines())
    assert (comes["site"], comes["files"], comes["there"], comes["to_come"]) == (B, 2, 0, 2)
    assert (leaves["leaves"], leaves["files"], leaves["stays"]) == (A, 2, {})
    assert f"{A}: 2 of 2 files would leave as they arrive" in run(*preview).stdout
    asked = run("--site", A, "intent", "add", spot.dataset, "--to", B, "--source", A, "--move", "--until", "close")
    assert asked.exit_code == 0, asked.output
    intent = asked.stdout.strip()
    until(lambda: not here(rig, A, first), "what has arrived has left")
    assert here(rig, B, first) == list(first)
    rig.until_back(rig.kill(f"{A}-worker-0"))
    rig.register(later, spot.block())
    until(lambda: not here(rig, A, later), "what came later has left too")
    assert run("--site", A, "intent", "close", intent).exit_code == 0
    done = run("--site", A, "intent", "watch", intent, "--timeout", 90, "--json")
    assert done.exit_code == 0, done.output
    (left,) = json.loads(done.stdout.splitlines()[-1])["leaving"]
    assert (left["site"], left["arrived"], left["failed"]) == (A, 4, 0)
    assert f"and has left {A}" in run("--site", A, "intent", "explain", intent).stdout
    until(lambda: not json.loads(claims(run, spot, A)), "the claim of its source has ended")
    # Back by another: nothing remembers against it that it was here.
    back = run(
        "--site", B, "intent", "add", spot.dataset, "--to", A, "--source", B, "--move", "--wait", "--timeout", 90
    )
    assert back.exit_code == 8, back.output
    assert f"it is claimed by {intent}" in back.stdout
    rig.assert_arrived(files, A)
    rig.audit()


def test_what_others_registered_stays_when_it_is_moved(run: Run, rig: Rig, spot: Spot, tmp_path: Path) -> None:
    for owner in ("ann", "bob"):
        path = tmp_path / owner
        path.mkdir()
        (path / f"{owner}.dat").write_bytes(noise(5_000, spot.name + owner))
        placed = run("--site", A, "file", "register", path, "--block", spot.block(), "--owner", owner)
        assert placed.exit_code == 0, placed.output
    move = ("intent", "add", spot.dataset, "--to", B, "--source", A, "--move", "--owner", "ann")
    done = run("--site", A, *move, "--wait", "--timeout", 90, "--json")
    assert done.exit_code == 8, done.output
    (left,) = json.loads(done.stdout.splitlines()[-1])["leaving"]
    assert (left["arrived"], left["failed"], left["reasons"]) == (1, 1, {"it was registered by bob": 1})
    rig.audit()


@pytest.mark.parametrize(
    ("args", "exit_code", "words"),
    [
        (("/store/nobody/knows.root", "--at", A), 3, "no site is known to hold"),
        (("/No/Such/DATA", "--at", A), 3, "no site is known to hold"),
        (("/No/Such/DATA", "--at", "T9_X", "--execute"), 3, "T9_X"),
        (("/No/Such/DATA", "--at", A, "--copies", "0"), 2, "copies"),
        (("/No/Such/DATA", "--at", f"{A}/zpeak", "--execute"), 2, "keeps no files"),
    ],
)
def test_a_removal_that_cannot_be_is_one_line(run: Run, args: tuple[Any, ...], exit_code: int, words: str) -> None:
    refused = run("--site", A, "file", "remove", *args, "--reason", "full")
    assert refused.exit_code == exit_code, refused.output
    assert words in refused.output


@pytest.mark.parametrize(
    ("args", "exit_code", "words"),
    [
        (("add", "/No/Such/DATA", "--to", B, "--move"), 2, "name it: --source"),
        (("add", "/No/Such/DATA", "--to", A, "--source", A, "--move"), 2, "is a destination too"),
        (("add", "/No/Such/DATA", "--to", f"{B}/zpeak", "--source", A, "--move"), 2, "keeps no files"),
        (("add", "/No/Such/DATA", "--to", B, "--source", A, "--move", "--entries", "t[:]"), 2, "of a copy only"),
        (("add", "/No/Such/DATA", "--to", B, "--source", "T9_X", "--move"), 3, "T9_X"),
        (("preview", "/No/Such/DATA", "--to", B, "--move"), 2, "name it: --source"),
        (("preview", "/No/Such/DATA", "--to", B, "--source", B, "--move"), 2, "where they go"),
        (("preview", "/No/Such/DATA", "--to", B), 3, "no site is known to hold"),
        (("preview", "/No/Such/DATA", "--to", "T9_X"), 3, "T9_X"),
    ],
)
def test_a_move_that_cannot_be_is_one_line(run: Run, args: tuple[str, ...], exit_code: int, words: str) -> None:
    refused = run("--site", A, "intent", *args)
    assert refused.exit_code == exit_code, refused.output
    assert words in refused.output
