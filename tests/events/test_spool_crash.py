"""kill -9 of the writer of a spool, at random moments, and its successor. What was reported is there, bit for bit."""

from __future__ import annotations

import json
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pyarrow as pa

from streams.core.ranges import Ranges
from streams.events.spool import Spool
from tests.events.landing_tables import bits, nested

ROOT = Path(__file__).parents[2]
ENTRIES = 3_000
KILLS = 12


def run_and_kill(path: Path, seed: int, after_s: float) -> tuple[Ranges, bool]:
    """Everything it said is durable, and whether it was killed before it was done."""
    child = subprocess.Popen(
        [sys.executable, Path(__file__).with_name("spool_killed.py"), str(path), str(seed), str(ENTRIES)],
        cwd=ROOT,
        env={"PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        text=True,
    )
    assert child.stdout is not None
    assert child.stdout.readline() == "ready\n"
    time.sleep(after_s)
    child.send_signal(signal.SIGKILL)
    told, _ = child.communicate(timeout=60)
    reported = Ranges()
    for line in told.splitlines():
        reported |= Ranges((start, stop) for start, stop in json.loads(line))
    assert child.returncode in (-signal.SIGKILL, 0)
    return reported, child.returncode != 0


def test_kill_9_at_random_moments(tmp_path: Path) -> None:
    table = nested(ENTRIES)
    chance = random.Random(4)
    path = tmp_path / "x.part"
    reported = Ranges()
    killed = 0
    for n in range(KILLS):
        told, cut = run_and_kill(path, seed=n % 3, after_s=chance.random() ** 2 * 0.08)
        killed += cut
        reported |= told
        with Spool(str(path), verified=reported) as spool:  # PartLost if anything reported is gone
            for start, stop in spool.durable:
                assert bits(pa.Table.from_batches(list(spool.read(start, stop)))) == bits(
                    table.slice(start, stop - start)
                )
            reported |= spool.durable
        if n % 4 == 3:
            path.unlink()
            reported = Ranges()
    assert killed > KILLS // 3
