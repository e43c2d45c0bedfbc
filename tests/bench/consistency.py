"""A site's replicas against its disk, names and sizes: as many files as replicas, nothing wrong with any.

Beside it the same question by `find`, `sort` and `comm` over the same tree, with the catalogue as a text file. The
journal is given from memory, encoded as it stands in a broker: 1,000 files a record. What it has in memory at most is
that of a process of its own.
"""

from __future__ import annotations

import json
import os
import pickle
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import Any
from unittest import mock

from streams import waits, wire
from streams.auditing import replicas, storage
from streams.auditing.disks import Disks
from streams.core import records as m
from streams.core.ledger.findings import FindingList
from streams.core.names import Adler32, Block, Dataset, Lfn, Site
from streams.core.topics import REPLICAS
from streams.kafka.reader import Record
from streams.settings import Registry, Settings, SiteEntry
from streams.views import scratch

FILES = 1_000_000
SITE = Site("T1_A")
_DATASET = Dataset("/Bench/Run2024A-v1/NANOAOD")
_A_RECORD = 1_000
"""Files of a record, a block and a directory."""
_S_MAX, _MB_MAX = 60.0, 200


def plant(root: Path, files: int) -> None:
    """Empty files, their names as `find` gives them, and the journal that says they are held."""
    with (root / "catalogue").open("w") as catalogue, (root / "journal").open("wb") as journal:
        for number, first in enumerate(range(0, files, _A_RECORD)):
            lfns = [_lfn(number, n) for n in range(first, min(first + _A_RECORD, files))]
            (root / "storage" / lfns[0][1:]).parent.mkdir(parents=True)
            for lfn in lfns:
                os.close(os.open(root / "storage" / lfn[1:], os.O_CREAT | os.O_WRONLY))
                catalogue.write(f".{lfn}\n")
            block = Block(f"{_DATASET}#{number:08x}")
            held = tuple(m.HeldFile(Lfn(lfn), block, 0, Adler32("00000001"), "") for lfn in lfns)
            framed = wire.framed(m.FilesHeld(_DATASET, SITE, held))
            headers = wire.headers(framed.cls, m.Origin(SITE, "bench", "i", number, 1))
            pickle.dump(Record(REPLICAS, 0, number, 1, framed.key, framed.value, headers), journal)


def _lfn(block: int, number: int) -> str:
    return f"/store/data/Run2024A/Bench/NANOAOD/v1/{block:06}/{number * 2654435761 % 2**32:08X}-{number:08}.root"


def journal(root: Path) -> Iterator[Record]:
    with (root / "journal").open("rb") as file, suppress(EOFError):
        while True:
            yield pickle.load(file)


def look(root: Path, files: int) -> dict[str, Any]:
    """In this process: what it took, and what it has had in memory."""
    state = root / "state"
    (state / SITE).mkdir(parents=True, exist_ok=True)
    (state / SITE / "site.toml").write_text(f'site = "{SITE}"\n[endpoint]\nurl = "{(root / "storage").as_uri()}"\n')
    registry = Registry(partitions=1, sites=(SiteEntry(SITE, "nobody:1"),))
    settings = Settings(registry, Site("T9_X"), state, state / "cache", state / "sites.toml", state / "client")

    def replay(_: Settings, site: str, topics: list[str], start: Any = "beginning") -> Iterator[Record]:
        return journal(root) if topics == [REPLICAS] and not start else iter(())

    findings = FindingList(int(time.time() * 1000))
    with (
        mock.patch.object(replicas, "replay", replay),
        mock.patch.object(storage, "replay", replay),
        mock.patch.object(storage, "end_offsets", return_value={}),
        waits.on("the disk") as wait,
        closing(Disks(settings, findings, wait)) as disks,
        scratch.database() as db,
    ):
        begun, cpu = time.monotonic(), time.process_time()
        one = storage.DiskLook(settings, SITE, findings, disks, db, wait)
        one.run(None, 0)
        wrong, dark = sum(1 for _ in one.wrong()), sum(1 for _ in one.dark())
        took, cpu = time.monotonic() - begun, time.process_time() - cpu
    assert (one.replicas, one.walked, wrong, dark) == (files, files, 0, 0)
    # Not that of getrusage, which begins with what the process had that started this one.
    (most,) = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM:")]
    return {"seconds": took, "cpu_s": cpu, "memory_mb": int(most.split()[1]) >> 10}


def bare(root: Path) -> float:
    """`find`, `sort` and `comm`: the names that are in the one and not in the other."""
    script = "find . -type f | LC_ALL=C sort > ../found; LC_ALL=C sort ../catalogue | LC_ALL=C comm -3 - ../found"
    begun = time.monotonic()
    done = subprocess.run(["sh", "-c", script], cwd=root / "storage", check=True, capture_output=True)
    took = time.monotonic() - begun
    assert not done.stdout
    return took


def consistency(files: int, rounds: int, row: Callable[..., None]) -> None:
    """Rounds of both in turn, medians."""
    ours, theirs = list[dict[str, Any]](), list[float]()
    with tempfile.TemporaryDirectory(prefix="t2g-bench-") as made:
        root = Path(made)
        plant(root, files)
        for _ in range(rounds):
            command = [sys.executable, "-m", "tests.bench.consistency", str(root), str(files)]
            ours.append(json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout))
            theirs.append(bare(root))
    seconds = statistics.median(one["seconds"] for one in ours)
    memory = max(one["memory_mb"] for one in ours)
    row(
        f"consistency of {files:,} replicas against as many files",
        seconds,
        "s",
        f"≤ {_S_MAX * files / FILES:.0f}, ≤ {_MB_MAX} MB",
        seconds <= _S_MAX * files / FILES and memory <= _MB_MAX,
        memory_mb=memory,
        cpu_s=round(statistics.median(one["cpu_s"] for one in ours), 1),
        find_sort_comm_s=round(statistics.median(theirs), 2),
    )


if __name__ == "__main__":
    print(json.dumps(look(Path(sys.argv[1]), int(sys.argv[2]))))
