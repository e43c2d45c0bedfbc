"""From an intent to its completion at home, all recorded, beside what people move the same files with today.

One large file between directories in memory, and small files between directories on a disk, where the peers are synced
behind. The peers serve what the product's source has; see peers.py for what each verifies.
"""

from __future__ import annotations

import os
import statistics
import tempfile
from collections.abc import Callable
from pathlib import Path

from tests.bench.doors import fresh
from tests.bench.peers import peers
from tests.bench.rig import Rig

MEMORY = Path("/dev/shm")
REACH = {
    "xrdcp": 2.0,
    "xrdcp, tuned": 0.8,
    "rsync -aW": 0.9,
    "rclone, 4 streams": 1.4,
    "curl": 1.3,
    "one xrdcp a file": 20.0,
}
"""Of one's rate, what the product is to reach: times. Of the others it is printed."""


def _touch(folder: Path, size: int) -> None:
    """Takes and frees as much room as a run will: pages that a virtual machine never had cost it seconds."""
    block = bytes(1 << 20)
    with (folder / "touched").open("wb") as out:
        for _ in range(0, 2 * size, len(block)):
            out.write(block)
    (folder / "touched").unlink()


def _linked(files: Path, root: Path) -> Path:
    """The same files below a root of their own."""
    (root / "data").mkdir()
    for path in files.iterdir():
        os.link(path, root / "data" / path.name)
    return root


class ProductPeers:
    def __init__(self, cache: Path, disk: Path, row: Callable[..., None], rounds: int, size: int) -> None:
        self.cache, self.disk, self.row, self.rounds, self.size = cache, disk, row, rounds, size

    def run(self) -> None:
        self._compare(MEMORY, f"{self.size / 1e9:.1f} GB in memory", 1, self.size, synced=False)
        self._compare(self.disk, "2,000 files of 64 KiB on a disk", 2000, 65536, synced=True)

    def _compare(self, place: Path, name: str, count: int, size: int, *, synced: bool) -> None:
        own: list[float] = []
        theirs: dict[str, list[float]] = {}
        with tempfile.TemporaryDirectory(prefix="t2g-bench-", dir=place) as folder:
            for each in (place, Path(folder)):
                each.chmod(each.stat().st_mode | 0o555)  # some servers do not run as root
            rig = Rig(Path(folder) / "state", self.cache)
            try:
                rig.up()
                for _ in range(self.rounds):
                    block = rig.make("peers", count, size)
                    _touch(Path(folder), count * size)
                    own.append(rig.send(block)[0])
                    served = _linked(rig.state / "bench" / block.partition("#")[2], fresh(Path(folder) / "served"))
                    with peers(served, Path(folder) / "peers") as others:
                        for peer in others:
                            _touch(fresh(Path(folder) / "to"), count * size)
                            took_s, _ = peer.run(fresh(Path(folder) / "to"), synced=synced)
                            theirs.setdefault(peer.name, []).append(took_s * count / (peer.files or count))
                    rig.free(block)
            finally:
                rig.down()
        total = count * size / 1e6
        for peer_name, found in theirs.items():
            ratio = statistics.median(them / us for us, them in zip(own, found, strict=True))
            reach = REACH.get(peer_name)
            self.row(
                f"{name}: the product beside {peer_name}",
                ratio,
                "times",
                "printed" if reach is None else f">= {reach}",
                reach is None or ratio >= reach,
                **{
                    "MB/s": round(total / statistics.median(own), 1),
                    "its MB/s": round(total / statistics.median(found), 1),
                },
            )
