"""The disk under a real worker's tables fills: it ends, commits nothing past what it could not fold, and goes on."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from streams.auditing.replaying import worker_group
from streams.core import topics
from streams.federation import local
from streams.kafka.reader import committed_offsets
from streams.settings import load_settings
from tests.sites.rig import B, Rig, Spot, noise, until
from tests.storage.disks import tmpfs

pytestmark = [pytest.mark.sites, pytest.mark.timeout(400)]

DISK_BYTES = 192 << 20
INTENTS = 40


@pytest.fixture
def small_disk(rig: Rig) -> Iterator[Path]:
    """B's worker with its directory on a disk of its own; afterwards one on the real disk again."""
    directory = rig.state / B / "worker-0"
    local.set_workers(rig.state, B, 0)
    shutil.rmtree(directory / "faust")
    shutil.rmtree(directory / "view")
    try:
        with tmpfs(directory, f"size={DISK_BYTES}") as disk:
            local.set_workers(rig.state, B, 1)
            yield disk
            local.set_workers(rig.state, B, 0)
    finally:
        local.set_workers(rig.state, B, 1)


def test_a_full_disk_under_the_tables(rig: Rig, spot: Spot, small_disk: Path) -> None:
    letters = len(list(rig.records(B, topics.DEAD_LETTERS)))
    before = rig.part(f"{B}-worker-0")
    filler = small_disk / "filler"
    with filler.open("wb", buffering=0) as file:
        try:
            while True:
                file.write(b"\0" * (1 << 16))
        except OSError:
            pass
    files = {spot.lfn(f"{n}.dat"): noise(1000, (spot, n)) for n in range(INTENTS)}
    handles = []
    for lfn, content in files.items():
        rig.register({lfn: content}, spot.block(Path(lfn).stem))
        handles.append(rig.publish([spot.block(Path(lfn).stem)]))
    ended = until(lambda: rig.part(before.name).restarts > before.restarts, "the worker ends", 120)
    assert ended
    assert "75" in rig.part(before.name).why, rig.part(before.name).why
    filler.unlink()
    for handle in handles:
        rig.wait_done(handle, 150)
    rig.assert_arrived(files)
    assert len(list(rig.records(B, topics.DEAD_LETTERS))) == letters, "no fact was given up"
    rig.audit()
    settings = load_settings(environ={}, files=[], state=str(rig.state), site=B)
    assert committed_offsets(settings, B, worker_group(settings, B)), "it commits again"
