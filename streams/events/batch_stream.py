"""A stream of record batches, taken a number of entries at a time. Not here: where the batches come from."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import pyarrow as pa


class Streamed:
    """Batches whose first entry is number `at`; `at` moves on with what is taken."""

    def __init__(self, batches: Iterable[pa.RecordBatch], at: int) -> None:
        self._batches: Iterator[pa.RecordBatch] = iter(batches)
        self._left: pa.RecordBatch | None = None
        self.at = at

    def take(self, count: int) -> list[pa.RecordBatch]:
        """The next `count` entries. Raises EOFError where the stream ends before."""
        taken = []
        while count:
            batch = self._left if self._left is not None else next(self._batches, None)
            if batch is None:
                raise EOFError(f"it ends {count:,} entries early")
            self._left = batch.slice(count) if batch.num_rows > count else None
            if batch.num_rows:
                taken.append(batch.slice(0, count))
            count -= taken[-1].num_rows if batch.num_rows else 0
            self.at += taken[-1].num_rows if batch.num_rows else 0
        return taken


def joined(batches: Sequence[pa.RecordBatch], schema: pa.Schema) -> list[pa.Array]:
    """The batches' columns, each one array of the schema's type."""
    found = []
    for i, field in enumerate(schema):
        pieces = [_as(batch.column(i), field.type) for batch in batches]
        found.append(pieces[0] if len(pieces) == 1 else pa.concat_arrays(pieces) if pieces else pa.nulls(0, field.type))
    return found


def _as(array: pa.Array, kind: pa.DataType) -> pa.Array:
    return array if array.type == kind else array.cast(kind)
