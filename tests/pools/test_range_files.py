"""A range as Parquet, ROOT and an Arrow stream: the same values, of just the rows that are meant."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import uproot

from streams.errors import StorageError, WireError
from streams.events.batches import pack
from streams.events.provenance import Provenance, provenance_of
from streams.events.range_files import entries_of, write_range

ABOUT = Provenance("/store/f.root", "events", 10, 15, "entries:events[10:15]")


def batch(start: int, stop: int) -> pa.RecordBatch:
    numbers = list(range(start, stop))
    lists = pa.array([[float(n)] * (n % 3) for n in numbers], pa.list_(pa.float32()))
    return pa.record_batch({"n": pa.array(numbers, pa.int64()), "jag": lists})


PIECES = [(pack(batch(8, 12)), 2, 4), (pack(batch(12, 20)), 0, 3)]
WANTED = batch(10, 15)


def test_the_rows_that_are_meant_come_back_from_each_kind(tmp_path: Path) -> None:
    batches = entries_of(PIECES)
    for kind in ("parquet", "root", "arrow"):
        write_range(str(tmp_path / kind), kind, batches, ABOUT)  # type: ignore[arg-type]
    table = pq.read_table(tmp_path / "parquet")
    assert table.to_pydict() == WANTED.to_pydict()
    assert provenance_of(str(tmp_path / "parquet")) == ABOUT
    with uproot.open(tmp_path / "root") as file:
        found = file["events"].arrays(["n", "jag"])
    assert found["n"].to_list() == WANTED["n"].to_pylist()
    assert found["jag"].to_list() == WANTED["jag"].to_pylist()
    with pa.ipc.open_stream((tmp_path / "arrow").read_bytes()) as stream:
        assert stream.read_all().to_pydict() == WANTED.to_pydict()


def test_no_stop_means_all_that_a_payload_has() -> None:
    (only,) = entries_of([(pack(batch(0, 0)), 0, None)])
    assert only.num_rows == 0


def test_a_range_that_makes_no_sense_is_refused(tmp_path: Path) -> None:
    with pytest.raises(WireError, match="has 4 entries, and 5 were told"):
        entries_of([(pack(batch(8, 12)), 0, 5)])
    with pytest.raises(WireError):
        entries_of([(b"nothing of the kind", 0, 1)])
    other = pa.record_batch({"n": pa.array([1.0])})
    with pytest.raises(StorageError, match="columns change"):
        entries_of([*PIECES, (pack(other), 0, 1)])
    words = pa.record_batch({"when": pa.array([1], pa.timestamp("s"))})
    with pytest.raises(StorageError, match="'when'") as caught:
        write_range(str(tmp_path / "x"), "root", [words], ABOUT)
    assert caught.value.failure_class == "permanent"
