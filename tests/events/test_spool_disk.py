"""Spools and seals on full, failing and power-cut disks: real ones, small, mounted for the test."""

from __future__ import annotations

import os
import resource
import signal
from contextlib import ExitStack
from pathlib import Path

import pyarrow as pa
import pytest

from streams.core.ranges import Ranges
from streams.errors import StorageError
from streams.events.provenance import Provenance
from streams.events.spool import Spool
from streams.storage.endpoint import PartFileLost
from tests.events.landing_tables import bits, jagged, payload, seal
from tests.storage.disks import CUTS_MAX, ext4_image, mounted, power_cut, tmpfs

TABLE = jagged(20_000)
STEP = 1_000


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
def test_sealing_on_a_full_disk(tmp_path: Path, kind: str) -> None:
    with tmpfs(tmp_path / "small", "size=100k") as disk, Spool(str(tmp_path / "x.part")) as spool:
        fill(spool)
        about = Provenance("/store/x.root", "Events", 0, len(TABLE))
        with pytest.raises(StorageError, match="the disk is full") as full:
            seal(spool, kind, str(disk / "out"), about, compression="none")
        assert full.value.failure_class == "quota"
        assert seal(spool, kind, str(tmp_path / "out"), about).entries == len(TABLE)


def test_sealing_past_the_page_cache_on_a_full_disk(tmp_path: Path) -> None:
    """A tmpfs has no such writes."""
    with mounted(tmp_path / "disk", "-o", "loop", str(ext4_image(tmp_path / "image", 4))) as disk:
        (disk / "other").write_bytes(bytes(os.statvfs(disk).f_bavail * os.statvfs(disk).f_bsize - 1_200_000))
        with Spool(str(tmp_path / "x.part")) as spool:
            fill(spool)
            about = Provenance("/store/x.root", "Events", 0, len(TABLE))
            with pytest.raises(StorageError, match="the disk is full") as full:
                seal(spool, "arrow", str(disk / "out"), about, compression="none")
            assert full.value.failure_class == "quota"
            (disk / "other").unlink()
            assert seal(spool, "arrow", str(disk / "out"), about).entries == len(TABLE)


def test_a_disk_that_fails_loses_the_part_and_the_final_file(tmp_path: Path) -> None:
    """The disk behind an ext4 takes a little and then fails: writes succeed into the page cache, and syncs tell."""
    with ExitStack() as stack:
        thin = stack.enter_context(tmpfs(tmp_path / "thin", "size=3m"))
        image = ext4_image(thin / "image", 20)
        disk = stack.enter_context(mounted(tmp_path / "disk", "-o", "loop,errors=continue", str(image)))
        about = Provenance("/store/x.root", "Events", 0, len(TABLE))
        with Spool(str(tmp_path / "good.part")) as good:
            fill(good)

            def seal_some() -> None:
                for n in range(20):  # each of them has room, as far as the filesystem knows
                    seal(good, "root", str(disk / f"out{n % 5}"), about, compression="none")

            with pytest.raises(PartFileLost, match="cannot sync"):
                seal_some()
        with Spool(str(disk / "x.part")) as spool:
            fill(spool)
            with pytest.raises(PartFileLost, match="cannot sync"):
                spool.sync()


def test_what_was_reported_outlives_a_power_cut(tmp_path: Path) -> None:
    image = ext4_image(tmp_path / "image", 60)
    about = Provenance("/store/x.root", "Events", 0, len(TABLE))
    half = len(TABLE) // 2
    with mounted(tmp_path / "disk", "-o", "loop", str(image)) as disk, ExitStack() as stack:
        for n in range(CUTS_MAX):
            spool = stack.enter_context(Spool(str(disk / f"x{n}.part")))
            for start in range(half, len(TABLE), STEP):
                spool.add(start, start + STEP, payload(TABLE, start, start + STEP))
            with power_cut(image, tmp_path, f"unsynced{n}") as after:
                if not (after / f"x{n}.part").exists():
                    break
        else:
            pytest.fail("power cuts lose nothing here: the rest of this test would prove nothing")
        durable = spool.sync()
        assert durable == Ranges([(half, len(TABLE))])
        for start in range(0, half, STEP):
            spool.add(start, start + STEP, payload(TABLE, start, start + STEP))
        with (
            power_cut(image, tmp_path, "synced") as after,
            Spool(str(after / f"x{n}.part"), verified=durable) as resumed,
        ):
            got = pa.Table.from_batches(list(resumed.read(half, len(TABLE))))
            assert bits(got) == bits(TABLE.slice(half))
            fill(resumed)
            assert resumed.whole(len(TABLE))
        (disk / "out").touch()
        os.sync()
        sealed = seal(spool, "parquet", str(disk / "out"), about)
        with power_cut(image, tmp_path, "sealed") as after:
            assert (after / "out").read_bytes() == (disk / "out").read_bytes()
            assert (after / "out").stat().st_size == sealed.bytes


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
