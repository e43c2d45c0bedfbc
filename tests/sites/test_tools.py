"""Files by a tool on a link between real sites: `cp`, where both see one disk, and one whose plane is killed."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from streams.cli import words
from streams.core import records as m
from streams.core import topics
from streams.storage.posix_removal import LOCK_DIRECTORY
from streams.storage.tree import OWN_DIRECTORY
from tests.process_ends import has_ended
from tests.sites.rig import A, B, Rig, Spot, noise, until

pytestmark = [pytest.mark.sites, pytest.mark.timeout(300)]

FIRST_HANGS = """
import os, pathlib, shutil, subprocess, sys, time
pids, source, target = sys.argv[1:]
first = not os.path.exists(pids)
left = subprocess.Popen([sys.executable, "-c", "import os, time; os.setsid(); time.sleep(600)"])
with open(pids, "a") as file:
    file.write(f"{os.getpid()} {left.pid}\\n")
if first:
    pathlib.Path(target).write_bytes(b"x")
    time.sleep(600)
shutil.copyfile(source, target)
"""


@contextlib.contextmanager
def linked(rig: Rig, *command: str) -> Iterator[None]:
    """B's worker has this tool, `mine`, on its link from A meanwhile."""
    own = rig.state / B / "site.toml"
    text = own.read_text()
    listed = ", ".join(f'"{word}"' for word in command)
    source = f"{rig.state / A / 'storage'}{{lfn}}"
    tables = f'[tools.mine]\ncommand = [{listed}]\ntimeout_s = 60\n\n[links.{A}]\ntool = "mine"\nsource = "{source}"\n'
    try:
        own.write_text(f"{text}\n{tables}")
        rig.start_again(B)
        yield
    finally:
        own.write_text(text)
        rig.start_again(B)


def test_cp_brings_what_an_intent_insists_on_and_the_source_serves_nothing(rig: Rig, spot: Spot) -> None:
    files = {spot.lfn("big"): noise(30_000_000, spot), spot.lfn("small"): noise(1_000, spot), spot.lfn("empty"): b""}
    with linked(rig, "cp", "{source}", "{target}"):
        rig.register(files, spot.block())
        before = rig.ends(A, topics.chunks_to(B))
        handle = rig.publish([spot.block()], plane="mine")
        rig.wait_done(handle)
        rig.assert_arrived(files)
        assert rig.ends(A, topics.chunks_to(B)) == before
        (manifest,) = rig.facts(A, topics.MANIFESTS, key=handle.id)
        asked = rig.facts(B, topics.requests_to(A), key=manifest.manifest)
        assert {request.plane for request in asked} == {"tool-mine"}
        assert "by tool mine" in words.line(asked[0])
        told = rig.facts(A, topics.CHUNK_EVENTS, key=manifest.manifest)
        assert not [one for one in told if isinstance(one, m.ChunksServed)]
    rig.audit()


def test_a_tool_whose_plane_is_killed_dies_with_it_and_the_next_plane_runs_it_anew(
    rig: Rig, spot: Spot, tmp_path: Path
) -> None:
    script, pids = tmp_path / "first_hangs.py", tmp_path / "pids"
    script.write_text(FIRST_HANGS)
    files = {spot.lfn("big"): noise(10_000_000, spot)}

    def running() -> list[int]:
        return [int(pid) for pid in pids.read_text().split()] if pids.exists() else []

    with linked(rig, sys.executable, str(script), str(pids), "{source}", "{target}"):
        rig.register(files, spot.block())
        handle = rig.publish([spot.block()], plane="mine")
        until(lambda: len(running()) == 2, "the tool has begun")
        name = f"{B}-worker-0"
        plane = rig.plane_pid(name)
        first = running()
        os.kill(plane, signal.SIGKILL)
        until(lambda: all(has_ended(pid) for pid in first), "the tool and what it started are gone")
        until(lambda: rig.plane_pid(name) != plane, "another plane runs")
        rig.wait_done(handle)
        rig.assert_arrived(files)
        assert len(running()) == 4, "it ran once more, and never twice at once"
        assert all(has_ended(pid) for pid in running()[2:])
        (manifest,) = rig.facts(A, topics.MANIFESTS, key=handle.id)
        asked = rig.facts(B, topics.requests_to(A), key=manifest.manifest)
        assert [(one.request_no, one.plane) for one in asked] == [(1, "tool-mine")], "its lease went on"
        left = {path.name for path in (rig.state / B / "storage").rglob(".t2g-*")}
        assert left <= {LOCK_DIRECTORY, OWN_DIRECTORY}
    rig.audit()


def test_where_a_tool_fails_an_intent_that_insists_waits_and_explain_says_why(rig: Rig, spot: Spot) -> None:
    files = {spot.lfn("big"): noise(1_000_000, spot)}
    with linked(rig, "false", "{source}", "{target}"):
        rig.register(files, spot.block())
        handle = rig.publish([spot.block()], plane="mine")

        def said() -> str:
            reports = [
                one for one in rig.facts(B, topics.REPORTS, key=handle.id) if isinstance(one, m.TransferReported)
            ]
            return reports[-1].waits_for if reports else ""

        until(lambda: "the intent insists on tool mine" in said() and "failed" in said(), "it waits, and says why")
        assert "tool mine failed" in said()
        assert "ended with exit code 1" in said()
        handle.cancel()
        assert not rig.wait(handle).done
    rig.audit()
