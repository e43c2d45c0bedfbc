"""Files that go from one site once the other has read its own copies back and promised to keep them."""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable
from pathlib import Path

from tests.bench.rig import WAIT_S, A, B, Rig

FILES, A_BLOCK, BYTES = 100_000, 1_000, 4096
REACH = 3_000


class Removing:
    """`row`: takes each figure, as `Bench.row`; `files`: of 4 KiB, a thousand of them a block."""

    def __init__(self, rig: Rig, row: Callable[..., None], files: int, rounds: int) -> None:
        self.rig, self.row, self.files, self.rounds = rig, row, files, rounds

    def run(self) -> None:
        rates, bare = [], []
        assert self.rig.client is not None
        for _ in range(self.rounds):
            blocks = [self.rig.make("gone", A_BLOCK, BYTES) for _ in range(self.files // A_BLOCK)]
            copies = [self.rig.publish(block) for block in blocks]
            assert all(copy.wait(timeout_s=WAIT_S).done for copy in copies)
            began_s = time.monotonic()
            removal = self.rig.client.remove(blocks, at=[A], reason="bench")
            assert removal.wait(timeout_s=WAIT_S).done
            rates.append(self.files / (time.monotonic() - began_s))
            folders = [self.rig.state / A / "storage/store/bench" / block.partition("#")[2] for block in blocks]
            assert not any(folder.exists() and any(folder.iterdir()) for folder in folders)
            bare.append(self.files / sum(_unlinked_s(folder, A_BLOCK) for folder in folders))
            for block in blocks:
                self.rig.free(block)
        rate = statistics.median(rates)
        name = f"{self.files:,} files of 4 KiB removed, the other copies read back"
        more = {"rounds": [round(r) for r in rates], "bare unlink files/s": round(statistics.median(bare))}
        self.row(name, rate, "files/s", f">= {REACH}", rate >= REACH, **more)


def moved(rig: Rig, row: Callable[..., None], tries: int) -> None:
    """One file of 1 MB moved between idle sites: from when it stands at its destination until it is gone at its source.

    That is more than from its completion, which comes behind.
    """
    gaps, whole = zip(*(_moved_one(rig) for _ in range(tries)), strict=True)
    gap = statistics.median(gaps)
    more = {"tries": tries, "p95": round(sorted(gaps)[-1 - tries // 20], 3), "whole p50": statistics.median(whole)}
    row("a moved 1 MB file, from its destination to its source gone: p50", gap, "s", "<= 0.5", gap <= 0.5, **more)


def _moved_one(rig: Rig) -> tuple[float, float]:
    """Seconds from its arrival until it is gone, and from the intent to its end."""
    assert rig.client is not None
    block = rig.make("moved", 1, 1_000_000)
    folder = f"storage/store/bench/{block.partition('#')[2]}"
    (name,) = os.listdir(rig.state / A / folder)
    here, there = (rig.state / site / folder / name for site in (A, B))
    began_s = time.monotonic()
    handle = rig.client.publish([block], to=[B], source=A, move=True)
    arrived_s = _until(there.exists)
    gone_s = _until(lambda: not here.exists())
    assert handle.wait(timeout_s=WAIT_S).done
    whole_s = time.monotonic() - began_s
    rig.free(block)
    return gone_s - arrived_s, whole_s


def _until(holds: Callable[[], bool]) -> float:
    """When it holds (monotonic, s), as looked at every 2 ms."""
    limit_s = time.monotonic() + WAIT_S
    while not holds():
        assert time.monotonic() < limit_s
        time.sleep(0.002)
    return time.monotonic()


def _unlinked_s(folder: Path, count: int) -> float:
    """Seconds of bare unlinks of as many files, and one sync of their directory."""
    folder.mkdir(exist_ok=True)
    paths = [folder / f"f{number:06}" for number in range(count)]
    for path in paths:
        path.write_bytes(bytes(BYTES))
    os.sync()
    fd = os.open(folder, os.O_RDONLY)
    try:
        began_s = time.monotonic()
        for path in paths:
            path.unlink()
        os.fsync(fd)
        return time.monotonic() - began_s
    finally:
        os.close(fd)
