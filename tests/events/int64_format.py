"""A format as a stranger would add it, read and landed: rows of whole numbers behind a head that names their columns.

magic | bytes of the head (4, little-endian) | head: JSON {"columns": […], "metadata": {…}} | rows of int64
"""

from __future__ import annotations

import json
import os
import struct
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from streams.core.selections.entries import EventSelection
from streams.events import final_files, formats
from streams.events.batches import Compression
from streams.events.checked_file import CheckedFile
from streams.events.cut_points import CutPoints
from streams.events.entries import Entries, chosen, without_tree
from streams.events.final_files.final_file import FinalFile, FinalFormat
from streams.events.formats.entry_format import EntryFormat
from streams.storage.checksums import adler32

MAGIC = b"I64\n"
_HEAD = struct.Struct("<4sI")


class Int64Entries(Entries):
    def __init__(self, file: CheckedFile, selection: EventSelection) -> None:
        super().__init__(file, selection)
        without_tree(selection, file.path, "an int64 file")
        with file.guarded("cannot read the int64 file"):
            _, head_bytes = _HEAD.unpack(file.pread(0, _HEAD.size))
            self._begin = _HEAD.size + head_bytes
            self._names = json.loads(file.pread(_HEAD.size, self._begin))["columns"]
            self._wanted = chosen(selection, self._names, file.path)
            entries, rest = divmod(file.bytes - self._begin, self._width)
            if rest:
                raise ValueError("it ends within an entry")
            start, stop = self._range(entries)
            borders = CutPoints(start, stop, [([0, entries], [8 * entries]) for _ in self._wanted])
        self._found(pa.schema([(name, pa.int64()) for name in self._wanted]), {}, borders)

    @property
    def _width(self) -> int:
        return 8 * len(self._names)

    def _load(self, start: int, stop: int) -> Sequence[pa.Array]:
        raw = self._file.pread(self._begin + start * self._width, self._begin + stop * self._width)
        rows = np.frombuffer(raw, "<i8").reshape(-1, len(self._names))
        return [pa.array(rows[:, self._names.index(name)]) for name in self._wanted]


class Int64File(FinalFile):
    def __init__(
        self, fd: int, path: str, schema: pa.Schema, tree: str, metadata: Mapping[str, str], compression: Compression
    ) -> None:
        self._fd = fd
        head = json.dumps({"columns": schema.names, "metadata": dict(metadata)}, sort_keys=True).encode()
        os.write(fd, _HEAD.pack(MAGIC, len(head)) + head)

    def write(self, table: pa.Table) -> None:
        os.write(self._fd, np.column_stack([column.to_numpy() for column in table.columns]).astype("<i8").tobytes())

    def close(self) -> tuple[int, int]:
        size = os.fstat(self._fd).st_size
        return size, adler32(os.pread(self._fd, size, 0))

    def abandon(self) -> None:
        """Nothing is held."""


def _fault(schema: pa.Schema) -> str | None:
    return next((f"column {one.name!r} is no int64" for one in schema if one.type != pa.int64()), None)


def _metadata_of(path: str) -> dict[str, str]:
    raw = Path(path).read_bytes()
    _, head_bytes = _HEAD.unpack_from(raw)
    found: dict[str, str] = json.loads(raw[_HEAD.size : _HEAD.size + head_bytes])["metadata"]
    return found


READ = EntryFormat("int64", ("i64",), Int64Entries, lambda head, file: head.startswith(MAGIC))
LANDED = FinalFormat("i64", MAGIC, Int64File, _metadata_of, _fault)


@contextmanager
def registered() -> Iterator[None]:
    """While here, entries are read from such files, and land as such."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(formats, "FORMATS", (*formats.FORMATS, READ))
        patch.setitem(final_files.FORMATS, LANDED.name, LANDED)
        yield


def write_int64(path: Path, table: pa.Table) -> Path:
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC)
    file = Int64File(fd, str(path), table.schema, "", {}, "none")
    file.write(table)
    file.close()
    os.close(fd)
    return path
