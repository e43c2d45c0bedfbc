"""The same entries make the same file, whatever the order, the cuts, the repeats and the compression they came in."""

from __future__ import annotations

import random
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from itertools import pairwise
from pathlib import Path
from threading import Semaphore

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streams.events import writing
from streams.events.batches import Compression
from streams.events.provenance import Provenance
from streams.events.spool import Spool
from streams.events.spool_records import Recent
from streams.events.writing import Sealed, Sealing
from tests.events.landing_tables import jagged, nested, payload, pieces

ENTRIES = 700


@cache
def table_for(kind: str) -> pa.Table:
    return jagged(ENTRIES) if kind == "root" else nested(ENTRIES)


def sealed(
    kind: str, ranges: list[tuple[int, int]], compression: Compression, reopen_at: int, *, meanwhile: bool
) -> tuple[Sealed, bytes]:
    """With `meanwhile` the file grows after every piece, mostly from what is still in memory."""
    recent = Recent(20_000) if meanwhile else None
    about = Provenance("/a/b.root", "Events", 0, ENTRIES)
    with tempfile.TemporaryDirectory() as directory:
        path, out = Path(directory, "x.part"), Path(directory, "out")
        spool = Spool(str(path), recent=recent)
        sealing = Sealing(spool, kind, str(out), about)
        for n, (start, stop) in enumerate(ranges):
            if n == reopen_at:
                spool.close()
                sealing.close()
                spool = Spool(str(path), recent=recent)
                sealing = Sealing(spool, kind, str(out), about)
            spool.add(start, stop, payload(table_for(kind), start, stop, compression))
            if meanwhile and spool.taken:
                first, last = spool.taken.spans[0]
                assert sealing.advance() <= (0 if first else last)
        with spool, sealing:
            return sealing.finish(), out.read_bytes()


@cache
def reference(kind: str) -> tuple[Sealed, bytes]:
    return sealed(kind, [(0, ENTRIES)], "none", -1, meanwhile=False)


@pytest.fixture(autouse=True, scope="module")
def _small_row_groups() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(writing, "BLOCK_BYTES", 20_000)
        patch.setattr(writing, "ROW_GROUP_BYTES", 15_000)
        yield


@pytest.mark.parametrize("kind", ["parquet", "arrow", "root"])
@settings(max_examples=25, deadline=None, derandomize=True)
@given(
    cuts=st.lists(st.integers(0, ENTRIES), max_size=20),
    extra=st.lists(st.tuples(st.integers(0, ENTRIES), st.integers(0, ENTRIES)), max_size=8),
    order=st.integers(0, 1 << 30),
    compression=st.sampled_from(["zstd", "lz4", "none"]),
    reopen_at=st.integers(0, 30),
    meanwhile=st.booleans(),
)
def test_the_same_bytes(
    kind: str,
    cuts: list[int],
    extra: list[tuple[int, int]],
    order: int,
    compression: Compression,
    reopen_at: int,
    meanwhile: bool,
) -> None:
    borders = sorted({0, ENTRIES, *cuts})
    ranges = [*pairwise(borders), *((min(pair), max(pair)) for pair in extra)]
    random.Random(order).shuffle(ranges)
    assert sealed(kind, ranges, compression, reopen_at, meanwhile=meanwhile) == reference(kind)


def test_there_are_several_row_groups() -> None:
    """Else the borders would not be under test."""
    with pa.BufferReader(reference("arrow")[1]) as file, pa.ipc.open_file(file) as reader:
        assert reader.num_record_batches > 3


@pytest.mark.parametrize("kind", ["parquet", "arrow"])
def test_one_thread_adds_while_another_syncs_and_seals(tmp_path: Path, kind: str) -> None:
    ranges = pieces(ENTRIES, seed=5, cuts=150, extra=40)
    recent = Recent(30_000)
    with (
        Spool(str(tmp_path / "x.part"), recent=recent) as spool,
        Sealing(spool, kind, str(tmp_path / "out"), Provenance("/a/b.root", "Events", 0, ENTRIES)) as sealing,
        ThreadPoolExecutor(1) as thread,
    ):

        def fill() -> None:
            for number, (start, stop) in enumerate(sorted(ranges, key=lambda one: one[0] // 50), 1):
                if number % 40 == 0:  # never faster than the other thread's first rounds
                    assert round_done.acquire(timeout=30)
                spool.add(start, stop, payload(table_for(kind), start, stop))

        round_done = Semaphore(0)
        filling = thread.submit(fill)
        rounds = 0
        while not filling.done():
            before = spool.taken
            assert not before - spool.sync()
            sealing.advance()
            rounds += 1
            round_done.release()
        filling.result()
        assert rounds > 1
        assert (sealing.finish(), (tmp_path / "out").read_bytes()) == reference(kind)
        assert spool.sync().covers(0, ENTRIES)
