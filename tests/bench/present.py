"""An ask for what is there already, which is read back, beside a site that reads from here: that one must not wait."""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable

from streams.client.producer import TransferClient
from streams.core.names import Block
from streams.kafka.publish import Publisher
from streams.registration.registering import register
from tests.bench.rig import WAIT_S, A, B, Rig

FILES, BYTES = 10_000, 1_000_000
MB = 1e6


class Present:
    def __init__(self, rig: Rig, row: Callable[..., None], files: int, big: int, rounds: int) -> None:
        self.rig, self.row, self.files, self.big, self.rounds = rig, row, files, big, rounds

    def run(self) -> None:
        alone, beside = [], []
        for number in range(self.rounds):
            alone.append(self._from_here(f"alone{number}"))
            block = self._there_already()
            handle = self.rig.publish(block)
            beside.append(self._from_here(f"beside{number}"))
            under_way = not handle.snapshot().ended
            assert under_way or self.files < FILES, "all was read back before the other site was served"
            assert handle.wait(timeout_s=WAIT_S).done
            self.rig.free(block)
        ratio = statistics.median(b / a for a, b in zip(alone, beside, strict=True))
        name = f"served beside an ask for {self.files:,} files of 1 MB that are there"
        rates = {"alone MB/s": [round(r) for r in alone], "beside MB/s": [round(r) for r in beside]}
        self.row(name, ratio, "ratio", ">= 0.8", ratio >= 0.8, **rates)

    def _there_already(self) -> str:
        """Files that A holds and B has under their final names, by another way."""
        block = self.rig.make("present", self.files, BYTES)
        folder = self.rig.state / "bench" / block.rpartition("#")[2]
        there = self.rig.state / B / "storage" / "store" / "bench" / folder.name
        there.mkdir(parents=True)
        for file in folder.iterdir():
            os.link(file, there / file.name)
        return block

    def _from_here(self, name: str) -> float:
        """MB/s of a large file from B to A."""
        folder = self.rig.state / "bench" / name
        folder.mkdir()
        with (folder / "big").open("wb") as out:
            chunk = os.urandom(1 << 20)
            for _ in range(self.big >> 20):
                out.write(chunk)
        os.sync()
        settings, block = self.rig.settings(B), Block(f"/Bench/Run/RAW#{name}")
        with Publisher(settings, B, "bench", "cli") as publisher:
            done = register(settings, publisher, [folder], block, lfn_prefix=f"/store/bench/{name}")
        assert done.files == 1, done
        with TransferClient(settings) as client:
            start = time.monotonic()
            assert client.publish([block], to=[A]).wait(timeout_s=WAIT_S).done
            return self.big / MB / (time.monotonic() - start)
