"""The spool of an item of entries: any order, repeats, overlaps, reopening. Killed writers: test_spool_crash.py;
full disks: test_spool_disk.py.
"""

from __future__ import annotations

import os
import random
import tracemalloc
from pathlib import Path

import pyarrow as pa
import pytest

from streams.core.ranges import Ranges
from streams.errors import StorageError, WireError
from streams.events.batches import pack
from streams.events.spool import Spool
from streams.events.spool_records import FILE_HEAD_BYTES, HEAD_BYTES, Cover, SpoolHead
from streams.storage.checksums import crc32c
from streams.storage.endpoint import PartFileLost
from tests.events.landing_tables import bits, flat, nested, payload, pieces

TABLE = nested(500)


def held(spool: Spool, start: int, stop: int) -> list[object]:
    return bits(pa.Table.from_batches(list(spool.read(start, stop))))


def expected(start: int, stop: int) -> list[object]:
    return bits(TABLE.slice(start, stop - start))


@pytest.fixture
def path(tmp_path: Path) -> str:
    return str(tmp_path / ".t2g-0123456789abcdef-1.part")


def filled(path: str, *ranges: tuple[int, int]) -> Spool:
    spool = Spool(path)
    for start, stop in ranges:
        spool.add(start, stop, payload(TABLE, start, stop))
    return spool


@pytest.mark.parametrize("seed", range(5))
def test_any_order_repeats_and_overlaps(path: str, seed: int) -> None:
    seen = Ranges()
    with Spool(path) as spool:
        for start, stop in pieces(500, seed):
            news = seen.missing(start, stop).size
            assert spool.add(start, stop, payload(TABLE, start, stop)) == news
            seen |= Ranges([(start, stop)])
            assert spool.taken == seen
            assert spool.whole(500) == seen.covers(0, 500)
        assert held(spool, 0, 500) == expected(0, 500)
        assert held(spool, 17, 444) == expected(17, 444)
        assert spool.durable == Ranges()
        assert spool.sync() == Ranges([(0, 500)]) == spool.durable


def test_an_unfinished_part_is_resumed(path: str) -> None:
    with filled(path, (10, 20), (0, 5), (3, 12)) as spool:
        assert spool.sync() == Ranges([(0, 20)])
        spool.add(30, 40, payload(TABLE, 30, 40))
        assert spool.durable == Ranges([(0, 20)])
    with Spool(path, verified=Ranges([(0, 20)])) as spool:
        assert spool.durable == spool.taken == Ranges([(0, 20), (30, 40)])
        assert spool.add(15, 30, payload(TABLE, 15, 30)) == 10
        assert not spool.whole(41)
        assert spool.whole(40)
        assert held(spool, 0, 40) == expected(0, 40)


def test_verified_entries_that_are_not_there_are_a_lost_part(path: str) -> None:
    filled(path, (0, 20)).close()
    with pytest.raises(PartFileLost, match=r"10 verified entries are gone, the first \[20, 30\)"):
        Spool(path, verified=Ranges([(5, 30)]))
    with Spool(path) as spool:  # the lock is free again
        assert spool.durable == Ranges([(0, 20)])


@pytest.mark.parametrize("torn", [1, HEAD_BYTES - 1, HEAD_BYTES, HEAD_BYTES + 1, 200])
def test_a_torn_end_is_cut_off(path: str, torn: int) -> None:
    with filled(path, (0, 20)) as spool:
        before = spool.file_bytes
        spool.add(20, 40, payload(TABLE, 20, 40))
    with open(path, "r+b") as file:
        file.truncate(before + torn)
    with Spool(path) as spool:
        assert spool.durable == Ranges([(0, 20)])
        assert os.path.getsize(path) == before == spool.file_bytes
        assert spool.add(20, 40, payload(TABLE, 20, 40)) == 20
        assert held(spool, 0, 40) == expected(0, 40)


def test_blocks_that_never_reached_the_disk_are_cut_off(path: str) -> None:
    """After a power cut the file may have its length and holes."""
    with filled(path, (0, 20)) as spool:
        before = spool.file_bytes
        spool.add(20, 40, payload(TABLE, 20, 40))
        whole = spool.file_bytes
    with open(path, "r+b") as file:
        file.truncate(before)
        file.truncate(whole + 4096)
    with Spool(path) as spool:
        assert spool.durable == Ranges([(0, 20)])
        assert spool.file_bytes == before


def test_a_damaged_record_in_the_middle_is_not_believed(path: str) -> None:
    with filled(path, (0, 20)) as spool:
        middle = spool.file_bytes
        spool.add(20, 40, payload(TABLE, 20, 40))
        spool.add(35, 60, payload(TABLE, 35, 60))
    flip(path, middle + HEAD_BYTES + 100)
    with Spool(path) as spool:
        assert spool.durable == Ranges([(0, 20), (35, 60)])
        assert held(spool, 35, 60) == expected(35, 60)
        assert spool.add(20, 40, payload(TABLE, 20, 40)) == 15
        assert held(spool, 0, 60) == expected(0, 60)


def test_a_damaged_head_ends_what_is_believed(path: str) -> None:
    """Its length says where the next one starts, so nothing behind it can be found; it comes again."""
    with filled(path, (0, 20)) as spool:
        middle = spool.file_bytes
        spool.add(20, 40, payload(TABLE, 20, 40))
        spool.add(40, 60, payload(TABLE, 40, 60))
    flip(path, middle + 6)
    with Spool(path) as spool:
        assert spool.durable == Ranges([(0, 20)])


def test_damage_after_opening_is_a_lost_part(path: str) -> None:
    with filled(path, (0, 20)) as spool:
        flip(path, FILE_HEAD_BYTES + HEAD_BYTES + 50)
        with pytest.raises(PartFileLost, match="not as it was written") as lost:
            held(spool, 0, 20)
        assert lost.value.failure_class == "data-bad"
        with pytest.raises(PartFileLost):
            spool.add(20, 40, payload(TABLE, 20, 40))
        with pytest.raises(PartFileLost):
            spool.sync()


@pytest.mark.parametrize("seed", range(4))
def test_a_part_damaged_anywhere_gives_true_entries_or_none(path: str, seed: int) -> None:
    """A bit turned, or a piece cut out, at any place: what is still believed is as it was."""
    chance = random.Random(seed)
    filled(path, *pieces(500, seed)).close()
    whole = Path(path).read_bytes()
    lost = 0
    for _ in range(40):
        damaged = bytearray(whole)
        at = chance.randrange(FILE_HEAD_BYTES, len(whole))
        if chance.random() < 0.7:
            damaged[at] ^= 1 << chance.randrange(8)
        else:
            del damaged[at : at + chance.randrange(1, 3_000)]
        Path(path).write_bytes(damaged)
        with Spool(path) as spool:
            lost += not spool.whole(500)
            for start, stop in spool.durable:
                assert held(spool, start, stop) == expected(start, stop)
    assert lost > 10


def flip(path: str, at: int) -> None:
    with open(path, "r+b") as file:
        file.seek(at)
        byte = file.read(1)[0]
        file.seek(at)
        file.write(bytes([byte ^ 1]))


def test_a_payload_cannot_pass_for_records(path: str) -> None:
    """Bytes inside a payload that look like a record are none, even if the record around them was torn."""
    fake = payload(TABLE, 100, 110)
    inside = SpoolHead(len(fake), 100, 110, crc32c(fake)).packed(bytes(8)) + fake
    carrier = pa.record_batch({"raw": pa.array([inside], pa.binary())})
    with Spool(path) as spool:
        assert spool.add(0, 1, pack(carrier, "none")) == 1
    content = Path(path).read_bytes()
    at = content.index(inside)
    Path(path).write_bytes(content[:FILE_HEAD_BYTES] + content[at:])
    with Spool(path) as spool:
        assert spool.durable == Ranges()


def test_what_is_not_a_spool_is_left_alone(path: str) -> None:
    Path(path).write_bytes(b"somebody's file of more than sixteen bytes")
    with pytest.raises(PartFileLost, match="not a part of entries"):
        Spool(path)
    assert Path(path).read_bytes().startswith(b"somebody's")


def test_wrong_payloads_are_refused_and_change_nothing(path: str) -> None:
    with filled(path, (0, 20)) as spool:
        before = spool.file_bytes
        for start, stop, piece in (
            (20, 41, payload(TABLE, 20, 40)),
            (20, 39, payload(TABLE, 20, 40)),
            (20, 40, payload(TABLE, 20, 40)[:-20]),
            (20, 40, b"nothing of the kind"),
            (40, 20, payload(TABLE, 20, 40)),
            (-1, 19, payload(TABLE, 20, 40)),
        ):
            with pytest.raises(WireError):
                spool.add(start, stop, piece)
        assert spool.taken == Ranges([(0, 20)])
        assert spool.file_bytes == before
        assert spool.add(20, 40, payload(TABLE, 20, 40)) == 20


def test_another_schema_is_refused_naming_the_difference(path: str) -> None:
    with filled(path, (0, 20)) as spool:
        other = TABLE.set_column(0, "run", TABLE["run"].cast(pa.uint64()))
        with pytest.raises(StorageError, match=r"schema changed.*run: uint64.*instead of.*run: uint32") as refused:
            spool.add(20, 40, payload(other, 20, 40))
        assert refused.value.failure_class == "data-bad"
        with pytest.raises(StorageError, match=r"columns instead of"):
            spool.add(20, 40, payload(TABLE.drop_columns(["words"]), 20, 40))
        again = TABLE.replace_schema_metadata(dict(reversed(list(TABLE.schema.metadata.items()))))
        assert spool.add(20, 40, payload(again, 20, 40)) == 20


def test_a_payload_without_entries_tells_the_schema(path: str) -> None:
    with Spool(path) as spool:
        assert spool.schema is None
        assert spool.whole(0)
        assert spool.add(0, 0, payload(TABLE, 0, 0)) == 0
        assert spool.schema.equals(TABLE.schema, check_metadata=True)
        size = spool.file_bytes
        spool.add(0, 0, payload(TABLE, 0, 0))
        assert spool.file_bytes == size
    with Spool(path) as spool:
        assert spool.schema.equals(TABLE.schema, check_metadata=True)
        assert spool.durable == Ranges()


def test_two_writers_never(path: str) -> None:
    with filled(path, (0, 20)) as spool:
        with pytest.raises(StorageError, match="another process is writing") as refused:
            Spool(path)
        assert refused.value.failure_class == "transient"
        assert spool.add(20, 40, payload(TABLE, 20, 40)) == 20
    Spool(path).close()


def test_a_part_whose_name_is_gone_or_taken_is_lost(path: str) -> None:
    with filled(path, (0, 20)) as spool:
        os.unlink(path)
        with pytest.raises(PartFileLost, match="gone"):
            spool.add(20, 40, payload(TABLE, 20, 40))
        with filled(path, (0, 5)) as successor:
            spool.discard()
            assert successor.add(5, 9, payload(TABLE, 5, 9)) == 4
            assert os.path.exists(path)
            successor.discard()
    assert not os.path.exists(path)


def test_a_link_is_not_followed(path: str, tmp_path: Path) -> None:
    os.symlink(tmp_path / "elsewhere", path)
    with pytest.raises(StorageError):
        Spool(path)
    assert not (tmp_path / "elsewhere").exists()
    os.unlink(path)
    os.mkfifo(path)
    with pytest.raises(StorageError, match="not a regular file"):
        Spool(path)


def test_endless_overlaps_do_not_fill_the_disk(path: str) -> None:
    """Every payload of 300 brings one new entry: only that one is kept."""
    with Spool(path) as spool:
        spool.add(0, 300, payload(TABLE, 0, 300))
        once = spool.file_bytes
        for n in range(301, 401):
            assert spool.add(n - 300, n, payload(TABLE, n - 300, n)) == 1
        alone = len(payload(TABLE, 300, 301))
        assert spool.file_bytes - once <= 100 * (alone + 600)
        assert held(spool, 0, 400) == expected(0, 400)
    with Spool(path) as spool:
        assert held(spool, 0, 400) == expected(0, 400)


def test_memory_is_an_index(path: str) -> None:
    """10 MB in 5,000 records: Python keeps less than 0.5 MB, Arrow nothing."""
    table = flat(50)
    piece = payload(table, 0, 50, "none")
    with Spool(path) as spool:
        tracemalloc.start()
        for n in range(5_000):
            spool.add(50 * n, 50 * n + 50, piece)
            if n % 1_000 == 999:
                spool.sync()
        kept = tracemalloc.get_traced_memory()[0]
        tracemalloc.stop()
        assert spool.file_bytes > 5_000 * len(piece) > 10_000_000
        assert kept < 500_000
        assert bits(next(spool.read(249_950, 250_000))) == bits(table)


def test_thousands_of_gaps_cost_no_more() -> None:
    """Every second entry of 40,000, then the rest, from both ends: a list made anew per change would take minutes."""
    cover = Cover()
    for start in range(0, 40_000, 2):
        cover.add(start, start + 1)
    assert len(cover.ranges().spans) == 20_000
    assert cover.missing(0, 5) == [(1, 2), (3, 4)]
    assert cover.missing(4_001, 4_002) == [(4_001, 4_002)]
    for start in (*range(1, 20_000, 2), *range(39_999, 20_000, -2)):
        cover.add(start, start + 1)
    assert cover.ranges() == Ranges([(0, 40_000)])
    assert cover.missing(0, 40_000) == []


@pytest.mark.parametrize("seed", range(5))
def test_a_cover_is_a_set_of_ranges(seed: int) -> None:
    chance = random.Random(seed)
    cover, expected = Cover(), Ranges()
    for _ in range(200):
        start = chance.randrange(100)
        stop = start + 1 + chance.randrange(6)
        assert cover.missing(start, stop) == list(expected.missing(start, stop))
        cover.add(start, stop)
        expected |= Ranges([(start, stop)])
        assert cover.ranges() == expected
