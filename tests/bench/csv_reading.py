"""CSV: 5 M rows opened and read as entries, beside pyarrow's reader of the same file in the same run; one thread each.

No federation is needed. Seconds are those of the processor, so that other work on the machine counts little.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from pyarrow import csv

from streams.core.selections.entries import EventSelection
from streams.events.reading import open_entries

ROWS = 5_000_000
_STEP = 100_000
_PAYLOAD_BYTES = 1 << 20


def make_csv(path: Path, rows: int) -> None:
    """Two whole numbers, three decimals of few digits, one of 17, a word; 50 bytes a row."""
    chance = np.random.default_rng(3)
    with path.open("w") as out:
        out.write("run,event,pt,eta,phi,mass,tag\n")
        for start in range(0, rows, _STEP):
            count = min(_STEP, rows - start)
            pt, eta = chance.exponential(30, count).tolist(), chance.normal(0, 1.5, count).tolist()
            phi, mass = chance.uniform(-3.14, 3.14, count).tolist(), chance.normal(91, 5, count).tolist()
            for n in range(count):
                out.write(f"{start},{start + n},{pt[n]:.3f},{eta[n]:.4f},{phi[n]:.4f},{mass[n]!r},mu{n % 7}\n")


def csv_reading(path: Path, rows: int, rounds: int, row: Callable[..., None]) -> None:
    """Rounds of both in turn; the median of the rounds' ratios is what counts."""
    small = path.with_name("small.csv")
    make_csv(small, 1000)  # what importing takes is not counted
    open_entries(str(small), EventSelection()).close()
    make_csv(path, rows)
    ours, opening, theirs = [], [], []
    for _ in range(max(3, rounds)):
        begun = time.process_time()
        with open_entries(str(path), EventSelection()) as entries:
            opening.append(time.process_time() - begun)
            assert entries.entries == rows
            for start, stop in entries.cuts(_PAYLOAD_BYTES):
                entries.read(start, stop)
        ours.append(time.process_time() - begun)
        begun = time.process_time()
        assert csv.read_csv(path, read_options=csv.ReadOptions(use_threads=False)).num_rows == rows
        theirs.append(time.process_time() - begun)
    ratio = statistics.median(peer / own for own, peer in zip(ours, theirs, strict=True))
    more = {
        "M rows/s": round(rows / statistics.median(ours) / 1e6, 2),
        "opening s": [round(x, 2) for x in opening],
        "rounds s": [round(x, 2) for x in ours],
        "pyarrow s": [round(x, 2) for x in theirs],
    }
    row(f"{rows / 1e6:g} M rows of CSV, read twice: of pyarrow", ratio, "ratio", "printed", True, **more)
