"""Spools and seals on a disk that is full: a real one, small, mounted for the test, and a limit on the file's size."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from streams.core.ranges import Ranges
from streams.errors import StorageError
from streams.events.spool import Spool
from streams.events.writing import Kind, Provenance, seal
from tests.events.landing_tables import jagged, payload
from tests.system_tools import tool

TABLE = jagged(20_000)
STEP = 1_000


@contextmanager
def tmpfs(directory: Path, options: str) -> Iterator[Path]:
    directory.mkdir()
    done = subprocess.run(
        [tool("mount"), "-t", "tmpfs", "-o", options, "tmpfs", str(directory)], capture_output=True, text=True
    )
    if done.returncode:
        pytest.skip(f"mounting is impossible here: {done.stderr.strip()}")
    try:
        yield directory
    finally:
        subprocess.run([tool("umount"), "--lazy", str(directory)], check=True)


def fill(spool: Spool) -> None:
    for start in range(0, len(TABLE), STEP):
        spool.add(start, start + STEP, payload(TABLE, start, start + STEP, "none"))


def test_adding_to_a_full_disk_and_going_on_when_there_is_room(tmp_path: Path) -> None:
    with tmpfs(tmp_path / "small", "size=1m") as disk, Spool(str(disk / "x.part")) as spool:
        other = disk / "other"
        other.write_bytes(bytes(600_000))
        with pytest.raises(StorageError, match="the disk is full") as full:
            fill(spool)
        assert full.value.failure_class == "quota"
        before = spool.taken
        assert Ranges([(0, STEP)]).size <= before.size < len(TABLE)
        other.unlink()
        (stop,) = (stop for _, stop in before)
        assert spool.add(stop, stop + STEP, payload(TABLE, stop, stop + STEP, "none")) == STEP
        assert spool.sync() == before | Ranges([(stop, stop + STEP)])
        spool.close()
        with Spool(str(disk / "x.part"), verified=spool.durable) as again:
            assert again.durable == spool.durable


@pytest.mark.parametrize("kind", ["parquet", "arrow", "root"])
def test_sealing_on_a_full_disk(tmp_path: Path, kind: Kind) -> None:
    with tmpfs(tmp_path / "small", "size=100k") as disk, Spool(str(tmp_path / "x.part")) as spool:
        fill(spool)
        about = Provenance("/store/x.root", "Events", 0, len(TABLE))
        with pytest.raises(StorageError, match="the disk is full") as full:
            seal(spool, kind, str(disk / "out"), about, compression="none")
        assert full.value.failure_class == "quota"
        assert seal(spool, kind, str(tmp_path / "out"), about).entries == len(TABLE)


def test_a_limit_on_the_size_of_files(tmp_path: Path) -> None:
    """Not a full disk: somebody set it, and waiting does not help."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    with Spool(str(tmp_path / "x.part")) as spool:
        resource.setrlimit(resource.RLIMIT_FSIZE, (500_000, hard))
        try:
            with pytest.raises(StorageError, match="too large") as refused:
                fill(spool)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
            signal.signal(signal.SIGXFSZ, handler)
        assert refused.value.failure_class == "permanent"
        assert os.path.getsize(spool.path) == spool.file_bytes <= 500_000
        fill(spool)
        assert spool.whole(len(TABLE))
