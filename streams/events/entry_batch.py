"""Some entries as whoever reads them gets them: Arrow, and what the field computes with. No Kafka, no files."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pyarrow as pa


@dataclass(frozen=True)
class EntryBatch:
    """Entries `[start, stop)` of `tree`-numbered source entries of one file, in order.

    `lfn` and the range are stable: the same entries always come under the same numbers, however they are cut.
    `position` is where a stream goes on behind this batch; see `EventStream`.
    """

    lfn: str
    start: int
    stop: int
    arrow: pa.RecordBatch
    position: str

    def __len__(self) -> int:
        return self.stop - self.start

    @property
    def columns(self) -> tuple[str, ...]:
        return tuple(self.arrow.schema.names)

    def to_awkward(self) -> Any:
        """An awkward record array, jagged columns as they are."""
        import awkward

        return awkward.from_arrow(self.arrow)

    def to_numpy(self) -> dict[str, Any]:
        """Columns by name. ValueError names the first that is jagged, nested, text or has nulls."""
        found = {}
        for name, column in zip(self.arrow.schema.names, self.arrow.columns, strict=True):
            try:
                found[name] = column.to_numpy(zero_copy_only=not pa.types.is_boolean(column.type))
            except pa.ArrowInvalid as error:
                raise ValueError(f"column {name!r} of {column.type} is no flat array; use to_awkward()") from error
        return found

    def to_pandas(self) -> Any:
        """A DataFrame; jagged columns hold arrays."""
        return self.arrow.to_pandas()
