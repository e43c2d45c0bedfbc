"""A range of entries as a file for a command: Parquet, ROOT, or a stream of Arrow batches. It is scratch: not synced.

Not here: files that stay (writing.py).
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from typing import Literal

import pyarrow as pa

from streams.errors import WireError, data_bad, permanent
from streams.events.batches import unpack
from streams.events.final_files import FORMATS
from streams.events.provenance import Provenance
from streams.events.writing import kind_fault

RangeKind = Literal["parquet", "root", "arrow"]


def entries_of(pieces: Iterable[tuple[bytes, int, int | None]]) -> list[pa.RecordBatch]:
    """The batches of payloads, of each the rows `[start, stop)` that are meant (`stop` None: to its end).

    WireError for a payload that is none; StorageError (data-bad) where the columns differ from one to the next.
    """
    found: list[pa.RecordBatch] = []
    for payload, start, stop in pieces:
        batch = unpack(payload)
        if found and not batch.schema.equals(found[0].schema, check_metadata=True):
            raise data_bad("the columns change within the range")
        rows = batch.slice(start, None if stop is None else stop - start)
        if stop is not None and rows.num_rows != stop - start:
            raise WireError(f"a payload has {batch.num_rows} entries, and {stop} were told")
        found.append(rows)
    return found


def write_range(path: str, kind: RangeKind, batches: Sequence[pa.RecordBatch], about: Provenance) -> None:
    """Write one batch or more to a new file. StorageError (permanent) names a column that the kind cannot hold."""
    schema = batches[0].schema
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        if kind == "arrow":
            with os.fdopen(os.dup(fd), "wb") as sink, pa.ipc.new_stream(sink, schema) as writer:
                for batch in batches:
                    writer.write_batch(batch)
            return
        fault = kind_fault(schema, kind)
        if fault:
            raise permanent(fault, about.lfn, "work with --input parquet")
        file = FORMATS[kind].create(fd, path, schema, about.tree, about.metadata(schema), "none")
        try:
            file.write(pa.Table.from_batches([pa.concat_batches(batches)]))
            file.close()
        except BaseException:
            file.abandon()
            raise
    finally:
        os.close(fd)
