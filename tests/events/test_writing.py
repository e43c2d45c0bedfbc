"""The final file of an item of entries: what is in it, bit for bit, and what is refused.

The same bytes whatever the order: test_writing_order.py. ROOT: test_writing_root.py. Full disks: test_spool_disk.py.
"""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path

import awkward as ak
import pandas
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from streams.errors import StorageError
from streams.events import writing
from streams.events.batches import fingerprint, stream_bytes
from streams.events.final_files import FORMATS, sink
from streams.events.provenance import Provenance, provenance_of
from streams.events.sizes import Sizes
from streams.events.spool import Spool
from streams.events.spool_records import Recent
from streams.events.writing import Sealed, Sealing
from streams.storage.checksums import adler32, adler32_hex
from streams.storage.endpoint import PartFileLost
from tests.events.landing_tables import batch_of, bits, flat, jagged, nested, payload, pieces, seal

TABLES = [flat(900), jagged(900), nested(900), nested(1), nested(0)]
ABOUT = Provenance("/store/mc/nano.root", "Events", 1_000, 1_900)


def landed(directory: Path, table: pa.Table, kind: str, seed: int = 1, name: str = "out") -> tuple[Path, Sealed]:
    with Spool(str(directory / f"{name}.part")) as spool:
        spool.add(0, 0, payload(table, 0, 0))
        for start, stop in pieces(len(table), seed):
            spool.add(start, stop, payload(table, start, stop))
        about = Provenance("/store/mc/nano.root", "Events", 1_000, 1_000 + len(table))
        return directory / name, seal(spool, kind, str(directory / name), about)


def read(path: Path, kind: str) -> pa.Table:
    if kind == "parquet":
        return pq.read_table(path)
    with pa.memory_map(str(path)) as file, pa.ipc.open_file(file) as reader:
        return reader.read_all()


@pytest.mark.parametrize("kind", ["parquet", "arrow"])
@pytest.mark.parametrize(
    "table", [flat(900), jagged(900), nested(900), nested(1), nested(0)], ids=lambda t: str(t.shape)
)
def test_the_same_bits_land(tmp_path: Path, table: pa.Table, kind: str) -> None:
    path, sealed = landed(tmp_path, table, kind)
    got = read(path, kind)
    assert got.schema.remove_metadata().equals(table.schema.remove_metadata())
    assert bits(got) == bits(table)
    content = path.read_bytes()
    assert sealed == Sealed(len(content), adler32_hex(adler32(content)), len(table))


def test_it_says_what_it_holds(tmp_path: Path) -> None:
    for kind in ("parquet", "arrow"):
        table = nested(900)
        path, _ = landed(tmp_path, table, kind)
        metadata = read(path, kind).schema.metadata
        assert metadata[b"transfer2go.lfn"] == b"/store/mc/nano.root"
        assert metadata[b"transfer2go.tree"] == b"Events"
        assert metadata[b"transfer2go.entries"] == b"1000:1900"
        assert json.loads(metadata[b"transfer2go.columns"]) == table.schema.names
        assert metadata[b"transfer2go.schema"].decode() == fingerprint(table.schema)
        assert metadata[b"zeta"] == b"1"


@pytest.mark.parametrize("kind", ["parquet", "arrow", "root"])
def test_what_it_holds_is_read_back(tmp_path: Path, kind: str) -> None:
    table = jagged(900)
    path, _ = landed(tmp_path, table, kind)
    assert provenance_of(str(path)) == ABOUT
    assert FORMATS[kind].metadata_of(str(path)).items() >= ABOUT.metadata(table.schema).items()


def test_files_that_are_not_ours_say_nothing(tmp_path: Path) -> None:
    path = tmp_path / "file"
    with pytest.raises(StorageError, match="no such file"):
        provenance_of(str(path))
    pq.write_table(flat(3), tmp_path / "plain")
    parquet = (tmp_path / "plain").read_bytes()
    ours, _ = landed(tmp_path, flat(900), "root")
    for content in (b"", b"root", b"rootrootrootroot" * 100, b"PAR1", parquet, parquet[:-9], ours.read_bytes()[:700]):
        path.write_bytes(content)
        with pytest.raises(StorageError) as refused:
            provenance_of(str(path))
        assert refused.value.failure_class == "data-bad", content[:10]


def test_awkward_reads_it(tmp_path: Path) -> None:
    table = nested(900).drop_columns(["map", "nothing"])
    path, _ = landed(tmp_path, table, "parquet")
    got = ak.from_parquet(path)
    expected = ak.from_arrow(table)
    assert got.fields == expected.fields
    for name in got.fields:
        assert str(got[name].to_list()) == str(expected[name].to_list())  # as words: nan is not nan
        assert str(got[name].type) == str(expected[name].type)


def test_pandas_reads_it(tmp_path: Path) -> None:
    table = flat(900)
    path, _ = landed(tmp_path, table, "parquet")
    pandas.testing.assert_frame_equal(pandas.read_parquet(path), table.to_pandas())


@pytest.mark.parametrize("kind", ["parquet", "arrow", "root"])
def test_sealing_again_over_what_a_crash_left(tmp_path: Path, kind: str) -> None:
    path, first = landed(tmp_path, jagged(900), kind, seed=1)
    once = path.read_bytes()
    path.write_bytes(once + b"a longer file that another try left behind" * 1_000)
    (tmp_path / "out.part").unlink()
    path, again = landed(tmp_path, jagged(900), kind, seed=2)
    assert again == first
    assert path.read_bytes() == once


def test_row_groups_end_by_the_entries_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writing, "ROW_GROUP_BYTES", 60_000)
    borders = []
    for seed in range(3):
        path, _ = landed(tmp_path, nested(3_000), "parquet", seed=seed, name=f"out{seed}")
        about = pq.read_metadata(path)
        borders.append([about.row_group(n).num_rows for n in range(about.num_row_groups)])
        assert bits(pq.read_table(path)) == bits(nested(3_000))
    assert borders[0] == borders[1] == borders[2]
    assert len(borders[0]) > 5
    assert all(rows % 64 == 0 for rows in borders[0][:-1])


def test_wide_schemas_get_small_blocks() -> None:
    narrow = pa.schema([("x", pa.float32())])
    wide = pa.schema([(f"x{n}", pa.list_(pa.float32())) for n in range(947)])
    entries = [writing.block_entries(Sizes(schema).guessed_bytes) for schema in (narrow, wide, nested(1).schema)]
    assert entries == [65_536, 64, 256]


def test_sizes_add_up() -> None:
    table = nested(900)
    sizes, whole = Sizes(table.schema), batch_of(table)
    expected = sizes.of(whole, 0, 900)
    for seed in range(5):
        cuts = sorted({0, 900, *(start for start, _ in pieces(900, seed))})
        parts = [whole.slice(start, stop - start) for start, stop in pairwise(cuts)]
        assert sum(sizes.of(part, 0, part.num_rows) for part in parts) == expected
        anew = [pa.concat_batches([part]) for part in parts]
        assert sum(sizes.of(part, 0, part.num_rows) for part in anew) == expected
        assert sum(sizes.of(whole, start, stop) for start, stop in pairwise(cuts)) == expected
    assert 0.8 < expected / whole.nbytes < 1.2
    flat_sizes = Sizes(flat(1).schema)
    assert flat_sizes.of(batch_of(flat(10)), 3, 7) == 4 * (4 + 8 + 1 + 2 + 8 + 4 + 8 + 1)


def test_an_item_that_is_not_whole_is_not_sealed(tmp_path: Path) -> None:
    table = flat(900)
    with Spool(str(tmp_path / "x.part")) as spool:
        for start, stop in ((0, 300), (400, 900)):
            spool.add(start, stop, payload(table, start, stop))
        with pytest.raises(StorageError, match=r"100 entries are not there yet, the first \[300, 400\)") as refused:
            seal(spool, "parquet", str(tmp_path / "out"), ABOUT)
    assert refused.value.failure_class == "transient"
    assert not (tmp_path / "out").exists()


def test_the_file_grows_as_far_as_the_entries_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writing, "ROW_GROUP_BYTES", 60_000)
    monkeypatch.setattr(sink, "_WRITE_BYTES", 10_000)
    table, out = nested(3_000), tmp_path / "out"
    about = Provenance("/store/x.root", "Events", 0, 3_000)
    with Spool(str(tmp_path / "x.part")) as spool, Sealing(spool, "parquet", str(out), about) as sealing:
        assert sealing.advance() == 0
        spool.add(1_000, 2_000, payload(table, 1_000, 2_000))
        assert sealing.advance() == 0
        spool.add(0, 900, payload(table, 0, 900))
        assert sealing.advance() == 900
        spool.add(900, 1_000, payload(table, 900, 1_000))
        assert sealing.advance() == 2_000
        grown = out.stat().st_size
        assert grown > 10_000
        with pytest.raises(StorageError, match=r"1000 entries are not there yet, the first \[2000, 3000\)"):
            sealing.finish()
        spool.add(2_000, 3_000, payload(table, 2_000, 3_000))
        sealed = sealing.finish()
        assert out.stat().st_size == sealed.bytes > grown
        assert seal(spool, "parquet", str(tmp_path / "again"), about) == sealed
    assert bits(pq.read_table(out)) == bits(table)


def test_a_sealing_that_failed_or_ended_stays_so(tmp_path: Path) -> None:
    """Else what a failed write swallowed would be missing in the middle of a file that looks whole."""
    table = nested(900).select(["run", "maybe"])
    about = Provenance("/store/x.root", "Events", 0, 900)
    with Spool(str(tmp_path / "x.part")) as spool:
        spool.add(0, 900, payload(flat(900), 0, 900))
        sealing = Sealing(spool, "parquet", str(tmp_path / "no" / "out"), about)
        with pytest.raises(StorageError, match="cannot write"):
            sealing.advance()
        (tmp_path / "no").mkdir()
        with pytest.raises(StorageError, match="cannot write"):
            sealing.finish()
        with Sealing(spool, "parquet", str(tmp_path / "no" / "out"), about) as other:
            other.finish()
            with pytest.raises(StorageError, match="the sealing is over"):
                other.finish()
    with Spool(str(tmp_path / "y.part")) as spool:
        spool.add(0, 900, payload(table, 0, 900))
        with Sealing(spool, "root", str(tmp_path / "out"), about) as sealing:
            for _ in range(2):
                with pytest.raises(StorageError, match="column 'maybe' has missing values"):
                    sealing.finish()


def test_what_is_still_in_memory_is_not_read_back(tmp_path: Path) -> None:
    """And is not kept once it is used, nor beyond the bound, nor for a spool that is closed."""
    table = flat(3_000)
    size = stream_bytes(payload(table, 0, 1_000))
    recent = Recent(2 * size + 1)
    about = Provenance("/store/x.root", "Events", 0, 3_000)
    with (
        Spool(str(tmp_path / "x.part"), recent=recent) as spool,
        Spool(str(tmp_path / "y.part"), recent=recent) as other,
    ):
        for start in (0, 1_000, 2_000):
            spool.add(start, start + 1_000, payload(table, start, start + 1_000))
        assert recent.bytes == 2 * size
        content = (tmp_path / "x.part").read_bytes()
        (tmp_path / "x.part").write_bytes(content[: len(content) // 3] + bytes(len(content) - len(content) // 3))
        assert bits(pa.Table.from_batches(list(spool.read(1_000, 3_000)))) == bits(table.slice(1_000))
        assert recent.bytes == 0
        other.add(0, 1_000, payload(table, 0, 1_000))
        assert recent.bytes == size
        (tmp_path / "x.part").write_bytes(content)
        assert seal(spool, "parquet", str(tmp_path / "out"), about).entries == 3_000
    assert recent.bytes == 0
    assert bits(pq.read_table(tmp_path / "out")) == bits(table)


def test_no_entries_and_no_schema(tmp_path: Path) -> None:
    about = Provenance("/store/x.root", "Events", 5, 5)
    with Spool(str(tmp_path / "x.part")) as spool:
        with pytest.raises(StorageError, match="no schema is known"):
            seal(spool, "parquet", str(tmp_path / "out"), about)
        sealed = seal(spool, "parquet", str(tmp_path / "out"), about, schema=flat(0).schema)
    assert sealed.entries == 0
    assert pq.read_table(tmp_path / "out").equals(flat(0))


def test_a_spool_that_rots_is_a_lost_part(tmp_path: Path) -> None:
    table = flat(900)
    with Spool(str(tmp_path / "x.part")) as spool:
        spool.add(0, 900, payload(table, 0, 900))
        content = bytearray((tmp_path / "x.part").read_bytes())
        content[-30] ^= 1
        (tmp_path / "x.part").write_bytes(content)
        with pytest.raises(PartFileLost, match="not as it was written"):
            seal(spool, "parquet", str(tmp_path / "out"), ABOUT)


@pytest.mark.parametrize("kind", ["parquet", "arrow", "root"])
def test_the_place_of_the_file_is_refused(tmp_path: Path, kind: str) -> None:
    table = flat(900)
    with Spool(str(tmp_path / "x.part")) as spool:
        spool.add(0, 900, payload(table, 0, 900))
        with pytest.raises(StorageError, match="cannot write"):
            seal(spool, kind, str(tmp_path / "no" / "out"), ABOUT)
        (tmp_path / "link").symlink_to(tmp_path / "elsewhere")
        with pytest.raises(StorageError, match="cannot write"):
            seal(spool, kind, str(tmp_path / "link"), ABOUT)
    assert not (tmp_path / "elsewhere").exists()


def test_compression_is_the_callers(tmp_path: Path) -> None:
    table = jagged(900)
    seen = {}
    with Spool(str(tmp_path / "x.part")) as spool:
        spool.add(0, 900, payload(table, 0, 900))
        for kind in ("parquet", "arrow", "root"):
            for compression in ("zstd", "lz4", "none"):
                seen[kind, compression] = seal(spool, kind, str(tmp_path / "out"), ABOUT, compression=compression).bytes
                if kind != "root":
                    assert bits(read(tmp_path / "out", kind)) == bits(table)
        assert seen[kind, "none"] > seen[kind, "lz4"] > seen[kind, "zstd"]
