"""Two intents of very many tiny files at once, and a single file published in their middle, which must not wait."""

from __future__ import annotations

import time
from collections.abc import Callable

from tests.bench.rig import B, Rig

FILES, BYTES = 100_000, 1_000
ONE_BYTES = 1_000_000
PATIENCE_S = 1_800.0


def tiny(rig: Rig, row: Callable[..., None], files: int = FILES) -> None:
    """128 full manifests are open at a time: `plans_open_max` of each intent."""
    blocks = [rig.make("tiny", files, BYTES) for _ in range(2)]
    one = rig.make("one", 1, ONE_BYTES)
    began = time.monotonic()
    handles = [rig.publish(block) for block in blocks]
    while sum(handle.snapshot().arrived for handle in handles) < files // 2:
        assert time.monotonic() - began < PATIENCE_S, [handle.snapshot().destinations for handle in handles]
        time.sleep(0.25)
    single, _ = rig.send(one)
    for handle in handles:
        outcome = handle.wait(timeout_s=PATIENCE_S)
        assert outcome.done, outcome
    took = time.monotonic() - began
    stall = float(rig.health(B)["longest_stall_s"])  # type: ignore[arg-type]
    name = f"two intents of {files:,} files of 1 kB"
    row(f"{name}: files", 2 * files / took, "files/s", "printed", True, **{"longest stall ms": round(1000 * stall)})
    row(f"{name}: one 1 MB file meanwhile", single, "s", "<= 5", single <= 5)
