"""Final files as ROOT: one TTree, written by uproot.

What a TTree written by uproot holds: numbers and booleans, fixed arrays of them, lists of numbers (with a branch of
their lengths, `nNAME` where no column has that name) and strings; no missing values. Everything else is refused, naming
the column.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator, Mapping
from functools import cache
from threading import Lock
from typing import Any
from uuid import UUID

import pyarrow as pa

from streams.core.names import shown
from streams.errors import permanent
from streams.events.batches import Compression
from streams.events.final_files.final_file import FinalFile, FinalFormat
from streams.storage.checksums import ADLER32_EMPTY, adler32

METADATA_KEY = "transfer2go"
"""Of the TObjString that holds the metadata, as JSON, beside the tree."""
TREE = "entries"
"""Where the entries came from no tree."""
_READ_BYTES = 1 << 20
_UNDATED = Lock()
_DATE_CODE = (1 << 22) | (1 << 17)
"""1995-01-01 00:00 as ROOT writes dates: its first."""
_NUMBERS = {f"{sign}int{bits}": f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)}
"""uproot's names for Arrow's."""
_NUMBERS |= {"bool": "bool", "float": "float32", "double": "float64"}


def _fault(schema: pa.Schema) -> str | None:
    """Why a TTree cannot hold this schema, naming the first column; None where it can."""
    for field in schema:
        if _branch_type(field.type) is None:
            kind = shown(str(field.type))
            return f"column {shown(field.name)!r} has the type {kind}, which uproot does not write to a TTree"
    return None


class RootFile(FinalFile):
    """One basket a branch for each table. Nothing is kept of it in memory but its directory."""

    def __init__(
        self, fd: int, path: str, schema: pa.Schema, tree: str, metadata: Mapping[str, str], compression: Compression
    ) -> None:
        import uproot

        self._fd, self._path, self._metadata = fd, path, metadata
        self._types = {field.name: _branch_type(field.type) for field in schema}
        squeezed = {"zstd": uproot.ZSTD(1), "lz4": uproot.LZ4(1), "none": None}[compression]
        self._file = os.fdopen(os.dup(fd), "w+b")
        try:
            with _undated():
                self._root = uproot.recreate(self._file, compression=squeezed, uuid_function=lambda: UUID(int=0))
                lengths = _length_branches(schema)
                types = {name: kind and _parsed(kind) for name, kind in self._types.items()}
                self._tree = self._root.mktree(tree or TREE, types, counter_name=lengths.__getitem__)
        except BaseException:
            self.abandon()
            raise

    def write(self, table: pa.Table) -> None:
        """StorageError (permanent) names a column with missing values."""
        with _undated():
            self._tree.extend({name: _values(table, name, self._path) for name in self._types})

    def close(self) -> tuple[int, int]:
        """With the metadata beside the tree."""
        with _undated():
            self._root[METADATA_KEY] = json.dumps(dict(self._metadata), sort_keys=True)
            self._root.close()
        self._file.close()
        size, adler = 0, ADLER32_EMPTY
        while block := os.pread(self._fd, _READ_BYTES, size):  # it is not written front to back
            adler = adler32(block, adler)
            size += len(block)
        return size, adler

    def abandon(self) -> None:
        """What could not be written is nobody's loss."""
        with contextlib.suppress(OSError):
            self._file.close()


def _metadata_of(path: str) -> dict[str, str]:
    """What `RootFile.close` was given. ValueError where there is none, OSError where the file cannot be read."""
    import uproot

    try:
        with uproot.open(path) as root:
            told = json.loads(str(root[METADATA_KEY]))
    except Exception as error:  # uproot says of a damaged file whatever it stumbled over
        if isinstance(error, OSError) and error.errno:
            raise
        raise ValueError("no metadata") from error
    if not isinstance(told, dict):
        raise ValueError("the metadata is no object")
    return {str(key): str(value) for key, value in told.items()}


@contextlib.contextmanager
def _undated() -> Iterator[None]:
    """uproot writes today's date into every key and takes no other: while here, ROOT's first.

    A file that another thread writes with uproot meanwhile has that date too, which harms nothing. One at a time, else
    the last to leave would put the first one's date back for good.
    """
    import uproot

    with _UNDATED:
        dated = uproot._util.datetime_to_code
        uproot._util.datetime_to_code = lambda _: _DATE_CODE
        try:
            yield
        finally:
            uproot._util.datetime_to_code = dated


@cache
def _parsed(kind: str) -> Any:
    """A branch's type as uproot takes it without parsing: each text costs it 4 ms, twice a branch."""
    import awkward as ak

    return ak.types.from_datashape(kind, highlevel=False)


def _branch_type(kind: pa.DataType) -> str | None:
    """In uproot's words; None for what it does not write, or not so that it can read it (lists of fixed arrays)."""
    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        return "string"
    if _listed(kind):
        number = _NUMBERS.get(str(kind.value_type))
        return f"var * {number}" if number else None
    lengths, inner = _fixed(kind)
    number = _NUMBERS.get(str(inner))
    return "".join(f"{length} * " for length in lengths) + number if number else None


def _length_branches(schema: pa.Schema) -> dict[str, str]:
    """For each column of lists, the branch of their lengths: a name that is nobody's."""
    taken, lengths = set(schema.names), {}
    for field in schema:
        if _listed(field.type):
            name = f"n{field.name}"
            while name in taken:
                name += "_"
            taken.add(name)
            lengths[field.name] = name
    return lengths


def _listed(kind: pa.DataType) -> bool:
    return bool(pa.types.is_list(kind) or pa.types.is_large_list(kind))


def _fixed(kind: pa.DataType) -> tuple[list[int], pa.DataType]:
    """The lengths of arrays in arrays, the outermost first, and what is in the innermost."""
    lengths: list[int] = []
    while pa.types.is_fixed_size_list(kind):
        lengths.append(kind.list_size)
        kind = kind.value_type
    return lengths, kind


def _values(table: pa.Table, name: str, path: str) -> Any:
    """What uproot takes of a column: views of Arrow's memory, never through Python objects."""
    import awkward as ak
    import numpy as np

    column = table.column(name).combine_chunks()
    kind = column.type
    try:
        if pa.types.is_string(kind) or pa.types.is_large_string(kind):
            return ak.Array(_words(_present(column)))
        if not _listed(kind):
            return _numbers(column)
        offsets = _present(column).offsets.to_numpy()
        first, last = int(offsets[0]), int(offsets[-1])
        content = ak.contents.NumpyArray(_numbers(column.values.slice(first, last - first)))
        return ak.Array(ak.contents.ListOffsetArray(ak.index.Index64(offsets.astype(np.int64) - first), content))
    except _Missing:
        what = f"column {shown(name)!r} has missing values, which a TTree cannot hold"
        raise permanent(what, path, "ask for parquet") from None


class _Missing(Exception):
    """A null where a TTree has no place for one."""


def _present(array: pa.Array) -> pa.Array:
    if array.null_count:
        raise _Missing
    return array


def _numbers(array: pa.Array) -> Any:
    """A numpy array, with a dimension for each fixed array."""
    shape = [len(array)]
    while pa.types.is_fixed_size_list(array.type):
        shape.append(array.type.list_size)
        array = _present(array).flatten()
    return _present(array).to_numpy(zero_copy_only=not pa.types.is_boolean(array.type)).reshape(shape)


def _words(array: pa.Array) -> Any:
    import awkward as ak
    import numpy as np

    _, offsets, text = array.buffers()
    wide = np.int64 if pa.types.is_large_string(array.type) else np.int32
    spans = np.frombuffer(offsets, wide)[array.offset : array.offset + len(array) + 1].astype(np.int64)
    letters = np.frombuffer(text, np.uint8) if text is not None and text.size else np.empty(0, np.uint8)
    inner = ak.contents.NumpyArray(letters[spans[0] : spans[-1]], parameters={"__array__": "char"})
    return ak.contents.ListOffsetArray(ak.index.Index64(spans - spans[0]), inner, parameters={"__array__": "string"})


FORMAT = FinalFormat("root", b"root", RootFile, _metadata_of, _fault)
