"""A new format is one module and one line: a small one is registered, read, landed, and gone again."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pytest

from streams.core.selections import parts
from streams.core.selections.entries import EventSelection
from streams.errors import StorageError
from streams.events import final_files, formats
from streams.events.batches import pack
from streams.events.provenance import Provenance, provenance_of
from streams.events.reading import open_entries
from streams.events.spool import Spool
from tests.events.int64_format import registered, write_int64
from tests.events.landing_tables import seal

TABLE = pa.table({"run": range(1000), "event": [7 * n for n in range(1000)], "lumi": [n // 9 for n in range(1000)]})
WHOLE = EventSelection.parse("[:]")


def test_a_new_format_is_read_like_any_other(tmp_path: Path) -> None:
    path = str(write_int64(tmp_path / "a.dat", TABLE))  # by its magic, whatever its name
    asked = EventSelection.parse("[10:900]{event,run}")
    with registered(), open_entries(path, asked) as entries:
        assert (entries.columns, entries.entries) == (("run", "event"), 890)
        pieces = [entries.read(*cut) for cut in entries.cuts(1000)]
        assert len(pieces) > 5
        assert pa.Table.from_batches(pieces).equals(TABLE.select(["run", "event"]).slice(10, 890))
        assert entries.version


def test_what_every_format_refuses_it_refuses(tmp_path: Path) -> None:
    path = write_int64(tmp_path / "a.i64", TABLE)
    with registered():
        for asked, told in (
            ("t{run}", "has no trees"),
            ("[0:1001]", "the file has 1,000"),
            ("{rum}", "no column 'rum'; nearest: run"),
            ("[:];separator=\\;", "the option separator means nothing for such a file"),
        ):
            with pytest.raises(StorageError) as refused:
                open_entries(str(path), EventSelection.parse(asked))
            assert told in str(refused.value), asked
            assert refused.value.failure_class == "permanent"
        path.write_bytes(path.read_bytes()[:-1])
        with pytest.raises(StorageError, match="it ends within an entry") as refused:
            open_entries(str(path), WHOLE)
        assert refused.value.failure_class == "data-bad"
        path.write_bytes(b"other")
        with pytest.raises(StorageError, match="not a int64 file: it begins with 'othe'"):
            open_entries(str(path), WHOLE)
        with pytest.raises(StorageError, match="ROOT, Parquet, Avro, CSV, JSON lines and int64 are"):
            open_entries(str(path.rename(tmp_path / "other.dat")), WHOLE)


def test_a_new_format_is_landed_like_any_other(tmp_path: Path) -> None:
    about = Provenance("/store/a.root", "t", 100, 1100, "entries:t[100:1100]", "7:1:1")
    target = str(tmp_path / "a.i64")
    with registered():
        for name, table in (("good", TABLE), ("bad", pa.table({"x": [0.5] * 1000}))):
            with Spool(str(tmp_path / name)) as spool:
                for start in (500, 0):
                    batches = table.slice(start, 500).combine_chunks().to_batches()
                    spool.add(start, start + 500, pack(batches[0]))
                if name == "good":
                    sealed = seal(spool, "i64", target, about)
                else:
                    with pytest.raises(StorageError, match="column 'x' is no int64"):
                        seal(spool, "i64", str(tmp_path / "bad.i64"), about)
        assert sealed.bytes == (tmp_path / "a.i64").stat().st_size
        assert provenance_of(target) == about
        with open_entries(target, WHOLE) as entries:
            assert pa.Table.from_batches([entries.read(0, 1000)]).equals(TABLE)
    with pytest.raises(StorageError, match="not a file of entries of ours"):
        provenance_of(target)


def test_the_registries_are_left_as_they_were(tmp_path: Path) -> None:
    with registered():
        pass
    assert [one.name for one in formats.FORMATS] == ["ROOT", "Parquet", "Avro", "CSV", "JSON lines"]
    assert tuple(final_files.FORMATS) == parts.FORMATS  # what intents may ask for is what entries land as
    assert [one.name for one in final_files.FORMATS.values()] == list(final_files.FORMATS)
    with pytest.raises(StorageError, match="no format of entries is known for this file") as refused:
        open_entries(str(write_int64(tmp_path / "a.i64", TABLE)), WHOLE)
    assert refused.value.next == "ROOT, Parquet, Avro, CSV and JSON lines are"


def test_formats_describe_themselves_without_their_libraries() -> None:
    """Whole files move without Arrow, and a CSV is read without uproot."""
    program = (
        "import sys\n"
        "import streams.planes.source.wiring, streams.planes.inventory.manifest_writer, streams.objects.reading\n"
        "assert not {'pyarrow', 'uproot', 'awkward', 'numpy'} & sys.modules.keys()\n"
        "import streams.events.reading\n"
        "assert not {'pyarrow.parquet', 'uproot', 'awkward'} & sys.modules.keys()\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True, cwd=Path(__file__).parents[2])


def test_no_two_formats_promise_the_same_name_or_begin_alike() -> None:
    ends = [end for one in formats.FORMATS for end in one.ends]
    assert len(ends) == len(set(ends))
    magics = [one.begins for one in final_files.FORMATS.values()]
    assert not any(a.startswith(b) for a in magics for b in magics if a is not b)
