"""A real site is checked: what is lost comes again from the other, dark files go aside, and the audit is clean."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from streams.consistency import checking
from streams.core import records as m
from streams.core import topics
from streams.kafka.publish import wall_ms
from streams.storage import marker
from streams.storage.tree import OWN_DIRECTORY
from tests.sites.rig import A, B, Rig, Run, Spot, noise, until

pytestmark = [pytest.mark.sites, pytest.mark.timeout(600)]

DAY_MS = 86_400_000


def found(run: Run, spot: Spot, *words: str) -> tuple[int, list[dict[str, Any]], dict[str, Any]]:
    """What a check of B found of a test's own files; its exit code, and its summary."""
    done = run("site", "check", B, *words, "--json")
    *lines, summary = [json.loads(line) for line in done.stdout.splitlines()]
    return done.exit_code, [one for one in lines if spot.name in one.get("lfn", one.get("path"))], summary


def test_lost_files_come_again_and_dark_ones_go_aside(
    run: Run, rig: Rig, spot: Spot, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = {spot.lfn(f"{n:02}.dat"): noise(20_000 + n, f"{spot.name}{n}") for n in range(60)}
    rig.register(files, spot.block())
    copied = rig.publish([spot.dataset], [B])
    rig.wait_done(copied)
    assert all((rig.storage(site) / OWN_DIRECTORY / marker.NAME).exists() for site in (A, B)), "workers marked them"
    assert found(run, spot)[1] == []

    (gone, rotten), dark = list(files)[:2], rig.path(B, spot.lfn("dark.dat"))
    rig.path(B, gone).unlink()
    rig.path(B, rotten).write_bytes(b"rotten")
    dark.write_bytes(b"whose?")
    code, lines, _ = found(run, spot)
    assert code == 1
    of = {one["found"]: one for one in lines}
    assert sorted(of) == ["dark", "lost", "wrong"]
    assert (of["lost"]["lfn"], of["lost"]["claim"], of["lost"]["holders"]) == (gone, copied.id, [A])
    assert (of["wrong"]["lfn"], of["wrong"]["why"]) == (rotten, f"has 6 bytes, not {len(files[rotten])}")
    assert rig.facts(B, topics.REPLICAS, key=spot.dataset)[-1].manifest is not None, "nothing was said"

    code, lines, _ = found(run, spot, "--execute")
    (lost,) = [one for one in lines if one["found"] == "lost"]
    assert (code, lost["said"]) == (1, True)
    (said,) = [fact for fact in rig.facts(B, topics.REPLICAS, key=spot.dataset) if isinstance(fact, m.FilesLost)]
    assert (said.lfns, len(said.taken[0].words)) == ((gone,), 1)
    rig.wait_done(rig.client(B).intent(lost["intent"]))
    assert rig.path(B, gone).read_bytes() == files[gone]
    assert dark.exists(), "it was seen today for the first time"

    mended = run("--site", B, "file", "verify", rotten, "--repair", "--execute", "--json")
    rig.wait_done(rig.client(B).intent(json.loads(mended.stdout)["intent"]))
    monkeypatch.setattr(checking, "wall_ms", lambda: wall_ms() + 8 * DAY_MS)
    code, lines, _ = found(run, spot, "--execute")
    (aside,) = lines
    assert (code, aside["found"], dark.exists()) == (1, "dark", False)
    assert Path(aside["aside"]).read_bytes() == b"whose?"
    rig.assert_arrived(files)
    until(lambda: found(run, spot)[1] == [], "nothing is wrong any more")
    rig.audit()
